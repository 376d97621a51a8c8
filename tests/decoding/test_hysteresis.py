from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.evidence import LOG_RATIO_LIMIT
from edge_hal.decoding.hysteresis import HysteresisDecoder
from edge_hal.errors import EdgeHalError

HZ = 10.0


def certain(labels: list[int], count: int = 3, confidence: float = 0.9) -> NDArray[np.float32]:
    """(T, K) log posteriors that put `confidence` on the given label of each tick."""
    posterior = np.full((len(labels), count), (1 - confidence) / (count - 1))
    posterior[np.arange(len(labels)), labels] = confidence
    return np.log(posterior).astype(np.float32)


def decode(
    config: DecoderConfig, log_posterior: NDArray[np.float32], every: int = 1, keep: int = 10_000
) -> list[Decision]:
    decoder = HysteresisDecoder(config, HZ)
    made = []
    for tick in range(every - 1, len(log_posterior), every):
        decision = decoder.decide(tick, log_posterior[max(0, tick + 1 - keep) : tick + 1])
        if decision is not None:
            made.append(decision)
    return made


def test_clean_posteriors_give_the_true_segments() -> None:
    labels = [0] * 30 + [2] * 40 + [1] * 30
    config = DecoderConfig(smooth_s=0.5, confirm_s=0.3, min_duration_s=1.0)
    found = decode(config, certain(labels))
    assert [(d.previous, d.label, d.boundary_tick) for d in found] == [
        (None, 0, 0),
        (0, 2, 30),
        (2, 1, 70),
    ]
    first, second, _ = found
    assert first.decision_tick == 3  # leads from tick 0, confirmed 0.3 s later
    # Averaged over 5 ticks, label 2 leads from its third tick; 0.3 s later it is confirmed.
    assert second.decision_tick == 32 + 3
    assert second.confidence == pytest.approx(0.9, abs=1e-6)


def test_a_flicker_shorter_than_the_confirmation_changes_nothing() -> None:
    config = DecoderConfig(smooth_s=0.1, confirm_s=0.5, min_duration_s=0.0)
    brief, long = [0] * 20 + [1] * 5 + [0] * 20, [0] * 20 + [1] * 6 + [0] * 20
    assert [d.label for d in decode(config, certain(brief))] == [0]
    assert [d.label for d in decode(config, certain(long))] == [0, 1, 0]


def test_another_candidate_starts_its_own_confirmation() -> None:
    config = DecoderConfig(smooth_s=0.1, confirm_s=0.5, min_duration_s=0.0)
    found = decode(config, certain([0] * 20 + [1] * 4 + [2] * 20))
    assert [d.label for d in found] == [0, 2]
    assert found[1].decision_tick == 24 + 5


def test_the_margin_keeps_a_narrow_lead_from_taking_over() -> None:
    narrow = np.log(np.array([[0.55, 0.45]] * 30 + [[0.46, 0.54]] * 30, np.float32))
    wide = np.log(np.array([[0.55, 0.45]] * 30 + [[0.3, 0.7]] * 30, np.float32))
    config = DecoderConfig(smooth_s=0.1, confirm_s=0.2, margin=0.1, min_duration_s=0.0)
    assert [d.label for d in decode(config, narrow)] == [0]
    assert [d.label for d in decode(config, wide)] == [0, 1]
    assert [d.label for d in decode(DecoderConfig(margin=0.0), narrow)] == [0, 1]


def test_no_action_is_shorter_than_the_minimum() -> None:
    config = DecoderConfig(smooth_s=0.1, confirm_s=0.0, min_duration_s=2.0)
    found = decode(config, certain([0] * 8 + [1] * 60))
    assert [(d.label, d.boundary_tick, d.decision_tick) for d in found] == [(0, 0, 0), (1, 20, 20)]


def test_the_first_label_of_an_epoch_comes_from_none_at_tick_zero_however_late() -> None:
    config = DecoderConfig(smooth_s=0.1, confirm_s=1.0)
    flicker = [0, 0, 0, 0, 1, 1, 1, 1] * 10
    found = decode(config, certain(flicker + [2] * 30), keep=20)
    assert found[0] == Decision(2, None, 0, 90, pytest.approx(0.9))  # type: ignore[arg-type]


def test_reset_forgets_the_label() -> None:
    decoder = HysteresisDecoder(DecoderConfig(confirm_s=0.0), HZ)
    rows = certain([1] * 5)
    assert decoder.decide(0, rows[:1]) is not None
    assert decoder.decide(1, rows[:2]) is None
    decoder.reset()
    assert decoder.label is None
    again = decoder.decide(0, rows[:1])
    assert again is not None and again.previous is None and again.boundary_tick == 0


def test_one_confident_blunder_cannot_drag_the_boundary() -> None:
    posterior = certain([0] * 40 + [1] * 40, count=2, confidence=0.8).astype(np.float64)
    posterior[60] = [0.0, -60.0]  # one tick swears it is still label 0
    found = decode(DecoderConfig(confirm_s=3.0), posterior.astype(np.float32))
    assert found[1].boundary_tick == 40


