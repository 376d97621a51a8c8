"""The decoder's thresholds: kept where given, found where not, and the same decisions off line as in a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edge_hal
from edge_hal.calib import fit_decoder as calib_decoder
from edge_hal.calib.fit_decoder import (
    CONFIRM_S,
    EVIDENCE_HZ,
    FILTER_CONFIRM_S,
    FILTER_TOLERANCE,
    NOW_TEMPERATURE,
    SMOOTH_S,
    TOLERANCE,
    fit_decoder,
    fit_now_temperature,
    fit_older_decoder,
    older_asked_for,
)
from edge_hal.calib.fit_patience import UNFITTED
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import labels_of, transition_points
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.checkpoint_scores import stream_posteriors
from edge_hal.events import Transition
from edge_hal.learning.networks.held_out import streamed_posteriors
from edge_hal.metrics import mof, score_transitions, score_videos, transitions_of
from edge_hal.model.step import TorchEngine
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import LevelSpec, PyramidSpec
from tests.helpers.bundles import LABELS, SHARP, known_bundle
from tests.helpers.small_models import FLAT, THREE, TWO, random_input, random_model, small_spec

SPEC = small_spec()
COUNT, HZ = len(SPEC.labels), SPEC.model_hz
Log = NDArray[np.float32]
Labels = NDArray[np.int64]

PROCEDURE = Procedure(
    {
        name: Step(0.25, 0.25, 1.0 + i, 1.5, {SPEC.labels[(i + 1) % COUNT]: 0.8, SPEC.labels[i - 1]: 0.2})
        for i, name in enumerate(SPEC.labels)
    }
)
configs = st.builds(
    DecoderConfig,
    smooth_s=st.floats(0, 1.5),
    confirm_s=st.floats(0, 1.5),
    margin=st.floats(0, 0.4),
    min_duration_s=st.floats(0, 3),
    lead_s=st.floats(0, 0.5),
    evidence_hz=st.just(0.0) | st.floats(0.5, 10),
    decide_at=st.just(0.0) | st.floats(0.3, 0.95),
    decide_hz=st.floats(0.5, 10),
    procedure=st.just(PROCEDURE),
)


def segments(rng: np.random.Generator, count: int, shortest: int, longest: int) -> Labels:
    """`count` segments, no label twice running."""
    order = np.cumsum(rng.integers(1, COUNT, count)) % COUNT
    return np.repeat(order, rng.integers(shortest, longest + 1, count)).astype(np.int64)


def certain(labels: Labels, confidence: float = 0.85) -> Log:
    posterior = np.full((len(labels), COUNT), (1 - confidence) / (COUNT - 1))
    posterior[np.arange(len(labels)), labels] = confidence
    return np.log(posterior).astype(np.float32)


def with_bursts(labels: Labels, rng: np.random.Generator, every: int, ticks: int) -> Labels:
    """The labels with a wrong one for `ticks` ticks, in the midst of each segment and `every` ticks apart."""
    seen = labels.copy()
    for start in range(every, len(labels) - every, every):
        inside = labels[max(0, start - ticks) : start + 2 * ticks]
        if (inside == inside[0]).all():
            seen[start : start + ticks] = (inside[0] + rng.integers(1, COUNT)) % COUNT
    return seen


def noisy(labels: Labels, rng: np.random.Generator) -> Log:
    logits = rng.normal(size=(len(labels), COUNT)) * 2
    logits[np.arange(len(labels)), labels] += 2.0
    return np.asarray(torch.log_softmax(torch.from_numpy(logits), -1).numpy(), np.float32)


def score(config: DecoderConfig, posteriors: list[Log], truth: list[Labels]) -> float:
    decisions = [decode_posteriors(p, config, SPEC) for p in posteriors]
    events = score_transitions(
        [transition_points(d, HZ) for d in decisions],
        [transitions_of(y, HZ) for y in truth],
        [len(y) / HZ for y in truth],
    )
    predicted = [labels_of(d, len(y)) for d, y in zip(decisions, truth, strict=True)]
    return (events.transition_f1 + score_videos(predicted, truth, background=None).f1_50 / 100) / 2


@settings(deadline=None, max_examples=12)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "smooth_s": st.floats(0, 3),
            "confirm_s": st.floats(0, 3),
            "margin": st.floats(0, 0.9),
            "min_duration_s": st.floats(0, 5),
            "evidence_hz": st.just(0.0) | st.floats(0.1, 20),
        },
    ),
    st.integers(0, 2**32 - 1),
)
def test_given_thresholds_are_kept_and_the_others_come_from_the_search(given: dict[str, float], seed: int) -> None:
    """Of the two older decoders."""
    labels = segments(np.random.default_rng(seed), 5, 10, 40)
    got = fit_older_decoder([certain(labels)], [labels], SPEC, given)
    if older_asked_for(given):
        assert fit_decoder([certain(labels)], [labels], SPEC, given) == got
    assert not got.believes and got.patience == {} and got.curve == ()
    assert {name: getattr(got, name) for name in given} == given
    if given.get("evidence_hz", 1.0) > 0:
        assert got.procedure == learn_procedure([labels], SPEC.labels, HZ)
        assert "evidence_hz" in given or got.evidence_hz in EVIDENCE_HZ
        assert "confirm_s" in given or got.confirm_s in FILTER_CONFIRM_S
        assert "smooth_s" in given or got.smooth_s == DecoderConfig().smooth_s
    else:
        assert got.procedure is None
        assert "smooth_s" in given or got.smooth_s in SMOOTH_S
        assert "confirm_s" in given or got.confirm_s in CONFIRM_S
    assert "margin" in given or got.margin == DecoderConfig().margin
    if "min_duration_s" not in given:  # no true segment may be ruled out
        starts = np.flatnonzero(np.diff(labels)) + 1
        shortest = np.diff([0, *starts, len(labels)]).min() / HZ
        assert 0 < got.min_duration_s <= shortest


@pytest.mark.parametrize("seed", range(3))
def test_of_settings_as_good_as_the_best_the_steadiest_is_taken(seed: int) -> None:
    """Hysteresis, against the whole grid, scored here. Training posteriors flatter: steadiness costs nothing there."""
    rng = np.random.default_rng(seed)
    truth = [segments(rng, 8, 25, 80) for _ in range(3)]
    for posteriors in ([noisy(y, rng) for y in truth], [certain(y) for y in truth]):
        got = fit_decoder(posteriors, truth, SPEC, {"evidence_hz": 0.0})
        scores = {
            (smooth_s, confirm_s): score(
                DecoderConfig(smooth_s, confirm_s, got.margin, got.min_duration_s), posteriors, truth
            )
            for smooth_s in SMOOTH_S
            for confirm_s in CONFIRM_S
        }
        best = max(scores.values())
        assert scores[got.smooth_s, got.confirm_s] >= best - TOLERANCE
        good = [sum(setting) for setting, value in scores.items() if value >= best - TOLERANCE]
        assert got.smooth_s + got.confirm_s == max(good)


@pytest.mark.parametrize(
    ("seed", "tolerance"),
    [(0, FILTER_TOLERANCE), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((1, 0.05), (2, 0.1)))],
)
def test_of_filters_as_good_as_the_best_the_one_with_the_least_evidence_is_taken(
    seed: int, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole grid, scored here. Of those with the same evidence, the promptest."""
    monkeypatch.setattr(calib_decoder, "FILTER_TOLERANCE", tolerance)  # of such short videos scores lie far apart
    rng = np.random.default_rng(seed)
    truth = [segments(rng, 8, 25, 80) for _ in range(2)]
    for posteriors in ([noisy(y, rng) for y in truth], [certain(y) for y in truth]):
        got = fit_older_decoder(posteriors, truth, SPEC, {})
        assert got.procedure is not None and got.evidence_hz > 0
        scores = {
            (hz, confirm_s): score(
                got.with_thresholds({"evidence_hz": hz, "confirm_s": confirm_s, "lead_s": 0.0}), posteriors, truth
            )
            for hz in EVIDENCE_HZ
            for confirm_s in FILTER_CONFIRM_S
        }
        least = max(scores.values()) - tolerance
        assert (got.evidence_hz, got.confirm_s) == min(setting for setting, value in scores.items() if value >= least)


