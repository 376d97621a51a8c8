"""The files that `edge-hal correct` reads and writes in a task folder.

drafts/<video>.csv      corrections that nobody has accepted; they count for nothing
labels/                 what was accepted, as `train` reads it
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file
from edge_hal.learning.data.labels.csv_file import FILE, read_csv, write_csv
from edge_hal.learning.data.labels.folder import labels_in, read_label_folder
from edge_hal.learning.data.labels.one_video import add_stamp, remove_labels_of, remove_stamps, write_labels_of
from edge_hal.learning.data.labels.segments import (
    FoundLabels,
    Segment,
    SegmentedVideo,
    frame_labels_of,
    place_of,
    segments_of_labels,
)
from edge_hal.learning.data.media_files import VideoTimes, read_times
from edge_hal.learning.data.mstcn_files import list_folder
from edge_hal.learning.data.video_set import Video
from edge_hal.metrics import IntArray, runs_of

DRAFTS, LABELS = "drafts", "labels"
KEPT_TIMES = 16

Begins = Sequence[tuple[str, int]]
"""Segments as (step, first frame), in order from frame 0."""


class Stored:
    """Args:
    steps: the names of all steps, in the order of their numbers.
    format: of the labels of a video that has none yet, as for `edge-hal label`.
    """

    def __init__(self, root: Path, steps: Sequence[str], format: str) -> None:
        self._root, self._steps, self._format = root, steps, format
        self._ids = {name: number for number, name in enumerate(steps)}
        self._labels: tuple[object, dict[str, FoundLabels]] = (None, {})
        self._runs: dict[str, tuple[object, tuple[IntArray, IntArray, IntArray]]] = {}
        self._times: dict[str, VideoTimes] = {}
        self._lock = threading.Lock()

    def times(self, video: Video) -> VideoTimes:
        """Of a video file; for any thread. Raises EdgeHalError if it cannot be read."""
        with self._lock:
            if video.name not in self._times:
                while len(self._times) >= KEPT_TIMES:
                    del self._times[next(iter(self._times))]
                self._times[video.name] = read_times(video.path, video.rate_hz)
            return self._times[video.name]

    # --- labels -----------------------------------------------------------------------------------

    def accepted(self) -> Mapping[str, FoundLabels]:
        """What `labels/` holds. It is read again if one of its files has changed. Raises EdgeHalError as
        `read_label_folder`."""
        folder = self._root / LABELS
        files = list_folder(folder) if folder.is_dir() else []
        state = [(path.name, state_of(path)) for path in files]
        if state != self._labels[0]:
            self._labels = state, read_label_folder(folder) if files else {}
        return self._labels[1]

    def label_file(self, name: str) -> Path:
        """Where the labels of a video are, or would be."""
        known = self.accepted().get(name)
        return self._root / LABELS / f"{name}.csv" if known is None else known.path

    def labels_of(self, video: Video) -> tuple[IntArray | None, list[str]]:
        """The labels of a video as `train` reads them, (length,), -1 for a frame without one; and what is wrong."""
        known = self.accepted().get(video.name)
        if known is None:
            return None, []
        file = state_of(known.path)
        if file is None:  # it was deleted a moment ago
            return None, []
        key = known, file
        if video.name not in self._runs or self._runs[video.name][0] != key:
            labels, notes = self._read(video, known)
            if labels is None:
                return None, notes
            self._runs[video.name] = key, runs_of(labels)
        values, starts, stops = self._runs[video.name][1]
        return np.repeat(values, stops - starts), []

    def _read(self, video: Video, known: FoundLabels) -> tuple[IntArray | None, list[str]]:
        times = self.times(video) if video.kind == "video" else None
        try:
            labels = labels_in(known, video.name, self._ids, video.length, video.rate_hz, times)
        except EdgeHalError as error:
            return None, [told(error)]
        if times is not None and known.counts_file_frames:
            labels = times.at_rate(labels, video.transcript)
        if len(labels) < video.length:  # `train` cuts the video; here the last step goes on
            labels = np.append(labels, np.full(video.length - len(labels), labels[-1]))
        return labels[: video.length], []

    def write_labels(self, video: SegmentedVideo) -> None:
        """Raises EdgeHalError as `write_labels_of`."""
        write_labels_of(self._root / LABELS, video, self.accepted(), self._format)

    def stamp(self, video: Video, frame: int, step: str) -> None:
        """Say that a frame shows a step. Raises EdgeHalError as `add_stamp`."""
        assert video.rate_hz is not None
        folder, time_s = self._root / LABELS, frame / video.rate_hz
        add_stamp(folder, video.name, video.path, time_s, step, self.accepted())

    def remove_stamp(self, video: Video, frame: int) -> None:
        """Raises EdgeHalError if the frame has no stamp, and as `remove_stamps`."""
        where = (video.name, video.length, video.rate_hz)
        if not remove_stamps(video.name, lambda mark: place_of(frame, [mark], *where) is not None, self.accepted()):
            raise EdgeHalError(f"frame {frame} of video {video.name} has no time stamp")

    def remove_labels(self, name: str) -> None:
        """Raises EdgeHalError as `remove_labels_of`."""
        remove_labels_of(name, self.accepted())

    # --- drafts -----------------------------------------------------------------------------------

    def draft(self, video: Video) -> tuple[Begins | None, list[str]]:
        """The draft of a video, if there is one; and what is wrong with it."""
        path = self._draft(video.name)
        if not path.is_file():
            return None, []
        try:
            marks = read_csv(path).get(video.name, [])
            labels = frame_labels_of(marks, video.name, self._ids, video.length, video.rate_hz)
        except EdgeHalError as error:
            return None, [told(error)]
        if (labels < 0).any():
            return None, [f"{path} does not label all frames and is not shown."]
        return begins_of(labels, self._steps), []

    def write_draft(self, video: SegmentedVideo) -> None:
        """Raises EdgeHalError if it cannot be written."""
        path = self._draft(video.name)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise file_error(f"cannot write {path.parent}", error, path=path.parent) from error
        write_file(path, write_csv([video])[FILE])

    def put_aside(self, name: str) -> None:
        """Keep a draft that cannot be used under another name. Raises EdgeHalError if it cannot be renamed."""
        path = self._draft(name)
        try:
            path.rename(path.with_suffix(".csv.unusable"))
        except OSError as error:
            raise file_error(f"cannot rename {path}", error, path=path) from error

    def forget_draft(self, name: str) -> None:
        """Raises EdgeHalError if it cannot be deleted."""
        path = self._draft(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise file_error(f"cannot delete {path}", error, path=path) from error

    def _draft(self, name: str) -> Path:
        return self._root / DRAFTS / f"{name}.csv"

    # --- segments ---------------------------------------------------------------------------------

    def segmented(self, video: Video, begins: Begins, confidences: Sequence[float]) -> SegmentedVideo:
        """`confidences` (M - 1,): of the boundaries."""
        assert video.rate_hz is not None
        stops = [*(first for _, first in begins[1:]), video.length]
        segments = tuple(Segment(first, stop, step) for (step, first), stop in zip(begins, stops, strict=True))
        frames = self.times(video).file_frames if video.kind == "video" else None
        where = (video.name, video.path, video.kind, video.length, video.rate_hz)
        return SegmentedVideo(*where, segments, tuple(confidences), file_frames=frames)


def begins_of(labels: IntArray, steps: Sequence[str]) -> Begins:
    """The segments of labels (T,) of all frames."""
    return [(each.step, each.first) for each in segments_of_labels(labels, steps)]


def told(error: EdgeHalError) -> str:
    """The error as a sentence of a note."""
    return f"{error.what}: {error.why}." if error.why else f"{error.what}."


def state_of(file: Path) -> tuple[int, int, int] | None:
    """Changes with the file; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
