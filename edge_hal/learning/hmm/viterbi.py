"""Forced alignment: the best segmentation of a video into the actions of its transcript, by the Viterbi algorithm."""

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

LOWEST_LOG_P = -1e6
"""Log probabilities are limited to this, because a cumulative sum over -inf gives nan. No sum of log posteriors comes
near it."""


@dataclass(frozen=True)
class Segmentation:
    """`labels`: (T,) of all frames. `boundaries`: (M-1,) the first frame of each segment but the first."""

    labels: IndexArray
    boundaries: IndexArray


def viterbi_align(
    log_p: ArrayLike,
    transcript: Sequence[int],
    log_duration: ArrayLike | None = None,
    min_len: int = 1,
) -> Segmentation:
    """The segmentation in transcript order with the greatest sum of log_p (T, K), found exactly.

    Args:
        log_duration: (K, L) log probability that a segment of action k lasts 1 .. L frames, added for each segment.
            A longer segment is impossible. None leaves the durations free.
        min_len: the smallest number of frames of a segment.

    Raises:
        EdgeHalError: no segmentation exists: there are too few frames, or too many for `log_duration`.
    """
    log_p = np.asarray(log_p, np.float64)
    check_scores(log_p, transcript, min_len)
    actions = np.asarray(transcript)
    length, count = len(log_p), len(actions)
    durations = None if log_duration is None else np.asarray(log_duration, np.float64)[actions]
    total = np.zeros((length + 1, count))
    np.cumsum(np.maximum(log_p, LOWEST_LOG_P)[:, actions], axis=0, out=total[1:])

    # stop[t]: best score of the actions so far if they fill exactly the first t frames.
    stop = np.full(length + 1, -np.inf)
    stop[0] = 0.0
    starts = np.zeros((count, length + 1), np.int64)  # the first frame of the action that stops at t
    for m in range(count):
        begin = stop - total[:, m]
        if durations is None:
            best = np.full(length + 1, -np.inf)
            best[min_len:] = np.maximum.accumulate(begin)[: length + 1 - min_len]
            starts[m, min_len:] = _running_argmax(begin)[: length + 1 - min_len]
        else:
            table = durations[m, :length].copy()
            table[: min_len - 1] = -np.inf
            # Window t holds the first frames t - L .. t - 1, that is the durations L .. 1.
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
    return segmentation(transcript, boundaries[1:], length)


def segmentation(transcript: Sequence[int], boundaries: IndexArray, length: int) -> Segmentation:
    """The segmentation with these boundaries (M-1,), over `length` frames."""
    sizes = np.diff(boundaries, prepend=0, append=length)
    return Segmentation(np.repeat(np.asarray(transcript, np.int64), sizes), boundaries)


def _running_argmax(values: FloatArray) -> IndexArray:
    """Index of the first maximum of values[: t + 1], for each t."""
    running = np.maximum.accumulate(values)
    new = np.append(True, running[1:] > running[:-1])
    return np.maximum.accumulate(np.where(new, np.arange(values.size), 0))


def check_scores(scores: FloatArray, transcript: Sequence[int], min_len: int = 1) -> None:
    """Raises EdgeHalError if scores (T, K) cannot be aligned with the transcript."""
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
