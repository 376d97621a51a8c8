"""The training videos of a task with their segments: what the newest run found, what was corrected, what was accepted.

    drafts/<video>.csv      corrections that nobody has accepted; they count for nothing
    labels/                 what was accepted, as `train` reads it

Each change names the revision of the video that it is made to. It is refused if the video has changed since, so two
pages do not overwrite each other, nor what somebody writes into the folder by other means.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file
from edge_hal.learning.data.dataset import Video, VideoSet
from edge_hal.learning.data.labels.csv_file import FILE, read_csv, write_csv
from edge_hal.learning.data.labels.folder import check_list, labels_in, read_label_folder
from edge_hal.learning.data.labels.one_video import remove_labels_of, write_labels_of
from edge_hal.learning.data.labels.segments import (
    FoundLabels,
    Segment,
    SegmentedVideo,
    frame_labels_of,
    segments_of_labels,
)
from edge_hal.learning.data.media_files import VideoTimes, read_times
from edge_hal.learning.data.mstcn_files import list_folder
from edge_hal.learning.hmm.known_labels import worth_labelling
from edge_hal.learning.hmm.trust import Trust
from edge_hal.metrics import IntArray, runs_of

from .found import Found

DRAFTS, LABELS = "drafts", "labels"
MOST_SEGMENTS = 20_000
KEPT_TIMES = 16

Begins = Sequence[tuple[str, int]]
"""Segments as (step, first frame), in order from frame 0."""


class StaleRevision(Exception):
    """Somebody else has changed the video since."""


@dataclass(frozen=True)
class Shown:
    """A video as a page shows it.

    Attributes:
        state: "found" by a run, "draft" (corrected, not accepted), "accepted", "suggested" (by `edge-hal harvest`), or
            "guess" (no run knows the video).
        segments: (step, first frame, confidence of the boundary there or None if it is not known).
        parts: (first, stop, step) of labels of some frames.
        note: what the user should know: a contradiction with the step list, a file that cannot be used.
    """

    name: str
    state: str
    segments: tuple[tuple[str, int, float | None], ...]
    parts: tuple[tuple[int, int, str], ...]
    note: str
    revision: str


class TaskVideos:
    """For several threads.

    Args:
        videos: those that are trained on, and those of `suggested`, with the suggestions as labels.
        format: of the labels of a video that has none yet, as for `edge-hal label`.

    Raises:
        EdgeHalError: files of `labels/` cannot be read.
    """

    def __init__(
        self, root: Path, videos: VideoSet, found: Found, format: str, suggested: Collection[str] = ()
    ) -> None:
        self.root, self.found, self._format = root, found, format
        self.steps = videos.labels
        self._ids = {name: number for number, name in enumerate(videos.labels)}
        self._videos = {video.name: video for video in videos.videos}
        self._suggested = {
            video.name: _begins_of(video.labels, self.steps)
            for video in videos.videos
            if video.name in suggested and video.labels is not None and (video.labels >= 0).all()
        }
        self._lock = threading.RLock()
        self._labels: tuple[object, dict[str, FoundLabels]] = (None, {})
        self._times: dict[str, VideoTimes] = {}
        self._accepted()

    def __contains__(self, name: object) -> bool:
        return name in self._videos

    def names(self) -> list[str]:
        return list(self._videos)

    def video(self, name: str) -> Video:
        return self._videos[name]

    def usual_order(self) -> list[str]:
        """The steps in the order of their mean place in the step lists, so that neighbours differ in their colours."""
        places: dict[int, list[float]] = {step: [] for step in range(len(self.steps))}
        for video in self._videos.values():
            for place, step in enumerate(video.transcript):
                places[step].append(place / len(video.transcript))
        return [self.steps[step] for step in sorted(places, key=lambda step: float(np.mean(places[step] or [2.0])))]

    def advice(self) -> str:
        """Which videos help most if they are accepted, by the measure of `train`; empty if all are."""
        left = [video for name, video in self._videos.items() if self.shown(name).state != "accepted"]
        names = " and ".join(worth_labelling(left, 2))
        if not left:
            return ""
        if len(left) == len(self._videos) and self.found.evidence and Trust.of(self.found.evidence).doubtful:
            return f"CAUTION: most of what training found may be wrong. Correct and accept whole videos first: {names}."
        return f"Accepted videos help most if they show many steps: {names}."

    def times(self, name: str) -> VideoTimes:
        """Of a video file. Raises EdgeHalError if it cannot be read."""
        with self._lock:
            if name not in self._times:
                video = self._videos[name]
                while len(self._times) >= KEPT_TIMES:
                    del self._times[next(iter(self._times))]
                self._times[name] = read_times(video.path, video.rate_hz)
            return self._times[name]

    # --- what is shown ----------------------------------------------------------------------------

    def shown(self, name: str) -> Shown:
        """Raises EdgeHalError if the files of the task cannot be read."""
        with self._lock:
            video, accepted = self._videos[name], self._accepted().get(name)
            labels, notes = self._labels_of(video, accepted)
            whole = labels is not None and bool((labels >= 0).all())
            draft, why = self._draft(video)
            notes += why
            state, begins = "draft", draft
            if labels is not None and whole and (draft is None or draft == _begins_of(labels, self.steps)):
                state, begins = "accepted", _begins_of(labels, self.steps)
            elif draft is None:
                state, begins = self._unchanged(video)
            assert begins is not None
            notes += self._contradiction(video, begins, accepted)
            parts: tuple[tuple[int, int, str], ...] = ()
            if labels is not None and not whole:
                values, starts, stops = runs_of(labels)
                rows = zip(values.tolist(), starts.tolist(), stops.tolist(), strict=True)
                parts = tuple((a, b, self.steps[value]) for value, a, b in rows if value >= 0)
            segments = tuple(self._with_confidences(name, state, begins))
            content = json.dumps([state, list(begins), parts])
            revision = hashlib.sha256(content.encode()).hexdigest()[:16]
            return Shown(name, state, segments, parts, " ".join(notes), revision)

    def _with_confidences(self, name: str, state: str, begins: Begins) -> list[tuple[str, int, float | None]]:
        rows: list[tuple[str, int, float | None]] = []
        before = None
        for step, first in begins:
            sure: float | None = 1.0
            if before is not None and state != "accepted":
                sure = self.found.confidence(name, first, before, step) if state in ("found", "draft") else None
            rows.append((step, first, sure))
            before = step
        return rows

    def _contradiction(self, video: Video, begins: Begins, accepted: FoundLabels | None) -> list[str]:
        """What `train` would say of these labels."""
        path = self.root / LABELS / f"{video.name}.csv" if accepted is None else accepted.path
        labels = self._frames_of(video, begins)
        listed = FoundLabels(path, ())
        note = check_list(listed, video.name, labels, video.transcript, self.steps, video.rate_hz)
        return [note] if note else []

    def _labels_of(self, video: Video, accepted: FoundLabels | None) -> tuple[IntArray | None, list[str]]:
        """The labels of `labels/` as `train` reads them, (length,), -1 for a frame without one."""
        if accepted is None:
            return None, []
        times = self.times(video.name) if video.kind == "video" else None
        try:
            labels = labels_in(accepted, video.name, self._ids, video.length, video.rate_hz, times)
        except EdgeHalError as error:
            return None, [_told(error)]
        labels = labels if times is None else times.at_rate(labels)
        if len(labels) < video.length:  # `train` cuts the video; here the last step goes on
            labels = np.append(labels, np.full(video.length - len(labels), labels[-1]))
        return labels[: video.length], []

    def _draft(self, video: Video) -> tuple[Begins | None, list[str]]:
        path = self._draft_path(video.name)
        if not path.is_file():
            return None, []
        try:
            marks = read_csv(path).get(video.name, [])
            labels = frame_labels_of(marks, video.name, self._ids, video.length, video.rate_hz)
        except EdgeHalError as error:
            return None, [_told(error)]
        if (labels < 0).any():
            return None, [f"{path} does not label all frames and is not shown."]
        return _begins_of(labels, self.steps), []

    def _unchanged(self, video: Video) -> tuple[str, Begins]:
        """What is shown of a video without labels and corrections. Where no run knows it, its list in equal parts."""
        known = self.found.begins(video.name, video.length)
        if known:
            return "found", known
        if video.name in self._suggested:
            return "suggested", self._suggested[video.name]
        listed = [video.transcript[0]] if video.length < len(video.transcript) else video.transcript
        return "guess", [(self.steps[step], m * video.length // len(listed)) for m, step in enumerate(listed)]

    # --- what is changed --------------------------------------------------------------------------

    def save(self, name: str, revision: str, begins: Begins) -> Shown:
        """Keep the segments as a draft.

        Raises:
            StaleRevision: the video has changed since `revision`.
            ValueError: these are no segments of the video.
            EdgeHalError: the draft cannot be written.
        """
        with self._lock:
            self._check(name, revision)
            video = self._videos[name]
            check_begins(begins, self._ids, video.length)
            if not self._is_plain(name, begins):
                path = self._draft_path(name)
                try:
                    path.parent.mkdir(exist_ok=True)
                except OSError as error:
                    raise file_error(f"cannot write {path.parent}", error, path=path.parent) from error
                write_file(path, write_csv([self._segmented(video, begins)])[FILE])
            else:
                self._forget_draft(name)
            return self.shown(name)

    def accept(self, name: str, revision: str) -> Shown:
        """Make what is shown the labels of the video. Raises as `save`."""
        with self._lock:
            shown = self._check(name, revision)
            if shown.state != "accepted":
                begins = [(step, first) for step, first, _ in shown.segments]
                video = self._segmented(self._videos[name], begins)
                sure = replace(video, confidences=(1.0,) * len(video.confidences))
                write_labels_of(self.root / LABELS, sure, self._accepted(), self._format)
            self._forget_draft(name)
            return self.shown(name)

    def withdraw(self, name: str, revision: str) -> Shown:
        """Make the labels of the video a draft again. Raises as `save`."""
        with self._lock:
            shown = self._check(name, revision)
            if shown.state == "accepted":
                begins = [(step, first) for step, first, _ in shown.segments]
                path = self._draft_path(name)
                path.parent.mkdir(exist_ok=True)
                write_file(path, write_csv([self._segmented(self._videos[name], begins)])[FILE])
                remove_labels_of(name, self._accepted())
            return self.shown(name)

    def discard(self, name: str, revision: str) -> Shown:
        """Forget the draft: what was accepted or found is shown again. Raises as `save`."""
        with self._lock:
            self._check(name, revision)
            self._forget_draft(name)
            return self.shown(name)

    def _check(self, name: str, revision: str) -> Shown:
        shown = self.shown(name)
        if shown.revision != revision:
            raise StaleRevision(name)
        return shown

    def _is_plain(self, name: str, begins: Begins) -> bool:
        """Whether these are the segments that are shown without a draft."""
        video = self._videos[name]
        labels, _ = self._labels_of(video, self._accepted().get(name))
        if labels is not None and (labels >= 0).all():
            return list(begins) == list(_begins_of(labels, self.steps))
        return list(begins) == list(self._unchanged(video)[1])

    def _forget_draft(self, name: str) -> None:
        path = self._draft_path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise file_error(f"cannot delete {path}", error, path=path) from error

    # --- helpers ------------------------------------------------------------------------------------

    def _draft_path(self, name: str) -> Path:
        return self.root / DRAFTS / f"{name}.csv"

    def _accepted(self) -> Mapping[str, FoundLabels]:
        """What `labels/` holds. It is read again if one of its files has changed."""
        folder = self.root / LABELS
        files = list_folder(folder) if folder.is_dir() else []
        state = [(path.name, found.st_mtime_ns, found.st_size, found.st_ino) for path in files for found in _stat(path)]
        if state != self._labels[0]:
            self._labels = state, read_label_folder(folder) if files else {}
        return self._labels[1]

    def _frames_of(self, video: Video, begins: Begins) -> IntArray:
        lengths = np.diff([*(first for _, first in begins), video.length])
        return np.repeat([self._ids[step] for step, _ in begins], lengths)

    def _segmented(self, video: Video, begins: Begins) -> SegmentedVideo:
        assert video.rate_hz is not None
        stops = [*(first for _, first in begins[1:]), video.length]
        segments = tuple(Segment(first, stop, step) for (step, first), stop in zip(begins, stops, strict=True))
        known = [each for _, _, each in self._with_confidences(video.name, "draft", begins)[1:]]
        sure = tuple(0.0 if each is None else each for each in known)
        frames = self.times(video.name).file_frames if video.kind == "video" else None
        where = (video.name, video.path, video.kind, video.length, video.rate_hz)
        return SegmentedVideo(*where, segments, sure, file_frames=frames)


def check_begins(begins: Begins, steps: Mapping[str, int], length: int) -> None:
    """Raises ValueError unless they are segments of a video of `length` frames."""
    if not 0 < len(begins) <= MOST_SEGMENTS:
        raise ValueError(f"there are {len(begins)} segments")
    before, last = -1, ""
    for step, first in begins:
        if step not in steps:
            raise ValueError(f"there is no step {step[:80]!r}")
        if not before < first < length or (before < 0 and first != 0):
            raise ValueError(f"a segment begins at frame {first}, after one at {before} of {length} frames")
        if step == last:
            raise ValueError(f"two segments of {step[:80]!r} follow each other")
        before, last = first, step


def _begins_of(labels: IntArray, steps: Sequence[str]) -> Begins:
    return [(each.step, each.first) for each in segments_of_labels(labels, steps)]


def _told(error: EdgeHalError) -> str:
    return f"{error.what}: {error.why}." if error.why else f"{error.what}."


def _stat(path: Path) -> list[Any]:
    try:
        return [path.stat()]
    except OSError:
        return []
