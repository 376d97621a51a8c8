"""Probabilities of boundaries, against the sum over all segmentations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.learning.boundary_confidence import boundary_posteriors, mass_within, without_lag
from edge_hal.spec import PyramidSpec
from tests.helpers.small_models import small_spec


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.1, 1.0]))
@settings(deadline=None, max_examples=40)
def test_the_probability_of_a_boundary_is_the_sum_over_all_segmentations(
    seed: int, count: int, spare: int, power: float
) -> None:
    rng = np.random.default_rng(seed)
    ticks, transcript = count + spare, rng.integers(0, 3, count)
    log_p = np.log(rng.dirichlet(np.ones(3), ticks))
    expected, total = np.zeros((count - 1, ticks)), 0.0
    for cuts in itertools.combinations(range(1, ticks), count - 1):
        labels = np.repeat(transcript, np.diff([0, *cuts, ticks]))
        weight = np.exp(power * log_p[np.arange(ticks), labels].sum())
        expected[np.arange(count - 1), list(cuts)] += weight
        total += weight
    found = boundary_posteriors(log_p, transcript.tolist(), power)
    np.testing.assert_allclose(found, expected / total, atol=1e-9)
    if count > 1:
        at = expected.argmax(axis=1)
        near = mass_within(found, at, 1.0)
        for m in range(count - 1):
            assert near[m] == pytest.approx(found[m, max(0, at[m] - 1) : at[m] + 2].sum())


def test_rows_without_lag_describe_their_own_tick() -> None:
    spec: PyramidSpec = replace(small_spec(), lag_s=0.4, other_lags_s=(0.0, 0.2))
    lags = (spec.lag_ticks, *spec.other_lags_ticks)
    count, labels = 3 * max(lags) + 4, len(spec.labels)
    # Row t of the head with lag l holds the number of the tick that it describes.
    rows = [np.repeat((np.arange(count) - lag)[:, None], labels, 1) for lag in lags]
    found = without_lag(np.concatenate(rows, 1).astype(np.float32), spec)
    np.testing.assert_array_equal(found[:, 0], np.arange(count))
