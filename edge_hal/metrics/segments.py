"""Frame labels as segments: the maximal runs of one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

IntArray: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Segment:
    """Frames `start <= t < stop` have `label`; the frames before and after do not."""

    label: int
    start: int
    stop: int


def runs_of(labels: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Labels, starts and stops (exclusive) of the maximal constant runs of `labels` (T,)."""
    labels = np.asarray(labels)
    changed = np.append(np.full(min(labels.size, 1), True), labels[1:] != labels[:-1])
    starts = np.flatnonzero(changed)
    return labels[starts], starts, np.append(starts[1:], labels.size)[: starts.size]


def segments_of(labels: IntArray) -> list[Segment]:
    """The maximal constant runs of `labels` (T,), in time order."""
    return [Segment(int(k), int(a), int(b)) for k, a, b in zip(*runs_of(labels), strict=True)]


def transcript_of(labels: IntArray) -> tuple[int, ...]:
    """Frame labels (T,) with repeats collapsed."""
    return tuple(int(label) for label in runs_of(labels)[0])


def uniform_split(transcript: Sequence[int], length: int) -> IntArray:
    """Labels (length,) that give every action of the transcript the same time: a lower bound for any method.

    If the video has fewer frames than the transcript has actions, some actions get no frame.
    """
    if len(transcript) == 0:
        raise EdgeHalError("cannot split a video uniformly", "its transcript is empty")
    return np.asarray(transcript)[np.arange(length) * len(transcript) // max(length, 1)]
