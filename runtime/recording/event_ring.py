"""Record what lies around events, in bounded space: the run is recorded in pieces, and pieces far from any event are
deleted.

Each piece is a recording in a folder of its own. It begins with the state of the run, so it can be replayed exactly.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Deviation, Event, Gap, Transition
from edge_hal.runtime.delivery.journal import Retention
from edge_hal.runtime.observer import Checkpoint, Observer
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.clock import Tick
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.stream.resumed import Resumed

from .writer import CUT, Recorder

LONGEST_PIECE_S = 60.0
LIMIT_BYTES = 2 * 10**9
"""Size of all pieces in the folder, if the user gave none."""
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}-\d{8}")

log = logging.getLogger("edge_hal.record")


def open_recording(folder: Path, options: RunOptions, bundle: Bundle, source: Source) -> Observer:
    """A recorder of all of the run, or with `record_around` of what lies around events. Raises EdgeHalError if the
    folder cannot be written."""
    if options.record_around is None:
        return Recorder(folder, options, bundle, source)
    return EventRing(folder, options.record_around, options, bundle, source)


@dataclass
class _Piece:
    """One recording: where it is, its stream time and its bytes. `keep`: an event is near."""

    folder: Path
    begin_ns: int
    keep: bool
    end_ns: int = 0
    size: int = 0


class EventRing(Observer):
    """Records in pieces of at most a minute. Pieces that begin or end within `around.age_s` of a transition, a
    deviation or a gap are kept, and those near the end of the run; the oldest are deleted once the folder holds
    `around.size_bytes`. The folder belongs to one stream, over any number of runs.

    Raises:
        EdgeHalError: the folder cannot be written.
    """

    def __init__(self, folder: Path, around: Retention, options: RunOptions, bundle: Bundle, source: Source) -> None:
        self._folder, self._options, self._source = folder, options, source
        self._around_ns = round(around.age_s * 1e9)
        self._length_ns = round(min(around.age_s, LONGEST_PIECE_S) * 1e9)
        self._limit = min(around.size_bytes, LIMIT_BYTES) if around.size_bytes >= 2**63 else around.size_bytes
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        self._counts = {"captured": 0, "superseded": 0, "taken": 0}
        self._number = 0
        self._event_ns: int | None = None
        self._undecided: deque[_Piece] = deque()  # an event may still come near
        self._kept = deque(_Piece(path, 0, True, 0, _size(path)) for path in pieces(folder))
        self._piece = self._new_piece(0)
        self._recorder: Observer = Recorder(self._piece.folder, options, bundle, source)

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
            begin_ns, self._event_ns = event.boundary.t_ns, event.decision.t_ns
        elif isinstance(event, Gap):
            begin_ns, self._event_ns = event.begin.t_ns, event.end.t_ns
        else:
            return
        self._piece.keep = True
        for piece in self._undecided:
            piece.keep = piece.keep or piece.end_ns + self._around_ns >= begin_ns

    def resumed(self, found: Resumed) -> None:
        self._recorder.resumed(found)

    def idle(self, t_ns: int, checkpoint: Callable[[], Checkpoint]) -> None:
        if t_ns - self._piece.begin_ns >= self._length_ns:
            self._begin_piece(checkpoint())

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        self._begin_piece(checkpoint)

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        self._recorder.ended(reason, t_ns, intake)

    def close(self) -> None:
        self._recorder.close()

    def _begin_piece(self, checkpoint: Checkpoint) -> None:
        t_ns, before = checkpoint.t_ns, self._recorder
        before.ended(CUT, t_ns, checkpoint.intake)
        before.close()
        self._piece.end_ns, self._piece.size = t_ns, _size(self._piece.folder)
        self._undecided.append(self._piece)
        self._delete_pieces(t_ns)
        self._piece = self._new_piece(t_ns)
        state = {**checkpoint.state, "source": {**self._counts, "now_ns": t_ns}}
        try:
            self._recorder = Recorder(self._piece.folder, self._options, checkpoint.bundle, self._source, state)
        except EdgeHalError as error:  # no room on the disk: record nothing until the next piece
            self._recorder = Observer()
            if isinstance(before, Recorder) and before.whole:
                log.warning("%s: %s; it is tried again", error.what, error.why)

    def _new_piece(self, t_ns: int) -> _Piece:
        folder = self._folder / f"{self._run}-{self._number:08d}"
        self._number += 1
        near = self._event_ns is not None and t_ns <= self._event_ns + self._around_ns
        return _Piece(folder, t_ns, near)

    def _delete_pieces(self, t_ns: int) -> None:
        """Delete pieces that no event came near to, and the oldest while there are too many bytes."""
        while self._undecided and self._undecided[0].end_ns + self._around_ns < t_ns:
            piece = self._undecided.popleft()
            if piece.keep:
                self._kept.append(piece)
            else:
                shutil.rmtree(piece.folder, ignore_errors=True)
        held = sum(piece.size for piece in (*self._kept, *self._undecided))
        while held > self._limit and (oldest := self._kept or self._undecided):
            piece = oldest.popleft()
            held -= piece.size
            shutil.rmtree(piece.folder, ignore_errors=True)


def pieces(folder: Path) -> list[Path]:
    """The folders of all pieces in `folder`, oldest first."""
    return sorted(
        path for path in folder.glob("*") if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):  # another process may delete it
        return sum(path.stat().st_size for path in folder.glob("*"))
    return 0
