"""The state of a decoder: taken anywhere and restored elsewhere, it gives the same decisions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.decoding.decode import open_decoder
from edge_hal.decoding.decoder import Decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.bundles import LABELS, known_spec

SPEC = known_spec(10.0)
KEPT = 60
PROCEDURE = Procedure(
    {name: Step(1 / 3, 1 / 3, 1.5, 1.6, {other: 0.5 for other in LABELS if other != name}) for name in LABELS}
)


def posteriors(seed: int, ticks: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(ticks, 3)) + 3.0 * np.eye(3)[np.repeat(rng.integers(0, 3, ticks), 7)[:ticks]]
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def decided(decoder: Decoder, log_posterior: np.ndarray, ticks: range) -> list[Any]:
    return [decoder.decide(tick, log_posterior[max(0, tick + 1 - KEPT) : tick + 1]) for tick in ticks]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    cut=st.integers(0, 149),
    confirm_s=st.sampled_from([0.0, 0.3, 1.1]),
    evidence_hz=st.sampled_from([0.0, 4.0]),
)
def test_a_decoder_goes_on_from_the_state_of_another(seed: int, cut: int, confirm_s: float, evidence_hz: float) -> None:
    config = DecoderConfig(0.2, confirm_s, 0.0, 0.3, evidence_hz=evidence_hz, procedure=PROCEDURE)
    x = posteriors(seed, 150)
    whole = open_decoder(config, SPEC)
    first = whole.another()
    expected = decided(whole, x, range(150))
    begun = decided(first, x, range(cut))
    state = first.state()
    before = copy.deepcopy(state)
    rest = range(cut, 150)
    assert begun + decided(first, x, rest) == expected  # taking the state changes nothing
    np.testing.assert_equal(state, before)  # it is a copy
    for _ in range(2):  # restoring does not change it either
        other = whole.another()
        other.restore(state)
        assert decided(other, x, rest) == expected[cut:]


@pytest.mark.parametrize("evidence_hz", [0.0, 4.0])
def test_another_decoder_begins_at_the_start_and_shares_no_state(evidence_hz: float) -> None:
    config = DecoderConfig(0.2, 0.3, 0.0, 0.3, evidence_hz=evidence_hz, procedure=PROCEDURE)
    x = posteriors(5, 200)
    fresh, used = open_decoder(config, SPEC), open_decoder(config, SPEC)
    decided(used, x, range(150))
    other = used.another()
    before = copy.deepcopy(used.state())
    assert decided(other, x, range(200)) == decided(fresh, x, range(200))
    np.testing.assert_equal(used.state(), before)
    assert any(decision is not None for decision in decided(used, x, range(150, 200)))
