"""The pictures of a recording by stream time, for people who look at a run: those of the source where they were kept
(`--record-pictures source`), else those that the model saw, which are small.

The state of the run is not needed, so pieces of a ring that another version wrote are shown as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.files import check_readable
from edge_hal.files.untrusted import parse_json
from edge_hal.media.jpeg import jpeg

from .log_file import EntryParser, complete_lines, not_readable, parse_head
from .material import INDEX, PICTURES
from .material_reader import PictureIndex
from .reader import frame_rows
from .writer import EVENTS, FRAMES, LOG


@dataclass(frozen=True)
class ShownPicture:
    """`t_ns`: stream time. `read` gives the JPEG; it raises OSError and ValueError."""

    t_ns: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ShownPictures:
    """Of one folder. `session`: that of the run's events, None if the folder holds no event. `recording`: what all
    pieces of a ring have in common, None in a recording of an earlier version. `of_source`: they are the source's own.
    """

    session: str | None
    recording: str | None
    of_source: bool
    pictures: Sequence[ShownPicture]


class ShownReader:
    """The pictures of one folder, again and again while it is written: each time what was appended is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin_again()

    def _begin_again(self) -> None:
        self._head: dict[str, Any] | None = None
        self._session: str | None = None
        self._index: PictureIndex | None = None
        self._parser = EntryParser()
        self._end, self._last = 0, b""  # where the part of the log that was read ends, and its last line
        self._times: dict[int, int] = {}  # of the frames from the one that was shown last on
        self._pictures: Sequence[ShownPicture] = ()

    def read(self) -> ShownPictures:
        """All pictures until now, in order of time; none if the run had vectors.

        Raises:
            EdgeHalError: the folder is no recording, or it is damaged.
        """
        folder = self._folder
        check_readable(folder)
        try:
            if not self._goes_on():
                self._begin_again()
            if self._head is None:
                line, self._end = next(complete_lines(folder / LOG), ("", 0))
                self._head, self._last = parse_head(line), line.encode()
                if (folder / PICTURES).is_file():
                    self._index = PictureIndex(folder / PICTURES, folder / INDEX)
            if self._session is None:
                self._session = _session(folder / EVENTS)
            if self._index is not None:
                found = [ShownPicture(each.t_ns, each.read) for each in self._index.more()]
            else:
                found = self._small(tuple(self._head["shape"]))
            if found:
                both = [*self._pictures, *found]
                ordered = not self._pictures or self._pictures[-1].t_ns <= found[0].t_ns
                self._pictures = both if ordered else sorted(both, key=lambda each: each.t_ns)
            return ShownPictures(self._session, self._head.get("session"), self._index is not None, self._pictures)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._begin_again()
            raise not_readable(folder, error) from error

    def _goes_on(self) -> bool:
        """Whether the log still has what was read of it. Another recording may have taken its place."""
        if not self._last:
            return True
        descriptor = os.open(self._folder / LOG, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as log:
            log.seek(self._end - len(self._last))
            return log.read(len(self._last)) == self._last

    def _small(self, shape: tuple[int, ...]) -> list[ShownPicture]:
        """The pictures that the model saw, of the entries that were appended."""
        if len(shape) != 3:
            return []
        shown, times = list[tuple[int, int]](), self._times
        for line, end in complete_lines(self._folder / LOG, self._end):
            entry = self._parser.parse(line)
            self._end, self._last = end, line.encode()
            if "frame" in entry:
                times[entry["frame"]] = entry["t_ns"]
            elif "shown" in entry and entry["shown"] in times:
                shown.append((times[entry["shown"]], entry["at"]))
                for frame in [each for each in times if each < entry["shown"]]:
                    del times[frame]
        file = self._folder / FRAMES
        stored = len(frame_rows(file, shape))
        return [ShownPicture(t_ns, partial(_jpeg, file, shape, at)) for t_ns, at in sorted(shown) if at < stored]


def _jpeg(file: Path, shape: tuple[int, ...], at: int) -> bytes:
    rows = frame_rows(file, shape)
    if at >= len(rows):
        raise ValueError(f"{file} has {len(rows)} pictures, and not number {at}")
    return jpeg(np.array(rows[at]))


def _session(events: Path) -> str | None:
    """Of the first event."""
    line, _ = next(complete_lines(events), ("", 0))
    if not line:
        return None
    run = parse_json(line)["run"]
    return str(run["session"]) if isinstance(run, dict) and "session" in run else None