def fit_belief(posteriors: list[Log], truth: list[Labels]) -> DecoderConfig:
    return fit_decoder(posteriors, truth, SPEC, {})


def fit_filter(posteriors: list[Log], truth: list[Labels]) -> DecoderConfig:
    return fit_older_decoder(posteriors, truth, SPEC, {})


def fit_hysteresis(posteriors: list[Log], truth: list[Labels]) -> DecoderConfig:
    return fit_decoder(posteriors, truth, SPEC, {"evidence_hz": 0.0})


FITS = pytest.mark.parametrize("fit", [fit_belief, fit_filter, fit_hysteresis])
Fit = Callable[[list[Log], list[Labels]], DecoderConfig]


@FITS
def test_bursts_of_a_known_length_are_sat_out(fit: Fit) -> None:
    """Wrong for 0.8 s again and again, in segments of 6 s and more: only a patient decoder gets it right."""
    rng = np.random.default_rng(5)
    truth = [segments(rng, 6, 60, 120) for _ in range(3)]
    posteriors = [certain(with_bursts(y, rng, 30, 8)) for y in truth]
    assert score(DecoderConfig(0.3, 0.0, 0.0, 0.5), posteriors, truth) < 0.6
    got = fit(posteriors, truth)
    assert got.believes == (fit is fit_belief) and score(got, posteriors, truth) == 1.0
    decided = [labels_of(decode_posteriors(p, got, SPEC), len(y)) for y, p in zip(truth, posteriors, strict=True)]
    if got.believes:  # the median of the first tick may lie a tick beside it
        assert mof(decided, truth) > 99
    else:
        assert all(np.array_equal(labels, y) for labels, y in zip(decided, truth, strict=True))


