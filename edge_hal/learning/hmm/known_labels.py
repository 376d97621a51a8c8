"""What is known of some training videos: which frame belongs to which step, from frame labels or one stamp a step.

A pin is the index of a step in its video's transcript, per tick, -1 where nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import Video
from edge_hal.learning.data.recordings import Labels, Recording
from edge_hal.learning.networks.boundary_alignment import viterbi_align

Pins = NDArray[np.int64]


def choose_labelled(names: Sequence[str], wanted: int | Collection[str], seed: int) -> frozenset[str]:
    """The videos that carry labels: the named ones, or so many drawn by `seed` (the first of the same draw for any
    number, so that 3 include the 1).

    Raises:
        EdgeHalError: a name is not among `names`, or more are wanted than there are.
    """
    if isinstance(wanted, int):
        if not 0 <= wanted <= len(names):
            raise EdgeHalError(f"{wanted} labelled videos asked for", f"there are {len(names)}", exit_code=2)
        order = np.random.default_rng(seed).permutation(len(names))
        return frozenset(sorted(names)[i] for i in order[:wanted])
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise EdgeHalError(f"labelled video '{unknown[0]}' is not in the training part", exit_code=2)
    return frozenset(wanted)


def worth_labelling(videos: Sequence[Video], count: int) -> list[str]:
    """Names of the videos whose labels would tell most, best first: each holds the most steps that no video before it
    does, and is the longest of those. A step's model is made of its labelled frames; which frames the restarts
    disagree about turned out to say less (docs/results.md)."""

    def worth(video: Video) -> tuple[int, float]:
        return len(set(video.transcript) - held), video.length / (video.rate_hz or 1.0)

    left, held, names = list(videos), set[int](), list[str]()
    while left and len(names) < count:
        best = max(left, key=worth)
        left.remove(best)
        held |= set(best.transcript)
        names.append(best.name)
    return names


def pins_of(recording: Recording) -> Pins | None:
    """Pins (T,) from the labels of a recording; None where it has none.

    Raises:
        EdgeHalError: what is known does not follow the step list.
    """
    if recording.labels is None:
        return None
    known = np.flatnonzero(recording.labels >= 0)
    told = recording.labels[known]
    segment = np.cumsum(np.append(0, np.diff(told) != 0)) if known.size else np.zeros(0, np.int64)
    collapsed = tuple(int(told[segment == m][0]) for m in range(int(segment.max(initial=-1)) + 1))
    if collapsed != tuple(recording.transcript):
        raise EdgeHalError(
            f"the labels of video {recording.name} do not follow its step list",
            f"{len(collapsed)} steps are labelled and {len(recording.transcript)} listed",
            "label at least one frame of every step, and correct whichever is wrong",
        )
    pins = np.full(len(recording.labels), -1, np.int64)
    pins[known] = segment
    return pins


def binned(pins: Pins, period: int) -> Pins:
    """Pins of bins of `period` ticks (ceil(T / period),): the step most of a bin is known to be in, every step
    somewhere, in order. There must be as many bins as steps."""
    count = int(pins.max()) + 1
    bins = -(-len(pins) // period)
    votes = np.zeros((bins, count))
    known = np.flatnonzero(pins >= 0)
    np.add.at(votes, (known // period, pins[known]), 1.0)
    # A short step may have no bin of its own: the best path through the votes gives it one.
    path = viterbi_align(np.log(votes + 1e-3), range(count)).labels
    result = np.where(votes.any(axis=1), path, -1)
    for step in np.setdiff1d(np.arange(count), result):
        result[np.flatnonzero(path == step)[0]] = step
    return np.asarray(result, np.int64)


def between(log_p: ArrayLike, transcript: Sequence[int], pins: Pins) -> Labels:
    """Labels (T,) that keep every pin: between two pinned steps the boundary with the greatest sum of log_p (T, K)."""
    log_p = np.asarray(log_p, np.float64)
    labels = np.full(len(log_p), transcript[0], np.int64)
    known = np.flatnonzero(pins >= 0)
    for m in range(1, len(transcript)):
        last, first = known[pins[known] == m - 1][-1], known[pins[known] == m][0]
        # Boundaries last + 1 .. first: what is before takes the old step, the rest the new one.
        gain = log_p[last + 1 : first, transcript[m]] - log_p[last + 1 : first, transcript[m - 1]]
        score = np.append(np.cumsum(gain[::-1])[::-1], 0.0)
        labels[last + 1 + int(score.argmax()) :] = transcript[m]
    return labels
