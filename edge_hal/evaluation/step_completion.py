"""Scores of procedure step recognition: which steps were completed, in which order, and how late this was said.

Definitions of IndustReal (arXiv 2310.17323, section 3.2), with the costs of its published code. Here a step is
completed when another one takes over, and it is recognised at the decision of that transition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_hal.decoding.timeline import Timeline
from edge_hal.metrics import IntArray, runs_of

INSERT, DELETE, SUBSTITUTE, TRANSPOSE = 1.0, 1.0, 2.0, 1.0


@dataclass(frozen=True)
class Completion:
    """The step `label` was completed, or was said to be, at `t_s`."""

    label: int
    t_s: float


@dataclass(frozen=True)
class CompletionScores:
    """Means over videos. `pos`: procedure order similarity, 0..1. `f1`: 0..1. `delay_s`: from the completion to its
    recognition, over all that were recognised; None if none was."""

    pos: float
    f1: float
    delay_s: float | None


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """The unrestricted Damerau-Levenshtein distance with the costs above (Lowrance and Wagner, An extension of the
    string-to-string correction problem, Journal of the ACM 22(2), 1975)."""
    large = (len(a) + len(b)) * SUBSTITUTE + 1
    d = np.full((len(a) + 2, len(b) + 2), large)
    d[1:, 1] = np.arange(len(a) + 1) * DELETE
    d[1, 1:] = np.arange(len(b) + 1) * INSERT
    last_row: dict[Hashable, int] = {}  # the last row in which each symbol of `a` stood
    for i, x in enumerate(a, start=1):
        last_match = 0  # the last column of this row whose symbol is x
        for j, y in enumerate(b, start=1):
            row, column = last_row.get(y, 0), last_match
            if x == y:
                last_match = j
            swapped = (i - row - 1) * DELETE + TRANSPOSE + (j - column - 1) * INSERT
            d[i + 1, j + 1] = min(
                d[i, j] + (0.0 if x == y else SUBSTITUTE),
                d[i + 1, j] + INSERT,
                d[i, j + 1] + DELETE,
                d[row, column] + swapped,
            )
        last_row[x] = i
    return float(d[len(a) + 1, len(b) + 1])


def order_similarity(found: Sequence[Hashable], true: Sequence[Hashable]) -> float:
    """1 - distance / length of `true`, not below 0."""
    if not true:
        return 0.0 if found else 1.0
    return 1.0 - min(edit_distance(true, found) / len(true), 1.0)


def score_completions(found: Sequence[Sequence[Completion]], true: Sequence[Sequence[Completion]]) -> CompletionScores:
    """Scores of completions in time order, one sequence per video.

    The k-th recognition of a step belongs to its k-th completion. One that comes before the completion is false.
    """
    similarities, f1s, delays_s = [], [], list[float]()
    for f, t in zip(found, true, strict=True):
        similarities.append(order_similarity([c.label for c in f], [c.label for c in t]))
        pairs = _pairs(f, t)
        right = [late_s for late_s in pairs if late_s >= 0]
        f1s.append(2 * len(right) / (len(f) + len(t)) if f or t else 1.0)
        delays_s += right
    return CompletionScores(
        float(np.mean(similarities)), float(np.mean(f1s)), float(np.mean(delays_s)) if delays_s else None
    )


def _pairs(found: Sequence[Completion], true: Sequence[Completion]) -> list[float]:
    """How late each recognition is, for those that have a completion."""
    times_s: dict[int, list[float]] = defaultdict(list)
    for completion in true:
        times_s[completion.label].append(completion.t_s)
    count: dict[int, int] = defaultdict(int)
    late_s = []
    for recognition in found:
        number = count[recognition.label]
        count[recognition.label] += 1
        if number < len(times_s[recognition.label]):
            late_s.append(recognition.t_s - times_s[recognition.label][number])
    return late_s


def timeline_completions(
    timelines: Sequence[Timeline], truth: Sequence[IntArray], rates_hz: Sequence[float], background: int | None
) -> CompletionScores:
    """Scores of the steps that end within their video. The last step of a video has no end.

    Args:
        truth: (frames,) labels per video. rates_hz: of the frames.
        background: the label that is no step.
    """
    found, true = [], []
    for timeline, labels, rate_hz in zip(timelines, truth, rates_hz, strict=True):
        kinds, _, stops = runs_of(labels)
        ends = zip(kinds[:-1].tolist(), (stops[:-1] / rate_hz).tolist(), strict=True)
        true.append([Completion(label, t_s) for label, t_s in ends if label != background])
        before = [int(timeline.labels[0]), *(point.label for point in timeline.points[:-1])]
        told = zip(before, timeline.points, strict=False)
        found.append([Completion(label, point.decision_s) for label, point in told if label != background])
    return score_completions(found, true)