@FITS
def test_a_fast_procedure_gets_a_quick_decoder(fit: Fit) -> None:
    rng = np.random.default_rng(6)
    truth = [segments(rng, 20, 8, 14) for _ in range(3)]
    posteriors = [certain(y) for y in truth]
    got = fit(posteriors, truth)
    assert score(DecoderConfig(1.0, 1.5, 0.0, 0.4), posteriors, truth) < 0.5
    assert score(got, posteriors, truth) > 0.95
    assert got.believes or got.confirm_s + got.smooth_s < 1.5


@pytest.mark.parametrize("length", [1, 3, 50])
def test_videos_of_one_action_and_of_a_few_ticks_can_be_fitted(length: int) -> None:
    labels = np.full(length, 2, np.int64)
    for got in (
        fit_decoder([certain(labels)], [labels], SPEC, {}),
        fit_decoder([certain(labels)], [labels], SPEC, {}, held_out=False),
        fit_older_decoder([certain(labels)], [labels], SPEC, {}),
    ):
        assert 0 <= got.min_duration_s <= length / HZ


@pytest.mark.parametrize(
    "given",
    [{"decide_at": 0.8}, {"decide_hz": 5.0}, {"belief_hz": 2.0, "free_order": 0.2}, {"now_temperature": 0.7}],
)
def test_given_thresholds_of_the_belief_are_kept(given: dict[str, float]) -> None:
    rng = np.random.default_rng(7)
    truth = [segments(rng, 6, 20, 60) for _ in range(2)]
    posteriors = [noisy(y, rng) for y in truth]
    for held_out in (False, True):
        got = fit_decoder(posteriors, truth, SPEC, given, held_out=held_out)
        assert got.believes and {name: getattr(got, name) for name in given} == given
        if "decide_at" in given:  # the only setting
            assert got.patience == {} and {row["decide_at"] for row in got.curve} <= {0.8}
        else:
            assert got.decide_at == got.patience["balanced"]
        assert bool(got.curve) == held_out


def test_without_held_out_videos_the_settings_are_the_defaults_and_rules_keep_their_limits() -> None:
    rng = np.random.default_rng(8)
    truth = [segments(rng, 6, 20, 60) for _ in range(3)]
    got = fit_decoder([noisy(y, rng) for y in truth], truth, SPEC, {}, held_out=False)
    assert got.patience == UNFITTED and got.decide_at == UNFITTED["balanced"] and got.curve == ()
    assert got.now_temperature == NOW_TEMPERATURE
    assert got.procedure == learn_procedure(truth, SPEC.labels, HZ)


