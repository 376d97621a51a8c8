"""Record what lies around events, in bounded space: the run is recorded in pieces, and pieces far from any event are
deleted.

Each piece is a recording in a folder of its own. It begins with the state of the run, so it can be replayed exactly.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Deviation, Event, Gap, Transition
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.observer import Checkpoint, Observer
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.clock import Tick
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.stream.resumed import Resumed

from .material import DOUBTFUL, UNCERTAIN, DoubtWatch, MaterialWriter
from .writer import CUT, Recorder, new_session

LONGEST_PIECE_S = 60.0
LIMIT_BYTES = 2 * 10**9
"""Size of all pieces in the folder, if the user gave none."""
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}-\d{8}")
FIRST_NUMBER = 10_000_000
"""Pieces are numbered from here on, over all runs of a folder. Earlier versions counted those of each run from 0."""

log = logging.getLogger("edge_hal.record")


def open_recording(folder: Path, options: RunOptions, recognizer: Recognizer, source: Source) -> Observer:
    """A recorder of all of the run, or with `record_around` of what lies around events. Raises EdgeHalError if the
    folder cannot be written."""
    material = None
    if options.record_pictures == "source":
        material = MaterialWriter(recognizer, wait=source.waits_for_loop)
    try:
        if options.record_around is None:
            return Recorder(folder, options, recognizer.bundle, source, material=material)
        return EventRing(folder, options.record_around, options, recognizer, source, material)
    except EdgeHalError:
        if material is not None:
            material.close()
        raise


@dataclass
class _Piece:
    """One recording: where it is, its stream time and its bytes. `keep`: an event is near. `doubtful`: a doubt is."""

    folder: Path
    begin_ns: int
    keep: bool
    end_ns: int = 0
    size: int = 0
    doubtful: bool = False

    def mark(self, doubtful: bool) -> None:
        """An event is near. A doubt leaves a mark that later runs find."""
        self.keep = True
        if doubtful and not self.doubtful:
            self.doubtful = True
            with contextlib.suppress(OSError):
                (self.folder / DOUBTFUL).touch(0o600)


class EventRing(Observer):
    """Records in pieces of at most a minute. Pieces that begin or end within `around.age_s` of a transition, a
    deviation or a gap are kept, and those near the end of the run; the oldest are deleted once the folder holds
    `around.size_bytes`. The folder belongs to one stream, over any number of runs.

    Args:
        material: writes the source's pictures. Then pieces near a long uncertain belief are kept too, and pieces that
            no deviation, gap or uncertain decision is near to are deleted before all others.

    Raises:
        EdgeHalError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        around: Retention,
        options: RunOptions,
        recognizer: Recognizer,
        source: Source,
        material: MaterialWriter | None = None,
    ) -> None:
        self._folder, self._options, self._source, self._material = folder, options, source, material
        self._doubt = DoubtWatch()
        self._around_ns = round(around.age_s * 1e9)
        self._length_ns = round(min(around.age_s, LONGEST_PIECE_S) * 1e9)
        self._limit = min(around.size_bytes, LIMIT_BYTES) if around.size_bytes >= 2**63 else around.size_bytes
        self._run = new_session()
        self._counts = {"captured": 0, "superseded": 0, "taken": 0}
        self._event_ns: int | None = None
        self._doubt_ns: int | None = None
        self._undecided: deque[_Piece] = deque()  # an event may still come near
        found = pieces(folder)
        self._number = max(FIRST_NUMBER, _number(found[-1].name) + 1 if found else 0)
        self._kept = deque(
            _Piece(path, 0, True, 0, _size(path), material is not None and (path / DOUBTFUL).exists()) for path in found
        )
        self._delete_pieces(0)  # runs that end before their first piece is full must not fill the disk
        self._piece = self._new_piece(0)
        self._recorder: Observer = Recorder(
            self._piece.folder, options, recognizer.bundle, source, material=material, session=self._run
        )

    def frame_taken(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        counts = self._counts
        counts["captured"] = frame.index + 1
        counts["superseded"] += missed
        counts["taken"] += 1
        self._recorder.frame_taken(frame, missed, period_ns)

    def time_passed(self, t_ns: int) -> None:
        self._recorder.time_passed(t_ns)

    def frame_shown(self, tick: Tick) -> None:
        self._recorder.frame_shown(tick)

    def published(self, event: Event) -> None:
        self._recorder.published(event)
        if isinstance(event, (Transition, Deviation)):
            uncertain = isinstance(event, Deviation) or event.confidence < UNCERTAIN
            self._keep(event.boundary.t_ns, event.decision.t_ns, uncertain)
        elif isinstance(event, Gap):
            self._keep(event.begin.t_ns, event.end.t_ns, True)

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        if self._material is not None:
            since_ns = self._doubt.follow(t_ns, self._material.believed(t_ns))
            if since_ns is not None:
                self._keep(since_ns, t_ns, True)

    def health(self) -> dict[str, Any]:
        return {} if self._material is None else {"recording": self._material.health()}

    def resumed(self, found: Resumed) -> None:
        self._recorder.resumed(found)

    def idle(self, t_ns: int, checkpoint: Callable[[], Checkpoint]) -> None:
        if t_ns - self._piece.begin_ns >= self._length_ns:
            self._begin_piece(checkpoint())

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        if self._material is not None:
            self._material.recognizer = successor
        self._begin_piece(checkpoint)

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        self._recorder.ended(reason, t_ns, intake)

    def close(self) -> None:
        self._recorder.close()
        if self._material is not None:
            self._material.close()

    def _keep(self, begin_ns: int, end_ns: int, doubtful: bool) -> None:
        """Keep what is near to something that lasted from `begin_ns` to `end_ns`, which is now or just before."""
        doubtful = doubtful and self._material is not None
        self._event_ns = end_ns
        self._doubt_ns = end_ns if doubtful else self._doubt_ns
        self._piece.mark(doubtful)
        for piece in self._undecided:
            if piece.end_ns + self._around_ns >= begin_ns:
                piece.mark(doubtful)

    def _begin_piece(self, checkpoint: Checkpoint) -> None:
        t_ns, before = checkpoint.t_ns, self._recorder
        before.ended(CUT, t_ns, checkpoint.intake)
        if isinstance(before, Recorder):
            before.finish()
        self._piece.end_ns, self._piece.size = t_ns, _size(self._piece.folder)
        self._undecided.append(self._piece)
        self._delete_pieces(t_ns)
        self._piece = self._new_piece(t_ns)
        state = {**checkpoint.state, "source": {**self._counts, "now_ns": t_ns}}
        try:
            self._recorder = Recorder(
                self._piece.folder, self._options, checkpoint.bundle, self._source, state, self._material, self._run
            )
            if self._near(self._doubt_ns, t_ns):
                self._piece.mark(True)
        except EdgeHalError as error:  # no room on the disk: record nothing until the next piece
            self._recorder = Observer()
            if isinstance(before, Recorder) and before.whole:
                log.warning("%s: %s; it is tried again", error.what, error.why)

    def _new_piece(self, t_ns: int) -> _Piece:
        folder = self._folder / f"{self._run}-{self._number:08d}"
        self._number += 1
        return _Piece(folder, t_ns, self._near(self._event_ns, t_ns))

    def _near(self, event_ns: int | None, t_ns: int) -> bool:
        return event_ns is not None and t_ns <= event_ns + self._around_ns

    def _delete_pieces(self, t_ns: int) -> None:
        """Delete pieces that no event came near to, and the oldest while there are too many bytes: those without a
        doubt first."""
        while self._undecided and self._undecided[0].end_ns + self._around_ns < t_ns:
            piece = self._undecided.popleft()
            if piece.keep:
                self._kept.append(piece)
            else:
                shutil.rmtree(piece.folder, ignore_errors=True)
        held = sum(piece.size for piece in (*self._kept, *self._undecided))
        for piece in (*sorted(self._kept, key=lambda piece: piece.doubtful), *self._undecided):
            if held <= self._limit:
                break
            (self._kept if piece in self._kept else self._undecided).remove(piece)
            held -= piece.size
            shutil.rmtree(piece.folder, ignore_errors=True)


def pieces(folder: Path) -> list[Path]:
    """The folders of all pieces in `folder`, oldest first. The clock in their names may have been behind in a later
    run, so their numbers say which is older."""
    found = (path for path in folder.glob("*") if NAME.fullmatch(path.name))
    found = (path for path in found if path.is_dir() and not path.is_symlink())
    return sorted(found, key=lambda path: (max(FIRST_NUMBER - 1, _number(path.name)), path.name))


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):  # another process may delete it
        return sum(path.stat().st_size for path in folder.glob("*"))
    return 0
