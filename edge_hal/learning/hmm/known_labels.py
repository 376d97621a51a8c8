"""Known labels of some training videos, from frame labels or from one labelled frame per step (a timestamp).

They are held as *known segments*: (T,) the index in the video's transcript of the segment that each tick belongs to, -1
if it is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import Video
from edge_hal.learning.data.recordings import Labels, SampledRecording

from .viterbi import viterbi_align

KnownSegments = NDArray[np.int64]


def choose_labelled(names: Sequence[str], wanted: int | Collection[str], seed: int) -> frozenset[str]:
    """The videos whose labels are used: those that are named, or a number of videos drawn with `seed`. A smaller draw
    is contained in a larger one with the same seed.

    Raises:
        EdgeHalError: a name is not among `names`, or there are too few videos.
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
    """Names of up to `count` videos to label, the most useful first.

    Each one contains the most steps that no earlier one contains, and is the longest of those. The reason: the model of
    a step is estimated from its labelled frames. Choosing by the disagreement of restarts was worse (docs/results.md).
    """

    def worth(video: Video) -> tuple[int, float]:
        return len(set(video.transcript) - covered), video.length / (video.rate_hz or 1.0)

    remaining, covered, names = list(videos), set[int](), list[str]()
    while remaining and len(names) < count:
        best = max(remaining, key=worth)
        remaining.remove(best)
        covered |= set(best.transcript)
        names.append(best.name)
    return names


def known_segments_of(recording: SampledRecording) -> KnownSegments | None:
    """The known segments (T,) of a recording; None if it has no labels.

    Raises:
        EdgeHalError: the labels do not follow the step list.
    """
    if recording.labels is None:
        return None
    known = np.flatnonzero(recording.labels >= 0)
    labels = recording.labels[known]
    segment = np.cumsum(np.append(0, np.diff(labels) != 0)) if known.size else np.zeros(0, np.int64)
    collapsed = tuple(int(labels[segment == m][0]) for m in range(int(segment.max(initial=-1)) + 1))
    if collapsed != tuple(recording.transcript):
        raise EdgeHalError(
            f"the labels of video {recording.name} do not follow its step list",
            f"{len(collapsed)} steps are labelled and {len(recording.transcript)} listed",
            "label at least one frame of every step, and correct whichever is wrong",
        )
    segments = np.full(len(recording.labels), -1, np.int64)
    segments[known] = segment
    return segments


def bin_segments(known_segments: KnownSegments, period: int) -> KnownSegments:
    """Known segments of bins of `period` ticks: (T,) -> (ceil(T / period),). A bin gets the segment of most of its
    known ticks. Every segment keeps at least one bin, in order, so there must be as many bins as segments."""
    count = int(known_segments.max()) + 1
    bins = -(-len(known_segments) // period)
    votes = np.zeros((bins, count))
    known = np.flatnonzero(known_segments >= 0)
    np.add.at(votes, (known // period, known_segments[known]), 1.0)
    # A short segment may win no bin. The Viterbi path through the votes gives it one.
    path = viterbi_align(np.log(votes + 1e-3), range(count)).labels
    result = np.where(votes.any(axis=1), path, -1)
    for step in np.setdiff1d(np.arange(count), result):
        result[np.flatnonzero(path == step)[0]] = step
    return np.asarray(result, np.int64)


def align_between(log_p: ArrayLike, transcript: Sequence[int], known_segments: KnownSegments) -> Labels:
    """Labels (T,) that agree with the known segments. The boundary between the last known tick of a segment and the
    first of the next maximises the sum of log_p (T, K)."""
    log_p = np.asarray(log_p, np.float64)
    labels = np.full(len(log_p), transcript[0], np.int64)
    known = np.flatnonzero(known_segments >= 0)
    for m in range(1, len(transcript)):
        last, first = known[known_segments[known] == m - 1][-1], known[known_segments[known] == m][0]
        # The boundary lies in last + 1 .. first: ticks before it have the old step, the rest the new one.
        gain = log_p[last + 1 : first, transcript[m]] - log_p[last + 1 : first, transcript[m - 1]]
        score = np.append(np.cumsum(gain[::-1])[::-1], 0.0)
        labels[last + 1 + int(score.argmax()) :] = transcript[m]
    return labels
