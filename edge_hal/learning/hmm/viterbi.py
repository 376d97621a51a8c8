"""Forced alignment: the best segmentation of a video into the actions of its transcript, by the Viterbi algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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


def viterbi_align(log_p: ArrayLike, transcript: Sequence[int]) -> Segmentation:
    """The segmentation in transcript order with the greatest sum of log_p (T, K), found exactly. A segment has at least
    one frame.

    Raises:
        EdgeHalError: there are fewer frames than segments.
    """
    log_p = np.asarray(log_p, np.float64)
    check_scores(log_p, transcript)
    actions = np.asarray(transcript)
    length, count = len(log_p), len(actions)
    total = np.zeros((length + 1, count))
    np.cumsum(np.maximum(log_p, LOWEST_LOG_P)[:, actions], axis=0, out=total[1:])

    # stop[t]: best score of the actions so far if they fill exactly the first t frames.
    stop = np.full(length + 1, -np.inf)
    stop[0] = 0.0
    starts = np.zeros((count, length + 1), np.int64)  # the first frame of the action that stops at t
    for m in range(count):
        begin = stop - total[:, m]
        best = np.full(length + 1, -np.inf)
        best[1:] = np.maximum.accumulate(begin)[:length]
        starts[m, 1:] = _running_argmax(begin)[:length]
        stop = best + total[:, m]
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


def check_scores(scores: FloatArray, transcript: Sequence[int]) -> None:
    """Raises EdgeHalError if scores (T, K) cannot be aligned with the transcript."""
    count = len(transcript)
    if count == 0:
        raise EdgeHalError("cannot align a video", "its transcript is empty")
    if scores.ndim != 2 or not 0 <= min(transcript) <= max(transcript) < scores.shape[1]:
        raise EdgeHalError(
            "cannot align a video",
            f"its scores are {scores.shape} and its actions {min(transcript)}-{max(transcript)}",
        )
    if len(scores) < count:
        raise EdgeHalError(
            f"cannot align {len(scores)} samples with {count} actions",
            "the video is shorter than its transcript at this rate",
            "sample it at a higher rate, or correct the transcript",
        )
    if np.isnan(scores).any():
        raise EdgeHalError("cannot align a video", "its scores are not numbers (nan)")
