"""Alignment of frame posteriors with an ordered list of actions, by boundaries.

Transition-aware boundary alignment (ATBA, CVPR 2024, section 3.2). A class-agnostic score proposes candidate
boundaries. The change of the posteriors at each candidate scores it for each pair of consecutive actions. Dynamic
programming then picks one candidate per transition. Nothing here carries a gradient.

The window sizes of the paper count samples at about 1.5 Hz: pool the posteriors to such a rate first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.hmm.viterbi import Segmentation, check_scores, segmentation

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the boundary alignment, in samples of its posteriors.

    Two candidates are at least `radius_fraction` of a mean segment apart (use 0.1 if the lengths of segments differ
    much).
    """

    boundary_window: int = 7
    transition_window: int = 31
    candidates_per_transition: int = 4
    radius_fraction: float = 0.3


def align(p: ArrayLike, transcript: Sequence[int], config: AlignmentConfig | None = None) -> Segmentation:
    """Align frame posteriors p (T, K) with a transcript of M actions. Every action gets at least one frame.

    Raises:
        EdgeHalError: T < M, or the transcript is empty.
    """
    config = config or AlignmentConfig()
    p = np.asarray(p, np.float64)
    check_scores(p, transcript)
    length, count = len(p), len(transcript)
    if count == 1:
        return segmentation(transcript, np.zeros(0, np.int64), length)
    score = boundary_score(p, config.boundary_window)
    candidates = boundary_candidates(
        score,
        config.candidates_per_transition * (count - 1),
        int(config.radius_fraction * length / count),
    )
    candidates = _at_least(candidates, count - 1, score)
    gain = transition_scores(p, transcript, candidates, config.transition_window)
    return segmentation(transcript, candidates[_increasing(gain + score[candidates])], length)


def boundary_score(p: FloatArray, window: int = 7) -> NDArray[np.float64]:
    """Class-agnostic score (T,) of a boundary just before frame t, from posteriors p (T, K).

    It is a mean over all pairs of the `window` rows around t (rows of zeros outside the video): the similarity of a
    pair counts as positive if both rows lie on the same side of the boundary, and as negative if they do not. The
    similarity is 1 - 2 JS / ln 2 with the Jensen-Shannon divergence JS; the pair of the centre with itself counts 0.
    """
    half = _half(window)
    padded = np.pad(np.asarray(p, np.float64), ((half, half), (0, 0)))
    entropy = -_xlogx(padded)
    side = np.arange(window) < half
    score = np.full(len(p), float(window - 1))  # each row with itself, except the centre
    for apart in range(1, window):
        a, b = padded[:-apart], padded[apart:]
        js = -_xlogx((a + b) / 2) - (entropy[:-apart] + entropy[apart:]) / 2
        similarity = 1 - 2 * js / np.log(2)
        sign = np.where(side[:-apart] == side[apart:], 2.0, -2.0)  # (i, j) and (j, i)
        score += sliding_window_view(similarity, window - apart) @ sign
    return score / window**2


def boundary_candidates(score: FloatArray, count: int, radius: int) -> IndexArray:
    """Up to `count` peaks of score (T,), sorted in time. They are picked from the highest down, and none lies within
    `radius` of a higher one. Frame 0 is never a peak, since the first segment has at least one frame."""
    remaining = np.array(score, np.float64)
    remaining[:1] = -np.inf
    peaks: list[int] = []
    while len(peaks) < count and remaining.size:
        peak = int(remaining.argmax())
        if remaining[peak] == -np.inf:
            break
        peaks.append(peak)
        remaining[max(peak - radius, 0) : peak + radius + 1] = -np.inf
    return np.array(sorted(peaks), np.int64)


def transition_scores(
    p: FloatArray, transcript: Sequence[int], candidates: IndexArray, window: int = 31
) -> NDArray[np.float64]:
    """Score (M-1, n) of the transition from action m to action m+1 at each of n candidates.

    For a candidate b it is the mean, over the `window` rows around b (rows of zeros outside the video) and the two
    columns, of p(a_m) - p(a_m+1) before b and of p(a_m+1) - p(a_m) from b on.
    """
    half = _half(window)
    actions = np.asarray(transcript)
    total = np.pad(np.cumsum(p, axis=0, dtype=np.float64), ((1, 0), (0, 0)))
    first = np.maximum(candidates - half, 0)
    last = np.minimum(candidates + half + 1, len(p))
    change = 2 * total[candidates] - total[first] - total[last]  # (n, K): before less after
    score: NDArray[np.float64] = (change[:, actions[:-1]] - change[:, actions[1:]]).T / (2 * window)
    return score


def _increasing(gain: FloatArray) -> IndexArray:
    """(m,) one column for each row of gain (m, n), strictly increasing, with the greatest sum."""
    rows, columns = gain.shape
    best = np.full((rows, columns), -np.inf)
    best[0] = gain[0]
    for m in range(1, rows):
        best[m, 1:] = gain[m, 1:] + np.maximum.accumulate(best[m - 1])[:-1]
    chosen = np.empty(rows, np.int64)
    end = columns
    for m in range(rows - 1, -1, -1):
        end = chosen[m] = int(best[m, :end].argmax())
    return chosen


def _at_least(candidates: IndexArray, count: int, score: FloatArray) -> IndexArray:
    """The candidates; if there are fewer than `count`, also the frames with the next highest scores."""
    if candidates.size >= count:
        return candidates
    remaining = np.array(score, np.float64)
    remaining[0] = remaining[candidates] = -np.inf
    more = np.argsort(-remaining, kind="stable")[: count - candidates.size]
    return np.sort(np.concatenate([candidates, more]))


def _xlogx(p: FloatArray) -> NDArray[np.float64]:
    """Sum over the last axis of p ln p, with 0 ln 0 = 0."""
    return np.asarray(np.einsum("...k,...k", p, np.log(np.where(p > 0, p, 1.0))))


def _half(window: int) -> int:
    if window < 3 or window % 2 == 0:
        raise EdgeHalError(f"a window of {window} samples has no centre", todo="use 3, 5, 7, ...")
    return window // 2
