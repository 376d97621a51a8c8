"""A recording of what lies around events, in bounded space: pieces, of which those far from any event are deleted.

Each piece is a recording of its own, in a folder of its own: it begins with all that the events to come depend on, so
it replays exactly, wherever the run was.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Gap, Transition
from edge_hal.runtime.delivery.journal import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.clock import Tick

from .state_file import State
from .writer import CUT, Recorder, Tape

LONGEST_PIECE_S = 60.0
LIMIT_BYTES = 2 * 10**9
"""Of all pieces in the folder, where nobody said."""
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}-\d{8}")

log = logging.getLogger("edge_hal.record")


def open_recording(options: RunOptions, bundle: Bundle, source: Source) -> Tape | None:
    """What the options ask for. Raises EdgeHalError where it cannot be written."""
    if options.record is None:
        return None
    if options.record_around is None:
        return Recorder(options.record, options, bundle, source)
    return RecordRing(options.record, options.record_around, options, bundle, source)


@dataclass
class _Piece:
    """`keep`: an event is near."""

    folder: Path
    begin_ns: int
    keep: bool
    end_ns: int = 0
    size: int = 0


class RecordRing:
    """Pieces of at most a minute. Those that end or begin within `around.age_s` of a transition or a gap stay, the
    oldest of them until the folder holds `around.size_bytes`; those near the end of the run stay too. The folder is one
    stream's, from run to run.

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
        self._waiting: deque[_Piece] = deque()  # it is not known yet whether an event is near
        self._kept = deque(_Piece(path, 0, True, 0, _size(path)) for path in pieces(folder))
        self._piece = self._next(0)
        self._recorder: Recorder | None = Recorder(self._piece.folder, options, bundle, source)

    def took(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        counts = self._counts
        counts["captured"] = frame.index + 1
        counts["superseded"] += missed
        counts["taken"] += 1
        if self._recorder is not None:
            self._recorder.took(frame, missed, period_ns)

    def passed(self, t_ns: int) -> None:
        if self._recorder is not None:
            self._recorder.passed(t_ns)

    def shows(self, tick: Tick) -> None:
        if self._recorder is not None:
            self._recorder.shows(tick)

    def told(self, event: Event) -> None:
        if self._recorder is not None:
            self._recorder.told(event)
        if isinstance(event, Transition):
            begin_ns, self._event_ns = event.boundary.t_ns, event.decision.t_ns
        elif isinstance(event, Gap):
            begin_ns, self._event_ns = event.begin.t_ns, event.end.t_ns
        else:
            return
        self._piece.keep = True
        for piece in self._waiting:
            piece.keep = piece.keep or piece.end_ns + self._around_ns >= begin_ns

    def full(self, t_ns: int) -> bool:
        return t_ns - self._piece.begin_ns >= self._length_ns

    def go_on(self, t_ns: int, intake: Intake, bundle: Bundle, state: State) -> None:
        self.ended(CUT, t_ns, intake)
        self.close()
        self._piece.end_ns, self._piece.size = t_ns, _size(self._piece.folder)
        self._waiting.append(self._piece)
        self._clear(t_ns)
        self._piece, before = self._next(t_ns), self._recorder
        state = {**state, "source": {**self._counts, "now_ns": t_ns}}
        try:
            self._recorder = Recorder(self._piece.folder, self._options, bundle, self._source, state)
        except EdgeHalError as error:  # the run goes on, and so will the recording once there is room
            self._recorder = None
            if before is not None and before.whole:
                log.warning("%s: %s; it is tried again", error.what, error.why)

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        if self._recorder is not None:
            self._recorder.ended(reason, t_ns, intake)

    def close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()

    def _next(self, t_ns: int) -> _Piece:
        folder = self._folder / f"{self._run}-{self._number:08d}"
        self._number += 1
        near = self._event_ns is not None and t_ns <= self._event_ns + self._around_ns
        return _Piece(folder, t_ns, near)

    def _clear(self, t_ns: int) -> None:
        """Let go of what no event came near to, and of the oldest where there is too much."""
        while self._waiting and self._waiting[0].end_ns + self._around_ns < t_ns:
            piece = self._waiting.popleft()
            if piece.keep:
                self._kept.append(piece)
            else:
                shutil.rmtree(piece.folder, ignore_errors=True)
        held = sum(piece.size for piece in (*self._kept, *self._waiting))
        while held > self._limit and (oldest := self._kept or self._waiting):
            piece = oldest.popleft()
            held -= piece.size
            shutil.rmtree(piece.folder, ignore_errors=True)


def pieces(folder: Path) -> list[Path]:
    """The pieces in the folder of a ring, oldest first."""
    return sorted(path for path in folder.glob("*") if NAME.fullmatch(path.name) and path.is_dir())


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):  # somebody deletes it meanwhile
        return sum(path.stat().st_size for path in folder.glob("*"))
    return 0
