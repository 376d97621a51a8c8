"""The decoder's thresholds, fitted on the posteriors and alignment of the training videos.

What hysteresis is right depends on the procedure: 0.6 s serves one set and 2.5 s destroys another. So the
thresholds come from the data; with transcripts, from the alignment they gave.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decoder import DecoderConfig, decode_posteriors
from edge_hal.decoding.timeline import labels_of, transition_points
from edge_hal.metrics import IntArray, TransitionPoint, runs_of, score_transitions, score_videos, transitions_of
from edge_hal.spec import PyramidSpec

from .learn_procedure import learn_procedure

SMOOTH_S = (0.3, 0.6, 1.0)
CONFIRM_S = (0.0, 0.3, 0.6, 1.0, 1.5)
EVIDENCE_HZ = (1.2, 2.5, 5.0, 10.0)
PROMPT_S = (0.0, 0.6, 1.2)
SHORTEST_QUANTILE = 0.05
LATE_S = 2.0
TOLERANCE = 0.01
"""Of settings this close to the best (scores in 0..1), hysteresis takes the steadiest: training posteriors flatter, and
a price on delay here was paid on unseen videos."""
FILTER_TOLERANCE = 0.02
"""Likewise the filter takes the least evidence and then, steady by itself, the promptest."""


def fit_decoder(
    log_posteriors: Sequence[NDArray[np.float32]],
    labels: Sequence[IntArray],
    spec: PyramidSpec,
    given: Mapping[str, float],
    procedure: Sequence[IntArray] | None = None,
) -> DecoderConfig:
    """Thresholds with the best mean of transition F1 and F1@50, and the procedure that `labels` show. Searched are
    `evidence_hz` and `confirm_s`, or `smooth_s` and `confirm_s` where `given` says `evidence_hz` 0; the shortest action
    follows from the durations, and the lead from how late the boundaries come. `given` thresholds stay.
    `procedure`: the labels that show it, where they are more than these."""
    durations_s = np.concatenate([(stops - starts) / spec.model_hz for _, starts, stops in map(runs_of, labels)])
    shortest_s = 0.5 * float(np.quantile(durations_s, SHORTEST_QUANTILE))
    filters = given.get("evidence_hz", 1.0) > 0
    followed = learn_procedure(procedure or labels, spec.labels, spec.model_hz) if filters else None
    base = DecoderConfig(min_duration_s=round(min(shortest_s, 60.0), 2), procedure=followed)
    truth = [transitions_of(y, spec.model_hz) for y in labels]
    lengths_s = [len(y) / spec.model_hz for y in labels]

    def score(config: DecoderConfig) -> float:
        decisions = [decode_posteriors(p, config, spec) for p in log_posteriors]
        predicted = [labels_of(d, len(y)) for d, y in zip(decisions, labels, strict=True)]
        events = score_transitions([transition_points(d, spec.model_hz) for d in decisions], truth, lengths_s)
        segments = score_videos(predicted, list(labels), background=None)
        return 0.5 * (events.transition_f1 + segments.f1_50 / 100)

    first, confirm_s = ("evidence_hz", PROMPT_S) if filters else ("smooth_s", CONFIRM_S)
    grid = [
        base.changed({first: one, "confirm_s": other, **given})
        for one, other in itertools.product(EVIDENCE_HZ if filters else SMOOTH_S, confirm_s)
    ]
    scores = [score(config) for config in grid]
    enough = max(scores) - (FILTER_TOLERANCE if filters else TOLERANCE)
    good = [config for config, found in zip(grid, scores, strict=True) if found >= enough]
    if filters:
        best = min(good, key=lambda config: (config.evidence_hz, config.confirm_s))
    else:
        best = max(good, key=lambda config: config.confirm_s + config.smooth_s)
    decisions = [decode_posteriors(p, best, spec) for p in log_posteriors]
    late_s = lateness_s([transition_points(d, spec.model_hz) for d in decisions], truth)
    return best.changed({"lead_s": round(best.lead_s + late_s, 2), **given})


def lateness_s(predicted: Sequence[Sequence[TransitionPoint]], truth: Sequence[Sequence[TransitionPoint]]) -> float:
    """Median of boundary - true boundary, over transitions to the same label at most `LATE_S` apart; 0 if early."""
    late = []
    for found, true in zip(predicted, truth, strict=True):
        for point in found:
            apart = [point.boundary_s - t.boundary_s for t in true if t.label == point.label]
            nearest = min(apart, key=abs, default=LATE_S + 1)
            if abs(nearest) <= LATE_S:
                late.append(nearest)
    return max(0.0, float(np.median(late))) if late else 0.0
