"""The training videos of a task with their segments: what the newest run found, what was corrected, what was accepted.

Each change names the revision of the video that it is made to. It is refused if the video has changed since, so two
pages do not overwrite each other, nor what somebody writes into the folder by other means.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.labels.folder import check_list
from edge_hal.learning.data.labels.segments import FoundLabels, SegmentedVideo
from edge_hal.learning.data.media_files import VideoTimes
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.learning.hmm.known_labels import worth_labelling
from edge_hal.learning.hmm.trust import Trust
from edge_hal.metrics import IntArray, runs_of

from .found import Found
from .shown import Shown, StaleRevision, check_begins, check_frame
from .stored import Begins, Stored, begins_of, state_of, told


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
        self.root, self.found = root, found
        self._stored = Stored(root, videos.labels, format)
        self.steps = videos.labels
        self._ids = {name: number for number, name in enumerate(videos.labels)}
        self._videos = {video.name: video for video in videos.videos}
        self._suggested = {
            video.name: begins_of(video.labels, self.steps)
            for video in videos.videos
            if video.name in suggested and video.labels is not None and (video.labels >= 0).all()
        }
        self._files = {name: state_of(video.path) for name, video in self._videos.items()}
        self._lock = threading.RLock()
        self._stored.accepted()

    def __contains__(self, name: object) -> bool:
        return name in self._videos

    def names(self) -> list[str]:
        return list(self._videos)

    def video(self, name: str) -> Video:
        return self._videos[name]

    def times(self, name: str) -> VideoTimes:
        """Of a video file. Raises EdgeHalError if it cannot be read."""
        return self._stored.times(self._videos[name])

    def check_file(self, name: str) -> None:
        """Raises EdgeHalError if the file of a video was changed or removed since the start: what is shown of it may be
        wrong."""
        path = self._videos[name].path
        if state_of(path) != self._files[name]:
            what = f"{path} was changed or removed since edge-hal correct was started"
            raise EdgeHalError(what, "its frames may be others", "start edge-hal correct again")

    def usual_order(self) -> list[str]:
        """The steps in the order of their mean place in the step lists, so that neighbours differ in their colours."""
        places: dict[int, list[float]] = {step: [] for step in range(len(self.steps))}
        for video in self._videos.values():
            for place, step in enumerate(video.transcript):
                places[step].append(place / len(video.transcript))
        return [self.steps[step] for step in sorted(places, key=lambda step: float(np.mean(places[step] or [2.0])))]

    def advice(self) -> str:
        """What more labels would bring, and which videos help most, by the measure of `train`; empty if all are
        accepted."""
        left = [video for name, video in self._videos.items() if self.shown(name).state != "accepted"]
        if not left:
            return ""
        worth, named = self.found.worth, {video.name for video in left}
        names = [name for name in worth.videos if name in named] if worth is not None else []
        first = " and ".join((names or worth_labelling(left, 2))[:2])
        if len(left) == len(self._videos) and self.found.evidence and Trust.of(self.found.evidence).doubtful:
            return f"CAUTION: most of what training found may be wrong. Correct and accept whole videos first: {first}."
        if worth is not None and names:
            return f"{worth} Accept these first: {first}."
        return f"Accepted videos help most if they show many steps: {first}."

    # --- what is shown ----------------------------------------------------------------------------

    def shown(self, name: str) -> Shown:
        """Raises EdgeHalError if the files of the task cannot be read."""
        with self._lock:
            video = self._videos[name]
            labels, notes = self._stored.labels_of(video)
            whole = None if labels is None or (labels < 0).any() else begins_of(labels, self.steps)
            draft, why = self._stored.draft(video)
            state, begins = "draft", draft
            if whole is not None and draft in (None, whole):
                state, begins = "accepted", whole
            elif draft is None:
                state, begins = self._unchanged(video)
            assert begins is not None
            page = FoundLabels(self._stored.label_file(name), ())
            notes += why + self._contradiction(video, self._frames_of(video, begins), page)
            parts: tuple[tuple[int, int, str], ...] = ()
            if labels is not None and whole is None:
                notes += self._contradiction(video, labels, self._stored.accepted().get(name, page))
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

    def _contradiction(self, video: Video, labels: IntArray, written: FoundLabels) -> list[str]:
        """What `train` would say of these labels. It refuses labels of some frames that contradict the step list."""
        try:
            note = check_list(written, video.name, labels, video.transcript, self.steps, video.rate_hz)
        except EdgeHalError as error:
            note = told(error)
        return [note] if note else []

    def _unchanged(self, video: Video) -> tuple[str, Begins]:
        """What is shown of a video without labels and corrections. Where no run knows it, its list in equal parts."""
        known = self.found.begins(video.name, video.length)
        if known:
            return "found", known
        if video.name in self._suggested:
            return "suggested", self._suggested[video.name]
        steps = [step for m, step in enumerate(video.transcript) if m == 0 or video.transcript[m - 1] != step]
        listed = steps if len(steps) <= video.length else steps[:1]
        return "guess", [(self.steps[step], m * video.length // len(listed)) for m, step in enumerate(listed)]

    # --- what is changed --------------------------------------------------------------------------

    def save(self, name: str, revision: str, begins: Begins) -> Shown:
        """Keep the segments as a draft.

        Raises:
            StaleRevision: the video has changed since `revision`.
            ValueError: these are no segments of the video.
            EdgeHalError: the draft cannot be written; or as `check_file`.
        """
        with self._lock:
            self._check(name, revision)
            video = self._videos[name]
            check_begins(begins, self._ids, video.length)
            self._keep_unusable(video)
            if list(begins) == list(self._without_draft(video)):
                self._stored.forget_draft(name)
            else:
                self._stored.write_draft(self._segmented(video, begins))
            return self.shown(name)

    def accept(self, name: str, revision: str) -> Shown:
        """Make what is shown the labels of the video. Raises as `save`."""
        with self._lock:
            shown = self._check(name, revision)
            if shown.state != "accepted":
                begins = [(step, first) for step, first, _ in shown.segments]
                sure = [1.0] * (len(begins) - 1)
                self._stored.write_labels(self._stored.segmented(self._videos[name], begins, sure))
            self._keep_unusable(self._videos[name])
            self._stored.forget_draft(name)
            return self.shown(name)

    def withdraw(self, name: str, revision: str) -> Shown:
        """Make the labels of the video a draft again. Raises as `save`."""
        with self._lock:
            shown = self._check(name, revision)
            if shown.state == "accepted":
                begins = [(step, first) for step, first, _ in shown.segments]
                self._stored.write_draft(self._segmented(self._videos[name], begins))
                try:
                    self._stored.remove_labels(name)
                except EdgeHalError:  # they stay the labels, and no draft may hide what they become later
                    self._stored.forget_draft(name)
                    raise
            return self.shown(name)

    def discard(self, name: str, revision: str) -> Shown:
        """Forget the draft: what was accepted or found is shown again. Raises as `save`."""
        with self._lock:
            self._check(name, revision)
            self._stored.forget_draft(name)
            return self.shown(name)

    def stamp(self, name: str, revision: str, frame: int, step: str) -> Shown:
        """Label one frame. It counts at once, and needs no acceptance.

        Raises:
            StaleRevision: the video has changed since `revision`.
            ValueError: the video has no such frame, or the task no such step.
            EdgeHalError: all frames have labels, or the label contradicts others or the step list; or it cannot be
                written.
        """
        with self._lock:
            shown = self._check(name, revision)
            video = self._videos[name]
            check_frame(frame, video)
            if step not in self._ids:
                raise ValueError(f"there is no step {step[:80]!r}")
            labels = self._stampable(shown)
            if labels[frame] == self._ids[step]:
                return shown
            if labels[frame] >= 0:
                why = f"it is labelled '{self.steps[labels[frame]]}'"
                raise EdgeHalError(f"frame {frame} of video {name} cannot be stamped '{step}'", why)
            labels[frame] = self._ids[step]
            written = FoundLabels(self._stored.label_file(name), ())
            check_list(written, name, labels, video.transcript, self.steps, video.rate_hz)
            self._stored.stamp(video, frame, step)
            return self.shown(name)

    def remove_stamp(self, name: str, revision: str, frame: int) -> Shown:
        """Raises as `stamp`, and EdgeHalError if the frame has no stamp."""
        with self._lock:
            shown = self._check(name, revision)
            check_frame(frame, self._videos[name])
            self._stampable(shown)
            self._stored.remove_stamp(self._videos[name], frame)
            return self.shown(name)

    def _stampable(self, shown: Shown) -> IntArray:
        """The labels of a video of which some frames have none, (length,), -1 for those."""
        what = f"video {shown.name} takes no time stamps"
        if shown.state == "suggested":
            raise EdgeHalError(what, "training leaves it out until it is accepted", "accept it")
        video = self._videos[shown.name]
        labels, notes = self._stored.labels_of(video)
        if notes:
            raise EdgeHalError(what, " ".join(notes))
        if labels is None:
            return np.full(video.length, -1, np.int64)
        if (labels >= 0).all():
            raise EdgeHalError(what, "all of its frames have labels")
        return np.array(labels, np.int64)

    def _keep_unusable(self, video: Video) -> None:
        """A draft that is not shown, and is about to be replaced, may hold hours of work."""
        draft, why = self._stored.draft(video)
        if draft is None and why:
            self._stored.put_aside(video.name)

    def _check(self, name: str, revision: str) -> Shown:
        shown = self.shown(name)
        if shown.revision != revision:
            raise StaleRevision(name)
        self.check_file(name)
        return shown

    def _without_draft(self, video: Video) -> Begins:
        labels, _ = self._stored.labels_of(video)
        whole = labels is not None and (labels >= 0).all()
        return begins_of(labels, self.steps) if labels is not None and whole else self._unchanged(video)[1]

    # --- helpers ------------------------------------------------------------------------------------

    def _frames_of(self, video: Video, begins: Begins) -> IntArray:
        lengths = np.diff([*(first for _, first in begins), video.length])
        return np.repeat([self._ids[step] for step, _ in begins], lengths)

    def _segmented(self, video: Video, begins: Begins) -> SegmentedVideo:
        known = [each for _, _, each in self._with_confidences(video.name, "draft", begins)[1:]]
        return self._stored.segmented(video, begins, [0.0 if each is None else each for each in known])
