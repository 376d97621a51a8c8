"""From frame posteriors and an ordered list of actions to a label for every frame.

Transition-aware boundary alignment (ATBA, CVPR 2024, section 3.2): class-agnostic boundary scores
propose candidates, the change between each pair of consecutive actions scores them, and dynamic
programming picks one boundary for every transition. Nothing here carries a gradient. Also an
exact Viterbi alignment, as a baseline and a starter.

The windows count samples of about 1.5 Hz video, so pool to such a rate before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from edge_hal.errors import EdgeHalError

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

# Cumulative sums over -inf would give nan; no sum of posteriors comes near this.
LOWEST_LOG_P = -1e6


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the boundary alignment, in samples of the posterior given to it.

    `radius_fraction` of a mean segment around a peak is barred from holding another (0.1 where
    the lengths of segments are very uneven).
    """

    boundary_window: int = 7
    transition_window: int = 31
    candidates_per_transition: int = 4
    radius_fraction: float = 0.3


@dataclass(frozen=True)
class Alignment:
    """`labels` (T,) of all frames; `boundaries` (M-1,): first frame of each later segment."""

    labels: IndexArray
    boundaries: IndexArray


def align(p: ArrayLike, transcript: Sequence[int], config: AlignmentConfig | None = None) -> Alignment:
    """Boundary alignment of frame posteriors p (T, K) with a transcript of M actions.

    Every action gets at least one frame. Raises EdgeHalError for T < M or an empty transcript.
    """
    config = config or AlignmentConfig()
    p = np.asarray(p, np.float64)
    _check(p, transcript)
    length, count = len(p), len(transcript)
    if count == 1:
        return _alignment(transcript, np.zeros(0, np.int64), length)
    score = boundary_score(p, config.boundary_window)
    candidates = boundary_candidates(
        score,
        config.candidates_per_transition * (count - 1),
        int(config.radius_fraction * length / count),
    )
    candidates = _at_least(candidates, count - 1, score)
    gain = transition_scores(p, transcript, candidates, config.transition_window)
    return _alignment(transcript, candidates[_increasing(gain + score[candidates])], length)


def boundary_score(p: FloatArray, window: int = 7) -> NDArray[np.float64]:
    """Class-agnostic score (T,) that an action ends before frame t, from posteriors p (T, K).

    Over the `window` rows around t (rows of zeros outside): mean of +S for pairs on one side of
    the boundary and -S for pairs across, S = 1 - 2 JS / ln 2 and 0 for the centre with itself.
    """
    half = _half(window)
    padded = np.pad(np.asarray(p, np.float64), ((half, half), (0, 0)))
    entropy = -_xlogx(padded)
    side = np.arange(window) < half
    score = np.full(len(p), float(window - 1))  # each row with itself, but for the centre
    for apart in range(1, window):
        a, b = padded[:-apart], padded[apart:]
        js = -_xlogx((a + b) / 2) - (entropy[:-apart] + entropy[apart:]) / 2
        similarity = 1 - 2 * js / np.log(2)
        sign = np.where(side[:-apart] == side[apart:], 2.0, -2.0)  # (i, j) and (j, i)
        score += sliding_window_view(similarity, window - apart) @ sign
    return score / window**2


def boundary_candidates(score: FloatArray, count: int, radius: int) -> IndexArray:
    """Up to `count` peaks of score (T,), highest first, none within `radius` of a higher one.

    Sorted in time. Frame 0 is never one: the first segment has at least one frame.
    """
    left = np.array(score, np.float64)
    left[:1] = -np.inf
    peaks: list[int] = []
    while len(peaks) < count and left.size:
        peak = int(left.argmax())
        if left[peak] == -np.inf:
            break
        peaks.append(peak)
        left[max(peak - radius, 0) : peak + radius + 1] = -np.inf
    return np.array(sorted(peaks), np.int64)


def transition_scores(
    p: FloatArray, transcript: Sequence[int], candidates: IndexArray, window: int = 31
) -> NDArray[np.float64]:
    """Score (M-1, n) of the transition from action m to m+1 being at each of n candidates.

    Mean over both columns of the `window` rows around the candidate b (rows of zeros outside) of
    p(a_m) - p(a_m+1) before b and the opposite from b on.
    """
    half = _half(window)
    actions = np.asarray(transcript)
    total = np.pad(np.cumsum(p, axis=0, dtype=np.float64), ((1, 0), (0, 0)))
    first = np.maximum(candidates - half, 0)
    last = np.minimum(candidates + half + 1, len(p))
    change = 2 * total[candidates] - total[first] - total[last]  # (n, K): before less after
    score: NDArray[np.float64] = (change[:, actions[:-1]] - change[:, actions[1:]]).T / (2 * window)
    return score


