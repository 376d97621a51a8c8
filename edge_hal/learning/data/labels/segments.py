"""Labels of parts of a video, as files of annotation tools hold them, and as labels of frames.

Frame k of a video is at k / rate_hz seconds and lasts until the next one. A time belongs to the nearest frame, so a
time that was rounded by less than half a frame gives the same frame again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.mstcn_files import Kind
from edge_hal.learning.data.step_texts import ADD_STEP, nearest
from edge_hal.media.names import printable
from edge_hal.metrics import IntArray, runs_of

LARGEST_TIME = 1e12
LATE_S = 1.0
LATE_SHARE = 0.02
"""Labels may end later than their video by this share of its length. Later labels belong to another video."""


@dataclass(frozen=True)
class Mark:
    """A step in a part of a video, as a file holds it.

    Attributes:
        begin, end: the end is exclusive; None for a time stamp, which labels one frame.
        unit: of both. Frames are numbered from 0.
        place: where it stands: a file and a line, or the like.
    """

    begin: float
    end: float | None
    unit: Literal["s", "frame"]
    step: str
    place: str


def time_of(value: Any) -> float:
    """A begin or an end as a file holds it, text or a number of any size.

    Raises:
        ValueError: it is no number, or none that a time or a frame can have.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) < LARGEST_TIME:  # NaN is in no range
        raise ValueError(f"a time cannot be {str(value)[:40]}")
    return number


@dataclass(frozen=True)
class FoundLabels:
    """What a folder holds for one video: `marks`, or a label for each frame if it is None. `path`: the file."""

    path: Path
    marks: tuple[Mark, ...] | None

    @property
    def counts_file_frames(self) -> bool:
        """The frames are those of the video file, also where its rate varies; in all other formats they, or seconds,
        are at its constant rate."""
        return self.path.suffix.lower() == ".txt"


@dataclass(frozen=True)
class Segment:
    """Frames first <= t < stop have `step`."""

    first: int
    stop: int
    step: str


@dataclass(frozen=True)
class SegmentedVideo:
    """A video that is cut into segments, which cover all its `length` frames in order.

    Attributes:
        confidences: (M - 1,) of the boundaries between the segments, 0..1.
        labelled: the run was trained with labels of this video, of all frames or of some.
        file_frames: for a file of a variable rate, the frame of the constant rate at which each of its frames is first
            seen.
    """

    name: str
    path: Path
    kind: Kind
    length: int
    rate_hz: float
    segments: tuple[Segment, ...]
    confidences: tuple[float, ...]
    labelled: bool = False
    file_frames: IntArray | None = None

    @property
    def with_confidences(self) -> list[tuple[Segment, float]]:
        """Each segment, with the lower confidence of its two boundaries. Begin and end of the video are certain."""
        both = [1.0, *self.confidences, 1.0]
        return [(each, min(both[m], both[m + 1])) for m, each in enumerate(self.segments)]


def frame_labels_of(
    marks: Sequence[Mark], video: str, ids: Mapping[str, int], length: int, rate_hz: float | None
) -> IntArray:
    """Labels (length,) of the frames, -1 for a frame that no mark covers.

    Raises:
        EdgeHalError: a step is not known, two marks overlap, one ends before it begins or lies outside of the video, or
            times are given and `rate_hz` is not known.
    """
    labels = np.full(length, -1, np.int64)
    owner = np.full(length, -1, np.int64)
    for number, mark in enumerate(marks):
        if mark.step not in ids:
            what = f"{mark.place}: unknown step '{printable(mark.step)}' of video {printable(video)}"
            raise EdgeHalError(what, nearest(mark.step, tuple(ids)), ADD_STEP)
        first, stop = _frames(mark, video, length, rate_hz)
        late = max(LATE_SHARE * length, LATE_S * (rate_hz or 0.0))
        if first < 0 or stop > length + late or first >= length:
            seconds = f", {length / rate_hz:.1f} s" if rate_hz else ""
            why = f"the video has {length} frames{seconds}, and it is of the frames {first} to {stop - 1}"
            todo = "correct it, or check whether the file is of another video"
            raise EdgeHalError(f"{mark.place}: '{mark.step}' lies outside of video {printable(video)}", why, todo)
        stop = min(stop, length)
        for at in np.flatnonzero(owner[first:stop] >= 0) + first:
            other = marks[int(owner[at])]
            if other.step == mark.step and None in (mark.end, other.end):
                continue  # a stamp in a segment of its step
            when = f"at frame {at}" + (f" ({at / rate_hz:.2f} s)" if rate_hz else "")
            why = f"{other.place}: '{other.step}' is there too, {when}"
            what = f"{mark.place}: '{mark.step}' overlaps another segment of video {printable(video)}"
            raise EdgeHalError(what, why, "let one of them end before the other begins")
        labels[first:stop], owner[first:stop] = ids[mark.step], number
    return labels


def place_of(frame: int, marks: Sequence[Mark], video: str, length: int, rate_hz: float | None) -> str | None:
    """Where the mark stands that labels a frame; None if there is none. `length`: of the video."""
    for mark in marks:
        first, stop = _frames(mark, video, length, rate_hz)
        if first <= frame < stop:
            return mark.place
    return None


def _frames(mark: Mark, video: str, length: int, rate_hz: float | None) -> tuple[int, int]:
    """The first frame of a mark, and the frame after its last. Each labels a frame: a segment that is too short for one
    that nearest to its middle, and one frame at the end of the video the last."""
    if mark.unit == "s" and rate_hz is None:
        what = f"{mark.place}: the frame rate of video {printable(video)} is not known"
        raise EdgeHalError(what, "times cannot be turned into frames", "give it: --set data.rate_hz=30")
    scale = rate_hz if mark.unit == "s" and rate_hz is not None else 1.0
    if mark.end is not None and mark.end < mark.begin:
        raise EdgeHalError(f"{mark.place}: '{mark.step}' of video {printable(video)} ends before it begins")
    first = math.floor(mark.begin * scale + 0.5)
    # Where both ends round to one frame, so does the middle.
    stop = first + 1 if mark.end is None else max(math.floor(mark.end * scale + 0.5), first + 1)
    return (length - 1, length) if (first, stop) == (length, length + 1) else (first, stop)


def segments_of_labels(labels: IntArray, names: Sequence[str]) -> tuple[Segment, ...]:
    """The segments of frame labels (T,)."""
    return tuple(Segment(int(a), int(b), names[step]) for step, a, b in zip(*runs_of(labels), strict=True))
