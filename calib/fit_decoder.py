"""The thresholds of the decoder, fitted on posteriors and labels of training videos.

The right thresholds depend on the procedure: a confirmation of 0.6 s suits one data set, and 2.5 s ruins another. So
they are fitted. If only transcripts are given, the labels are those of the alignment.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import decode_posteriors, split_heads
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import labels_of, transition_points
from edge_hal.errors import EdgeHalError
from edge_hal.metrics import IntArray, TransitionPoint, runs_of, score_transitions, score_videos, transitions_of
from edge_hal.procedure.rules import Procedure
from edge_hal.spec import PyramidSpec

from .confidence import MIN_EVENTS, collect_now, fit_confidence
from .fit_patience import UNFITTED, choose, fit_curve
from .fit_rules import fit_rules
from .followed import follow
from .known_mistakes import KnownMistakes
from .learn_procedure import learn_procedure

SMOOTH_S = (0.3, 0.6, 1.0)
CONFIRM_S = (0.0, 0.3, 0.6, 1.0, 1.5)
EVIDENCE_HZ = (1.2, 2.5, 5.0, 10.0)
FILTER_CONFIRM_S = (0.0, 0.6, 1.2)
SHORTEST_QUANTILE = 0.05
LATE_S = 2.0
TOLERANCE = 0.01
"""Settings whose score (0..1) is this close to the best count as equal. Of these, hysteresis takes the slowest:
posteriors of training videos are too good, so a faster setting that is equal here is worse on unseen videos."""
FILTER_TOLERANCE = 0.02
"""The same for the semi-Markov filter. It takes the lowest `evidence_hz`, and then the shortest `confirm_s`, because it
is stable without a long one."""


NOW_TEMPERATURE = 1.5
"""The least `now_temperature`, and that of a network without held-out videos. The belief takes ticks for more
independent than they are, so it is too certain. What is fitted may be too low, because the labels are those of the
alignment, which the model finds easier than the true ones (`docs/decisions.md`)."""
OF_OLDER_DECODERS = ("smooth_s", "confirm_s", "margin", "evidence_hz")
"""Thresholds that only hysteresis and the Viterbi filter use. If one is given, it chooses that decoder."""


def older_asked_for(given: Mapping[str, float]) -> str | None:
    """The given threshold that asks for hysteresis or the Viterbi filter; None if the belief decides."""
    if given.get("decide_at") == 0:
        return "decide_at"
    return next((name for name in OF_OLDER_DECODERS if name in given), None)


def check_given(given: Mapping[str, float]) -> None:
    """Raises EdgeHalError (exit code 2) if one of the given thresholds would have no effect beside another."""
    older = older_asked_for(given)
    if older is None:
        return
    dead = {"decide_hz"} if older == "decide_at" else {"decide_hz", "decide_at"}
    if given.get("evidence_hz") == 0:
        dead |= {"belief_hz", "now_temperature", "free_order"}  # hysteresis knows no procedure
    for name in sorted(dead & given.keys()):
        why = f"decoder.{older} chooses a decoder that does not use it"
        raise EdgeHalError(f"decoder.{name} has no effect here", why, "leave one of them out", exit_code=2)


def fit_decoder(
    log_posteriors: Sequence[NDArray[np.float32]],
    labels: Sequence[IntArray],
    spec: PyramidSpec,
    given: Mapping[str, float],
    procedure: Sequence[IntArray] | None = None,
    *,
    held_out: bool = True,
    normal: Sequence[NDArray[np.float32]] | None = None,
    mistakes: Sequence[tuple[NDArray[np.float32], IntArray]] = (),
) -> DecoderConfig:
    """The thresholds and the procedure.

    The belief decides, with the settings of `fit_patience.py`, unless `given` has a threshold of an older decoder or
    `decide_at` 0. `min_duration_s` follows from the durations of the segments. Boundaries are where the belief puts
    them: `lead_s` stays 0.

    Args:
        log_posteriors: (T, H K) per video. labels: (T,) per video.
        given: thresholds that are fixed.
        procedure: labels (T,) of the videos that the procedure is learned from; by default `labels`.
        held_out: whether the network was not trained on these videos. If it was, its settings are `UNFITTED`, because
            posteriors of its own videos are too good.
        normal: the posteriors of more videos, for the limits of deviations; by default `log_posteriors`. False
            deviations are rare, so few videos say little of them.
        mistakes: posteriors and labels of videos in which the procedure was not followed.
    """
    check_given(given)
    wrong = [y for _, y in mistakes]
    if older_asked_for(given):
        main = [split_heads(p, spec)[spec.lag_ticks] for p in log_posteriors]
        return fit_older_decoder(main, labels, spec, given, procedure, wrong)
    learned = procedure_of(procedure or labels, spec, wrong)
    base = DecoderConfig(
        min_duration_s=shortest_s(labels, spec.model_hz), procedure=learned, now_temperature=NOW_TEMPERATURE
    ).with_thresholds(given)
    if held_out:
        curve, balanced = fit_curve(log_posteriors, labels, spec, base, given)
        patience, base = choose(curve, balanced), replace(base, decide_hz=curve.decide_hz, curve=curve.table())
    else:
        patience = UNFITTED
    # A given `decide_at` is the only setting.
    base = replace(base, patience={} if "decide_at" in given else patience, decide_at=patience["balanced"])
    if held_out:
        base = replace(base, now_temperature=fit_now_temperature(log_posteriors, labels, base, spec))
    fitted = base.with_thresholds(given)
    if held_out and fitted.believes:
        assert fitted.procedure is not None
        learned, hz = fitted.procedure, spec.model_hz
        followed = [follow(p, fitted, spec) for p in normal or log_posteriors]
        known = [KnownMistakes.of(follow(p, fitted, spec), y, learned, hz) for p, y in mistakes]
        fitted = replace(fitted, procedure=fit_rules(learned, followed, hz, known))
    return fitted


def fit_now_temperature(
    log_posteriors: Sequence[NDArray[np.float32]], labels: Sequence[IntArray], config: DecoderConfig, spec: PyramidSpec
) -> float:
    """`now_temperature`, at least `NOW_TEMPERATURE`; that, too, if the videos are too short to fit it."""
    reports = collect_now(log_posteriors, labels, config, spec)
    return NOW_TEMPERATURE if len(reports) < MIN_EVENTS else max(NOW_TEMPERATURE, fit_confidence(reports).temperature)


def procedure_of(labels: Sequence[IntArray], spec: PyramidSpec, mistakes: Sequence[IntArray] = ()) -> Procedure:
    """The procedure of labels (T,) per video; see `learn_procedure`. The background of the model is no step of it."""
    background = None if spec.background is None else spec.labels.index(spec.background)
    return learn_procedure(labels, spec.labels, spec.model_hz, background, mistakes=mistakes)


def shortest_s(labels: Sequence[IntArray], model_hz: float) -> float:
    """`min_duration_s`: half of a low quantile of the durations."""
    durations_s = np.concatenate([(stops - starts) / model_hz for _, starts, stops in map(runs_of, labels)])
    return round(min(0.5 * float(np.quantile(durations_s, SHORTEST_QUANTILE)), 60.0), 2)


def fit_older_decoder(
    log_posteriors: Sequence[NDArray[np.float32]],
    labels: Sequence[IntArray],
    spec: PyramidSpec,
    given: Mapping[str, float],
    procedure: Sequence[IntArray] | None = None,
    mistakes: Sequence[IntArray] = (),
) -> DecoderConfig:
    """Hysteresis or the Viterbi filter with the best mean of transition F1 and F1@50, found by grid search, and the
    procedure.

    The grid is over `evidence_hz` and `confirm_s`, or over `smooth_s` and `confirm_s` if `given` sets `evidence_hz` to
    0. `min_duration_s` follows from the durations of the segments, `lead_s` from the delay of the boundaries.

    Args:
        log_posteriors: (T, K) per video. labels: (T,) per video.
        given: thresholds that are fixed.
        procedure: labels (T,) of the videos that the procedure is learned from; by default `labels`.
        mistakes: labels (T,) of videos in which the procedure was not followed.
    """
    semi_markov = given.get("evidence_hz", 1.0) > 0
    learned = procedure_of(procedure or labels, spec, mistakes) if semi_markov else None
    base = DecoderConfig(
        min_duration_s=shortest_s(labels, spec.model_hz),
        procedure=learned,
        now_temperature=NOW_TEMPERATURE if semi_markov else 1.0,
    )
    truth = [transitions_of(y, spec.model_hz) for y in labels]
    lengths_s = [len(y) / spec.model_hz for y in labels]

    def score(config: DecoderConfig) -> float:
        decisions = [decode_posteriors(p, config, spec) for p in log_posteriors]
        predicted = [labels_of(d, len(y)) for d, y in zip(decisions, labels, strict=True)]
        events = score_transitions([transition_points(d, spec.model_hz) for d in decisions], truth, lengths_s)
        segments = score_videos(predicted, list(labels), background=None)
        return 0.5 * (events.transition_f1 + segments.f1_50 / 100)

    first, confirm_s = ("evidence_hz", FILTER_CONFIRM_S) if semi_markov else ("smooth_s", CONFIRM_S)
    grid = [
        base.with_thresholds({first: one, "confirm_s": other, **given})
        for one, other in itertools.product(EVIDENCE_HZ if semi_markov else SMOOTH_S, confirm_s)
    ]
    scores = [score(config) for config in grid]
    threshold = max(scores) - (FILTER_TOLERANCE if semi_markov else TOLERANCE)
    good = [config for config, found in zip(grid, scores, strict=True) if found >= threshold]
    if semi_markov:
        best = min(good, key=lambda config: (config.evidence_hz, config.confirm_s))
    else:
        best = max(good, key=lambda config: config.confirm_s + config.smooth_s)
    decisions = [decode_posteriors(p, best, spec) for p in log_posteriors]
    late_s = lateness_s([transition_points(d, spec.model_hz) for d in decisions], truth)
    return best.with_thresholds({"lead_s": round(best.lead_s + late_s, 2), **given})


def lateness_s(predicted: Sequence[Sequence[TransitionPoint]], truth: Sequence[Sequence[TransitionPoint]]) -> float:
    """The median of boundary minus true boundary in seconds, over pairs of transitions to the same label that are at
    most `LATE_S` apart; 0 if it is negative."""
    late = []
    for found, true in zip(predicted, truth, strict=True):
        for point in found:
            apart = [point.boundary_s - t.boundary_s for t in true if t.label == point.label]
            nearest = min(apart, key=abs, default=LATE_S + 1)
            if abs(nearest) <= LATE_S:
                late.append(nearest)
    return max(0.0, float(np.median(late))) if late else 0.0
