"""The pictures of recordings, by the session of the run and its stream time."""

from __future__ import annotations

import bisect
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.recording.reader import recordings
from edge_hal.runtime.recording.shown_pictures import ShownPicture, ShownPictures, ShownReader
from edge_hal.runtime.recording.writer import LOG

MOST = 2000
"""Pictures of one segment that are listed at most; of more, every second or third one is listed."""
FOLDERS = 2000
"""Pieces that are read at most, the newest ones."""

_Known = tuple[tuple[int, int], ShownReader, ShownPictures]
"""Of one folder: size and time of its log, and what it held then."""

log = logging.getLogger("edge_hal.view")


class Recorded:
    """For several threads. Pieces of a ring come and go while it is read.

    Args:
        folders: of `edge-hal run --record`: recordings, or rings of pieces.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._lock = threading.Lock()
        self._known: dict[Path, _Known] = {}

    def __bool__(self) -> bool:
        return bool(self._folders)

    def listed(self, session: str, begin_ns: int, end_ns: int) -> dict[str, Any]:
        """`times`: of the pictures from `begin_ns` to `end_ns`. `of_source`: all of them are the source's own."""
        found = [(each.t_ns, part.of_source) for part in self._of(session) for each in _within(part, begin_ns, end_ns)]
        found.sort()
        step = -(-len(found) // MOST) or 1
        return {"times": [t_ns for t_ns, _ in found[::step]], "of_source": all(own for _, own in found)}

    def picture(self, session: str, t_ns: int) -> bytes | None:
        """The JPEG of a listed picture; None if it is not there, or no more."""
        for part in self._of(session):
            for each in _within(part, t_ns, t_ns + 1):
                try:
                    return each.read()
                except (OSError, ValueError) as error:
                    log.warning("a recorded picture cannot be shown: %s", error)
        return None

    def _of(self, session: str) -> list[ShownPictures]:
        """The recordings of a run. A piece that holds no event belongs to the run of the others of its ring."""
        with self._lock:
            every = self._read()
        runs = {part.recording for part in every if part.session == session and part.recording is not None}
        return [part for part in every if part.session == session or (not part.session and part.recording in runs)]

    def _read(self) -> list[ShownPictures]:
        known: dict[Path, _Known] = {}
        for folder in [piece for each in self._folders for piece in recordings(each)][-FOLDERS:]:
            try:
                log_file = (folder / LOG).stat()  # one that is being written grows
                state = log_file.st_size, log_file.st_mtime_ns
                stored = self._known.get(folder)
                if stored is None or stored[0] != state:
                    reader = ShownReader(folder) if stored is None else stored[1]
                    stored = state, reader, reader.read()
                known[folder] = stored
            except (EdgeHalError, OSError) as error:
                log.warning("%s", error)  # or it was deleted meanwhile
        self._known = known
        return [shown for _, _, shown in known.values()]


def _within(part: ShownPictures, begin_ns: int, end_ns: int) -> Sequence[ShownPicture]:
    first = bisect.bisect_left(part.pictures, begin_ns, key=lambda each: each.t_ns)
    last = bisect.bisect_left(part.pictures, end_ns, key=lambda each: each.t_ns)
    return part.pictures[first:last]