def test_reports_that_would_be_wrong_too_often_are_less_certain() -> None:
    """Where the network takes a whole segment for another step, every tick misleads the belief."""
    rng = np.random.default_rng(10)
    config = DecoderConfig(procedure=PROCEDURE, decide_at=0.9)
    seen = [segments(rng, 15, 20, 60) for _ in range(4)]
    truth = [y.copy() for y in seen]
    for y in truth:
        for begin, end in list(itertools.pairwise(np.flatnonzero(np.diff(y)) + 1))[::3]:
            y[begin:end] = (y[begin] + 1) % COUNT
    assert fit_now_temperature([certain(y) for y in seen], seen, config, SPEC) == NOW_TEMPERATURE
    fitted = fit_now_temperature([certain(y) for y in seen], truth, config, SPEC)
    assert fitted > 1.2 * NOW_TEMPERATURE
    # Under half a minute says too little.
    assert fit_now_temperature([certain(seen[0])[:290]], [truth[0][:290]], config, SPEC) == NOW_TEMPERATURE
    learned = fit_decoder([certain(y) for y in seen], truth, SPEC, {}, held_out=True)
    assert learned.now_temperature > NOW_TEMPERATURE


@pytest.mark.parametrize(
    ("given", "dead"),
    [
        ({"smooth_s": 1.0, "decide_at": 0.8}, "decide_at"),
        ({"evidence_hz": 2.5, "decide_hz": 3.0}, "decide_hz"),
        ({"decide_at": 0.0, "decide_hz": 3.0}, "decide_hz"),
        ({"evidence_hz": 0.0, "belief_hz": 3.0}, "belief_hz"),
        ({"evidence_hz": 0.0, "now_temperature": 3.0}, "now_temperature"),
        ({"evidence_hz": 0.0, "decide_at": 0.0, "free_order": 0.1}, "free_order"),
    ],
)
def test_thresholds_that_exclude_each_other_are_refused(given: dict[str, float], dead: str) -> None:
    labels = segments(np.random.default_rng(9), 5, 10, 40)
    with pytest.raises(EdgeHalError, match=f"decoder.{dead} has no effect here") as caught:
        fit_decoder([certain(labels)], [labels], SPEC, given)
    assert caught.value.exit_code == 2
    del given[dead]
    assert not fit_decoder([certain(labels)], [labels], SPEC, given).believes


def test_the_background_of_a_model_is_no_step_for_any_decoder() -> None:
    spec = replace(SPEC, background=SPEC.labels[1])
    labels = segments(np.random.default_rng(9), 8, 10, 40)
    for fit in (fit_decoder, fit_older_decoder):
        procedure = fit([certain(labels)], [labels], spec, {}).procedure
        assert procedure is not None
        assert [name for name, step in procedure.steps.items() if step.background] == [spec.background]


def test_labels_and_points_of_decisions() -> None:
    labels = np.repeat([0, 3, 1], [40, 50, 30]).astype(np.int64)
    decisions = decode_posteriors(certain(labels), DecoderConfig(0.3, 0.3, 0.0, 1.0), SPEC)
    assert np.array_equal(labels_of(decisions, 120), labels)
    points = transition_points(decisions, HZ)
    assert [(p.label, p.boundary_s) for p in points] == [(3, 4.0), (1, 9.0)]  # the first label is no transition
    assert all(p.decision_s > p.boundary_s for p in points)
    assert np.array_equal(labels_of([], 3), np.zeros(3))


@pytest.mark.parametrize("levels", [FLAT, TWO, THREE], ids=["flat", "two", "three"])
@settings(deadline=None, max_examples=6)
@given(config=configs, seed=st.integers(0, 1000), ticks=st.integers(1, 130))
def test_decisions_off_line_are_those_of_the_stream(
    levels: tuple[LevelSpec, ...], config: DecoderConfig, seed: int, ticks: int
) -> None:
    """One pass over the video against step after step, longer than what the stream keeps."""
    spec: PyramidSpec = replace(small_spec(levels), lag_s=seed % 4 / HZ, other_lags_s=(0.4, 0.6)[: seed % 3])
    pyramid, front_end = random_model(spec, seed % 3)
    vectors = random_input(ticks, seed=seed)
    [log_p] = streamed_posteriors(pyramid, [front_end(torch.from_numpy(vectors))])
    assert log_p.shape == (ticks, (1 + seed % 3) * COUNT)
    stream = PyramidStream(spec, [TorchEngine(pyramid, front_end, level) for level in range(len(levels))])
    streamed = decode_posteriors(stream_posteriors(stream, vectors), config, spec)
    expected = decode_posteriors(log_p, config, spec)
    assert [(d.label, d.previous, d.boundary_tick, d.decision_tick) for d in streamed] == [
        (d.label, d.previous, d.boundary_tick, d.decision_tick) for d in expected
    ]
    assert [d.confidence for d in streamed] == pytest.approx([d.confidence for d in expected], abs=1e-4)


