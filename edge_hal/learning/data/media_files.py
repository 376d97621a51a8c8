"""Feature and video files: their shapes, lengths and rates. Every error names the fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable
from edge_hal.files.feature_file import open_features
from edge_hal.media.names import printable
from edge_hal.media.stamps import Missing, newest
from edge_hal.media.video_file import Aspect, VideoFile
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.rate import instant_ns

from .labels.order import check_order, labels_at_ticks
from .mstcn_files import Layout
from .step_texts import count_of

ACCEPTED_SHARE = 0.1
"""A training video may lack this share of its frames. Fewer missing frames are
reported when the video is decoded."""


def lacking_frames(videos: Sequence[str]) -> EdgeHalError:
    """The error for the named videos, which lack more than `ACCEPTED_SHARE`."""
    return EdgeHalError(
        f"{count_of([printable(name) for name in videos], 'video')} with more than {ACCEPTED_SHARE:.0%} of the frames "
        "missing",
        "steps could lie in what is missing, and the step lists would not fit",
        "repair or leave out the videos, or use them as they are: --accept-damaged",
    )


def open_array(path: Path) -> NDArray[Any]:
    """The array of the feature file of a video, memory-mapped."""
    check_readable(path)
    return open_features(path, "extract the features of this video again, or leave it out")


def find_layout(root: Path, files: dict[str, Path], names: Sequence[str], lengths: dict[str, int]) -> Layout:
    """The order of the axes: D is the axis of equal size in all files of the data set, not only those of `names`."""
    shapes = {name: open_array(files[name]).shape for name in names}
    for name in files.keys() - shapes.keys():
        try:
            shapes[name] = open_array(files[name]).shape
        except EdgeHalError:  # damaged, but not a video of this part
            continue
    same = [len({shape[axis] for shape in shapes.values()}) == 1 for axis in (0, 1)]
    if same == [True, False]:
        return "DT"
    if same == [False, True]:
        return "TD"
    if same == [True, True]:
        known = [name for name in names if name in lengths]
        gaps = [sum(abs(shapes[name][axis] - lengths[name]) for name in known) for axis in (0, 1)]
        if gaps[0] != gaps[1]:
            return "TD" if gaps[0] < gaps[1] else "DT"
        raise EdgeHalError(
            f"cannot tell time from features under {root}",
            f"all arrays are {next(iter(shapes.values()))}",
            "give the order of their axes, DT (features, time) or TD: --set data.layout=DT",
        )
    common = [Counter(shape[i] for shape in shapes.values()).most_common(1)[0] for i in (0, 1)]
    axis = 0 if common[0][1] >= common[1][1] else 1
    width = common[axis][0]
    odd = [f"{n} {s}" for n, s in sorted(shapes.items()) if s[axis] != width]
    raise EdgeHalError(
        f"the feature arrays under {root} have no axis of one size",
        f"most have {width} features, but not {count_of(odd, 'video')}"
        if common[axis][1] > 1
        else f"for example {count_of(odd, 'video')}",
        "extract all with the same settings",
    )


def feature_length(files: dict[str, Path], names: Sequence[str], name: str, layout: Layout | None) -> int:
    """Number of frames of a feature file. Raises EdgeHalError if D is not that of the first video."""
    axes = (0, 1) if layout == "DT" else (1, 0)  # (features, time)
    shape, first = (open_array(files[x]).shape for x in (name, names[0]))
    if shape[axes[0]] != first[axes[0]]:
        raise EdgeHalError(
            f"video {name} has {shape[axes[0]]} features, video {names[0]} {first[axes[0]]}",
            f"their arrays are {shape} and {first}, read as {layout}",
            "extract all with the same settings",
        )
    return int(shape[axes[1]])


@dataclass(frozen=True)
class VideoTimes:
    """When the frames of a video file are, from its stamps and without decoding any.

    Everything after this counts frames at a constant rate, like a recording of `length` frames at `rate_hz` in which
    frame k is the newest one of the file at k / rate_hz. For a file of a constant rate these are its own frames, and
    frames that the file lacks keep their numbers.

    Attributes:
        times_ns: (frames,) sorted, since the first frame.
        missing: frames that stamps or duration announce and that are not in the file.
        constant_rate: whether the frames are a period apart, but for gaps.
        notes: what the user should know.
        aspect: of the pictures; None if it is not known.
    """

    rate: Fraction
    times_ns: NDArray[np.int64]
    missing: Missing
    constant_rate: bool
    notes: list[str]
    aspect: Aspect | None = None

    @property
    def rate_hz(self) -> float:
        return float(self.rate)

    @property
    def length(self) -> int:
        return round(int(self.times_ns[-1]) * self.rate / 10**9) + 1

    @property
    def numbered(self) -> int:
        """How many frames a user who numbers them counts: those at the rate, or those of a variable rate."""
        return self.length if self.constant_rate else len(self.times_ns)

    @property
    def file_frames(self) -> IntArray | None:
        """(frames of the file,) the frame of the constant rate at which each is first seen; None if its own rate is
        constant."""
        if self.constant_rate:
            return None
        return np.searchsorted(self._instants_ns, self.times_ns).astype(np.int64)

    @cached_property
    def _instants_ns(self) -> NDArray[np.int64]:
        """(length,) of the frames of the constant rate."""
        return np.array([instant_ns(k, self.rate) for k in range(self.length)], np.int64)

    def counts(self) -> tuple[int, ...]:
        """Numbers of frame labels that would fit: all frames at the rate, those of the file, those announced."""
        return self.length, len(self.times_ns), self.missing.announced

    def at_rate(self, labels: IntArray, transcript: Sequence[int]) -> IntArray:
        """Labels of the file's frames -> labels (length,) at the constant rate; -1 marks a frame without a label.

        Label k belongs to the k-th frame in the file if the number of labels says so, else to the frame at k / rate. If
        both numbers fit, the frames of the file decide where the rate varies. If only some frames are labelled, a label
        goes to the frame that shows it or the next one, or so much further that steps of the list find place between.

        Args:
            transcript: the step list of the video.
        """
        of_file, of_rate = abs(len(self.times_ns) - len(labels)), abs(self.length - len(labels))
        if of_rate < of_file or (of_rate == of_file and self.constant_rate):
            return labels[: self.length]
        shown = newest(self.times_ns, self._instants_ns)
        if (labels >= 0).all():
            return labels[np.minimum(shown, len(labels) - 1)]
        if check_order(labels, transcript) is not None:  # they contradict it, and shall do so at the rate
            transcript = transcript_of(labels[labels >= 0])
        return labels_at_ticks(labels, shown, transcript, furthest=None)


def read_times(path: Path, unstamped_hz: float | None) -> VideoTimes:
    """The times of a video file; `unstamped_hz`: frames per second of one without stamps. Raises EdgeHalError if it
    cannot be opened or holds no frame."""
    with VideoFile(path, unstamped_hz=unstamped_hz) as video:
        times_ns = video.times_ns()
        if not len(times_ns):
            raise EdgeHalError(f"{video.name} holds no frame", "it was cut off", "copy it again, or leave it out")
        notes, missing = [f"{video.name}: {note}" for note in video.notes], video.missing()
        if missing.share > ACCEPTED_SHARE:
            notes.append(f"{video.name}: {missing}; is it damaged, or did the recording pause?")
        return VideoTimes(video.rate, times_ns, missing, video.constant_rate, notes, video.aspect())