@st.composite
def posteriors(draw: st.DrawFn) -> NDArray[np.float32]:
    """Random segments with noise: from clean to hopeless."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 5))
    sharpness = draw(st.floats(0.0, 6.0))
    labels = np.repeat(rng.integers(0, count, 40), rng.integers(1, 30, 40))[:300]
    logits = rng.normal(size=(len(labels), count))
    logits[np.arange(len(labels)), labels] += sharpness
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.float32(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


configs = st.builds(
    DecoderConfig,
    smooth_s=st.floats(0, 2),
    confirm_s=st.floats(0, 2),
    margin=st.floats(0, 0.5),
    min_duration_s=st.floats(0, 4),
)


@given(log_posterior=posteriors(), config=configs, every=st.integers(1, 8), keep=st.integers(20, 400))
@settings(deadline=None, max_examples=200)
def test_whatever_comes_the_segments_are_well_formed(
    log_posterior: NDArray[np.float32], config: DecoderConfig, every: int, keep: int
) -> None:
    shortest = max(1, round(config.min_duration_s * HZ))
    before: Decision | None = None
    for decision in decode(config, log_posterior, every, keep):
        assert decision.boundary_tick <= decision.decision_tick
        assert 0 < decision.confidence <= 1 + 1e-6
        if before is None:
            assert (decision.previous, decision.boundary_tick) == (None, 0)
        else:
            assert decision.previous == before.label != decision.label
            assert decision.boundary_tick - before.boundary_tick >= shortest
            assert decision.decision_tick > before.decision_tick
        before = decision


@given(log_posterior=posteriors(), config=configs, every=st.integers(1, 8), keep=st.integers(20, 400))
@settings(deadline=None, max_examples=200)
def test_the_boundary_is_the_best_there_is(
    log_posterior: NDArray[np.float32], config: DecoderConfig, every: int, keep: int
) -> None:
    """Against scoring every admissible boundary, over the rows the decoder was given."""
    shortest = max(1, round(config.min_duration_s * HZ))
    since = 0
    for decision in decode(config, log_posterior, every, keep):
        if decision.previous is not None:
            tick = decision.decision_tick
            oldest = max(0, tick + 1 - keep)
            ratio = log_posterior[:, decision.label] - log_posterior[:, decision.previous]
            ratio = np.clip(ratio.astype(np.float64), -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)

            def score(boundary: int, ratio: NDArray[np.floating[Any]] = ratio, tick: int = tick) -> float:
                return float(ratio[boundary : tick + 1].sum())

            admissible = range(max(since + shortest, oldest), tick + 1)
            assert decision.boundary_tick in admissible
            best = max(score(boundary) for boundary in admissible)
            assert score(decision.boundary_tick) == pytest.approx(best, abs=1e-3)
        since = decision.boundary_tick


def test_the_fingerprint_follows_the_thresholds(tmp_path: Path) -> None:
    config = DecoderConfig(confirm_s=0.25)
    path = tmp_path / "decoder.json"
    path.write_text(config.to_json())
    assert DecoderConfig.from_file(path) == config
    assert DecoderConfig.from_file(path).fingerprint() == config.fingerprint()
    path.write_text(json.dumps({**json.loads(config.to_json()), "confirm_s": 0.26}))
    assert DecoderConfig.from_file(path).fingerprint() != config.fingerprint()


def test_equal_thresholds_have_one_fingerprint_however_they_are_written() -> None:
    """0, 0.0 and -0.0 decide alike, so subscribers must see the same hash."""
    one = DecoderConfig(smooth_s=1, confirm_s=0, margin=0, min_duration_s=2)
    two = DecoderConfig(smooth_s=1.0, confirm_s=0.0, margin=-0.0, min_duration_s=2.0)
    assert one == two and one.fingerprint() == two.fingerprint() and one.to_json() == two.to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[]", "cannot read"),
        ("3", "cannot read"),
        ('{"confirm": 1}', "line 1: unknown key 'confirm'"),
        ('{"lead_s": 0,\n"confirm_s": -1}', "line 2: decoder.confirm_s = -1"),
        ('{"margin": 0.1,\n\n"margin": 0.2}', "line 3: 'margin' occurs twice"),
        ('{\n"patience": {"fast": 0.5, "fast": 0.6}}', "line 2: 'fast' occurs twice"),
        ('{\n"patience": {"quick": 0.5}}', "line 2: decoder.patience"),
        ('{\n"curve": ""}', "line 2: decoder.curve"),
        ('{"confirm_s": "soon"}', "confirm_s = 'soon'"),
        ('{"smooth_s": NaN}', "NaN is not finite"),
        ('{"smooth_s": true}', "smooth_s = True"),
        ('{"margin": 1' + "0" * 400 + "}", "does not fit 64 bits"),
        ('{"margin": -1' + "0" * 5000 + "}", "does not fit 64 bits"),  # Python refuses to read so many digits
        ('{"min_duration_s": 1e9}', "min_duration_s"),
        ('{"margin": 1}', "margin = 1"),
        ('{"margin": NaN}', "NaN is not finite"),
    ],
)
def test_a_bad_threshold_file_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "decoder.json"
    path.write_text(text)
    with pytest.raises(EdgeHalError, match=message):
        DecoderConfig.from_file(path)


def test_a_missing_threshold_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match=r"cannot read .*decoder\.json"):
        DecoderConfig.from_file(tmp_path / "decoder.json")


@given(st.floats(0, 2), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_the_lead_moves_boundaries_earlier_and_never_into_the_shortest_action(lead_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(3), rng.integers(12, 40, 3)).tolist()
    plain = DecoderConfig(0.3, 0.2, 0.0, 1.0)
    without = decode(plain, certain(labels))
    led = decode(replace(plain, lead_s=lead_s), certain(labels))
    assert [d.label for d in led] == [d.label for d in without]
    since = 0
    for early, late in zip(led, without, strict=True):
        if late.previous is not None:
            assert early.boundary_tick == max(since + 10, late.boundary_tick - round(lead_s * HZ))
            assert early.decision_tick == late.decision_tick
        since = early.boundary_tick
