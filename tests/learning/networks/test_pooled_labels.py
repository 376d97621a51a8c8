"""Labels of the teacher's bins: no segment of the alignment is lost, and else they are those in the middle."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.learning.networks.teacher import pooled_labels
from edge_hal.metrics import runs_of, transcript_of


@given(st.integers(1, 9), st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_each_segment_keeps_a_bin(period: int, durations: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = [int(rng.integers(3))]
    while len(steps) < len(durations):
        steps.append((steps[-1] + int(rng.integers(1, 3))) % 3)
    labels = np.repeat(steps, durations)
    found = pooled_labels(labels, period)
    assert len(found) == -(-len(labels) // period)
    middle = labels[np.minimum(np.arange(len(found)) * period + period // 2, len(labels) - 1)]
    if len(durations) > len(found):
        np.testing.assert_array_equal(found, middle)  # there is no room for all
        return
    assert transcript_of(found) == tuple(steps)
    if len(runs_of(middle)[0]) == len(steps):
        np.testing.assert_array_equal(found, middle)
    np.testing.assert_array_equal(pooled_labels(labels, 1), labels)
