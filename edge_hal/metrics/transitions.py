"""Event scores: the transitions that a subscriber receives, and their times, against the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from edge_hal.errors import EdgeHalError

from .segments import IntArray, runs_of


@dataclass(frozen=True)
class TransitionPoint:
    """The action `label` begins at `boundary_s`; this was published at `decision_s`."""

    label: int
    boundary_s: float
    decision_s: float


@dataclass(frozen=True)
class TransitionScores:
    """Event scores pooled over streams. `transition_f1` is in 0..1. A score is None if no transition was matched."""

    transition_f1: float
    delay_s_median: float | None
    delay_s_p90: float | None
    boundary_error_s_median: float | None
    false_per_min: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def transitions_of(labels: IntArray, rate_hz: float) -> list[TransitionPoint]:
    """The transitions of frame labels (T,), frame i at i / rate_hz. The first label is not a transition."""
    kinds, starts, _ = runs_of(labels)
    times_s = starts / rate_hz
    return [TransitionPoint(int(k), float(t), float(t)) for k, t in zip(kinds[1:], times_s[1:], strict=True)]


def match_transitions(
    predicted: Sequence[TransitionPoint], truth: Sequence[TransitionPoint], tolerance_s: float
) -> list[tuple[int, int]]:
    """Pairs (index into predicted, index into truth) of the largest matching that keeps the order in time.

    The two of a pair have the same label, and boundaries at most `tolerance_s` apart. Among the matchings with the most
    pairs, one with the smallest sum of boundary errors is returned, in time order.
    """
    if not predicted or not truth:
        return []
    p_time = np.array([point.boundary_s for point in predicted])
    t_time = np.array([point.boundary_s for point in truth])
    p_order, t_order = np.argsort(p_time, kind="stable"), np.argsort(t_time, kind="stable")
    same = np.array([x.label for x in predicted])[p_order, None] == np.array([x.label for x in truth])[t_order]
    error_s = np.abs(p_time[p_order, None] - t_time[t_order])
    # The sum of all errors is less than the gain of one pair, so the number of pairs is maximised first.
    scale = max(tolerance_s, 1e-9) * (min(error_s.shape) + 1)
    allowed = same & (error_s <= tolerance_s + 1e-9)
    gain = np.where(allowed, 1.0 - error_s / scale, -np.inf)

    best = np.zeros((gain.shape[0] + 1, gain.shape[1] + 1))
    for i, row in enumerate(gain):
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + row))
    pairs = []
    i, j = gain.shape
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((int(p_order[i]), int(t_order[j])))
    return pairs[::-1]


def score_transitions(
    predicted: Sequence[Sequence[TransitionPoint]],
    truth: Sequence[Sequence[TransitionPoint]],
    durations_s: Sequence[float],
    tolerance_s: float = 1.0,
) -> TransitionScores:
    """Scores of published transitions, one sequence and one duration per stream, pooled.

    Pass transitions only; the first label of a stream is not one. Delay is the decision time of a matched prediction
    minus the true boundary. `false_per_min` counts unmatched predictions per minute of stream. If nothing was predicted
    and nothing happened, F1 is 1.
    """
    if not len(predicted) == len(truth) == len(durations_s):
        raise EdgeHalError(
            "cannot score transitions",
            f"{len(predicted)} streams predicted, {len(truth)} true, {len(durations_s)} durations",
        )
    delays_s: list[float] = []
    errors_s: list[float] = []
    for p, t in zip(predicted, truth, strict=True):
        for i, j in match_transitions(p, t, tolerance_s):
            delays_s.append(p[i].decision_s - t[j].boundary_s)
            errors_s.append(abs(p[i].boundary_s - t[j].boundary_s))
    count = sum(map(len, predicted))
    either = count + sum(map(len, truth))
    minutes = sum(durations_s) / 60
    return TransitionScores(
        transition_f1=2 * len(delays_s) / either if either else 1.0,
        delay_s_median=float(np.median(delays_s)) if delays_s else None,
        delay_s_p90=float(np.percentile(delays_s, 90)) if delays_s else None,
        boundary_error_s_median=float(np.median(errors_s)) if errors_s else None,
        false_per_min=(count - len(delays_s)) / minutes if minutes > 0 else 0.0,
    )