@pytest.mark.parametrize("lag_s", [0.0, 0.7])
def test_decisions_off_line_are_the_events_of_the_runtime(tmp_path: Path, lag_s: float) -> None:
    """Through a bundle on ONNX Runtime whose posteriors can be written down, for thresholds of all kinds."""
    rng = np.random.default_rng(3)
    vectors = rng.random((900, len(LABELS))).astype(np.float32) * 0.2
    for start, stop in ((0, 200), (200, 420), (420, 700), (700, 900)):
        vectors[start:stop, rng.integers(len(LABELS))] += 0.1
    log_p = torch.log_softmax(torch.from_numpy(vectors * SHARP), -1).numpy()
    cycle = Procedure({name: Step(0.3, 0.3, 20.0, 1.5, {LABELS[i - 1]: 1.0}) for i, name in enumerate(LABELS)})
    seen = 0
    for config in (
        DecoderConfig(0.0, 0.0, 0.0, 0.0),
        DecoderConfig(0.5, 0.5, 0.0, 1.0),
        DecoderConfig(1.0, 0.3, 0.05, 4.0),
        DecoderConfig(2.0, 1.5, 0.0, 0.5),
        DecoderConfig(0.5, 0.3, 0.0, 0.5, evidence_hz=6.0, procedure=cycle),
        DecoderConfig(0.5, 0.0, 0.0, 0.0, lead_s=0.2, evidence_hz=1.5, procedure=cycle),
        DecoderConfig(min_duration_s=0.0, decide_at=0.6, decide_hz=4.0, procedure=cycle),
        DecoderConfig(min_duration_s=2.0, lead_s=0.2, decide_at=0.9, free_order=0.3, procedure=cycle),
    ):
        bundle = known_bundle(tmp_path / "bundle", decoder=config, lag_s=lag_s)
        with edge_hal.open_stream(bundle.path) as stream:
            events = [e for t, x in enumerate(vectors) for e in stream.push(x, round(t * 1e9 / HZ))]
        made = [e for e in events if isinstance(e, Transition)]
        decisions = decode_posteriors(log_p, config, bundle.spec)
        assert [(e.to, e.boundary.tick, e.decision.tick) for e in made] == [
            (LABELS[d.label], d.boundary_tick, d.decision_tick) for d in decisions
        ]
        # An event's time is that of its tick, the lag taken off already. The belief is about the newest tick.
        assert all(e.boundary.t_ns == round(e.boundary.tick * 1e9 / HZ) for e in made)
        least = 0 if config.believes else bundle.spec.lag_ticks
        assert all(e.decision.tick - e.boundary.tick >= least for e in made[1:])
        seen += len(made)
    assert seen > 25


@pytest.mark.parametrize("late_ticks", [0, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_the_lead_is_how_late_the_posteriors_turn(late_ticks: int) -> None:
    rng = np.random.default_rng(late_ticks)
    truth = [segments(rng, 8, 40, 90) for _ in range(3)]
    late = [certain(np.concatenate([y[:1].repeat(late_ticks), y])[: len(y)]) for y in truth]
    assert fit_older_decoder(late, truth, SPEC, {}).lead_s == pytest.approx(late_ticks / HZ)
    assert fit_older_decoder(late, truth, SPEC, {"lead_s": 0.2}).lead_s == 0.2
    # Posteriors that lag as the table says are not late.
    if late_ticks:
        assert fit_older_decoder(late, truth, replace(SPEC, lag_s=late_ticks / HZ), {}).lead_s == pytest.approx(0)