def viterbi_align(
    log_p: ArrayLike,
    transcript: Sequence[int],
    log_duration: ArrayLike | None = None,
    min_len: int = 1,
) -> Alignment:
    """The segmentation in transcript order with the greatest sum of log_p (T, K), exactly.

    Args:
        log_duration: (K, L) added per segment: log probability that action k lasts 1 .. L frames;
            longer is impossible. None leaves lengths free.
        min_len: frames each segment has at least.

    Raises:
        EdgeHalError: no segmentation is possible: too few frames, or too many for `log_duration`.
    """
    log_p = np.asarray(log_p, np.float64)
    _check(log_p, transcript, min_len)
    actions = np.asarray(transcript)
    length, count = len(log_p), len(actions)
    durations = None if log_duration is None else np.asarray(log_duration, np.float64)[actions]
    total = np.zeros((length + 1, count))
    np.cumsum(np.maximum(log_p, LOWEST_LOG_P)[:, actions], axis=0, out=total[1:])

    # stop[t]: best score of the actions so far filling exactly the first t frames.
    stop = np.full(length + 1, -np.inf)
    stop[0] = 0.0
    starts = np.zeros((count, length + 1), np.int64)  # where the action that stops at t began
    for m in range(count):
        begin = stop - total[:, m]
        if durations is None:
            best = np.full(length + 1, -np.inf)
            best[min_len:] = np.maximum.accumulate(begin)[: length + 1 - min_len]
            starts[m, min_len:] = _running_argmax(begin)[: length + 1 - min_len]
        else:
            table = durations[m, :length].copy()
            table[: min_len - 1] = -np.inf
            # Window t holds the beginnings t - L .. t - 1, that is durations L .. 1.
            padded = np.concatenate([np.full(table.size, -np.inf), begin[:-1]])
            candidates = np.full((length + 1, table.size), -np.inf)
            candidates[1:] = sliding_window_view(padded, table.size)[1:] + table[::-1]
            chosen = candidates.argmax(axis=1)
            best = candidates[np.arange(length + 1), chosen]
            starts[m] = np.arange(length + 1) - table.size + chosen
        stop = best + total[:, m]
    if not np.isfinite(stop[length]):
        raise EdgeHalError(
            f"cannot align {length} frames with {count} actions",
            "the durations allowed do not add up to the length of the video",
            "allow longer segments",
        )
    boundaries = np.empty(count, np.int64)
    end = length
    for m in range(count - 1, -1, -1):
        end = boundaries[m] = starts[m, end]
    return _alignment(transcript, boundaries[1:], length)


# --------------------------------------------------------------------------------------------


def _alignment(transcript: Sequence[int], boundaries: IndexArray, length: int) -> Alignment:
    sizes = np.diff(boundaries, prepend=0, append=length)
    return Alignment(np.repeat(np.asarray(transcript, np.int64), sizes), boundaries)


def _increasing(gain: FloatArray) -> IndexArray:
    """Columns (m,), strictly increasing, one for each row of gain (m, n), of the greatest sum."""
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
    """The candidates and, where they are fewer than `count`, the next best frames."""
    if candidates.size >= count:
        return candidates
    left = np.array(score, np.float64)
    left[0] = left[candidates] = -np.inf
    more = np.argsort(-left, kind="stable")[: count - candidates.size]
    return np.sort(np.concatenate([candidates, more]))


def _running_argmax(values: FloatArray) -> IndexArray:
    """Index of the first maximum of values[: t + 1], for each t."""
    running = np.maximum.accumulate(values)
    new = np.append(True, running[1:] > running[:-1])
    return np.maximum.accumulate(np.where(new, np.arange(values.size), 0))


def _xlogx(p: FloatArray) -> NDArray[np.float64]:
    """Sum over the last axis of p ln p, with 0 ln 0 = 0."""
    return np.asarray(np.einsum("...k,...k", p, np.log(np.where(p > 0, p, 1.0))))


def _half(window: int) -> int:
    if window < 3 or window % 2 == 0:
        raise EdgeHalError(f"a window of {window} samples has no centre", todo="use 3, 5, 7, ...")
    return window // 2


def _check(scores: FloatArray, transcript: Sequence[int], min_len: int = 1) -> None:
    count = len(transcript)
    if count == 0:
        raise EdgeHalError("cannot align a video", "its transcript is empty")
    if scores.ndim != 2 or not 0 <= min(transcript) <= max(transcript) < scores.shape[1]:
        raise EdgeHalError(
            "cannot align a video",
            f"its scores are {scores.shape} and its actions {min(transcript)}-{max(transcript)}",
        )
    if min_len < 1 or len(scores) < count * min_len:
        raise EdgeHalError(
            f"cannot align {len(scores)} samples with {count} actions of at least {min_len} each",
            "the video is shorter than its transcript at this rate",
            "sample it at a higher rate, or correct the transcript",
        )
    if np.isnan(scores).any():
        raise EdgeHalError("cannot align a video", "its scores are not numbers (nan)")
