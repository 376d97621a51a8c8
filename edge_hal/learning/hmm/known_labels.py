"""Known labels of some training videos: of all frames, of parts, or of single frames (time stamps).

They are held as *known segments*: (T,) the index in the video's transcript of the segment that each tick belongs to, -1
if it is not known. They are complete if every segment of the transcript is known at some tick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.labels.order import places_in_list
from edge_hal.learning.data.recordings import Labels, SampledRecording
from edge_hal.learning.data.step_texts import nearest
from edge_hal.learning.data.video_set import Video
from edge_hal.metrics import runs_of

from .viterbi import LOWEST_LOG_P, viterbi_align

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
        what = f"labelled video '{unknown[0]}' is not in the training part"
        raise EdgeHalError(what, nearest(unknown[0], sorted(names), "video"), exit_code=2)
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
    found = places_in_list(recording.labels, recording.transcript)
    if isinstance(found, int):
        raise EdgeHalError(
            f"the labels of video {recording.name} do not follow its step list",
            f"that of frame {recording.frames[found]} has no place in it",
            "correct whichever is wrong",
        )
    return found


def is_complete(known_segments: KnownSegments, transcript: Sequence[int]) -> bool:
    """Whether every segment is known at some tick."""
    return len(np.setdiff1d(np.arange(len(transcript)), known_segments)) == 0


def bin_segments(known_segments: KnownSegments, period: int) -> KnownSegments:
    """Known segments of bins of `period` ticks: (T,) -> (ceil(T / period),). A bin gets the segment of most of its
    known ticks. Every known segment keeps at least one bin, in order, so there must be as many bins as segments."""
    known = np.flatnonzero(known_segments >= 0)
    present, column = np.unique(known_segments[known], return_inverse=True)
    bins = -(-len(known_segments) // period)
    if not len(present):
        return np.full(bins, -1, np.int64)
    votes = np.zeros((bins, len(present)))
    np.add.at(votes, (known // period, column), 1.0)
    # A short segment may win no bin. The Viterbi path through the votes gives it one.
    path = viterbi_align(np.log(votes + 1e-3), range(len(present))).labels
    result = np.where(votes.any(axis=1), path, -1)
    for step in np.setdiff1d(np.arange(len(present)), result):
        result[np.flatnonzero(path == step)[0]] = step
    return np.where(result >= 0, present[result], -1)


def align_between(log_p: ArrayLike, transcript: Sequence[int], known_segments: KnownSegments) -> Labels:
    """Labels (T,) in the order of the transcript that agree with the known segments and have the greatest sum of log_p
    (T, K) of all that do. If none agrees, because ticks are missing for segments between two known ones, those that
    disagree at the fewest ticks."""
    steps = np.asarray(transcript, np.int64)
    score = np.maximum(np.asarray(log_p, np.float64)[:, steps], LOWEST_LOG_P / len(known_segments))
    known = np.flatnonzero(known_segments >= 0)
    excluded = known_segments[known, None] != np.arange(len(steps))
    score[known] = np.where(excluded, LOWEST_LOG_P, 0.0)
    return steps[viterbi_align(score, range(len(steps))).labels]


def with_known(labels: Labels, transcript: Sequence[int], known_segments: KnownSegments) -> Labels:
    """The labels (T,) of an alignment, whose boundaries are moved as little as it takes to agree with known segments.

    Raises:
        EdgeHalError: the labels are of another step list.
    """
    values, starts, _ = runs_of(labels)
    if tuple(values.tolist()) != tuple(transcript):
        raise EdgeHalError("an alignment has other steps than the step list of its video", "", "train without it")
    count, ticks = len(values), len(labels)
    lowest, highest = np.arange(count), ticks - np.arange(count, 0, -1)  # one tick for each segment
    for m in np.unique(known_segments[known_segments >= 0]):
        at = np.flatnonzero(known_segments == m)
        highest[: m + 1] = np.minimum(highest[: m + 1], at[0] - np.arange(m, -1, -1))
        lowest[m + 1 :] = np.maximum(lowest[m + 1 :], at[-1] + 1 + np.arange(count - m - 1))
    moved = np.minimum(np.maximum(starts, lowest), highest)
    for m in range(1, count):
        moved[m] = max(moved[m], moved[m - 1] + 1)
    for m in range(count - 2, -1, -1):
        moved[m] = min(moved[m], moved[m + 1] - 1)
    return np.repeat(values, np.diff(np.append(moved, ticks)))
