"""Read what `material.py` wrote, and the events of the same recording.

A recording may come from anybody: only regular files in its folder are read, and what they hold is checked. The state
of the run is not needed, so pieces of a ring that another version wrote are read as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, decode
from edge_hal.files import check_readable
from edge_hal.files.untrusted import MB, parse_json
from edge_hal.runtime.stream.clock import LONGEST_NS

from .log_file import complete_lines, not_readable, parse_head
from .material import BELIEF, INDEX, PICTURES
from .writer import EVENTS, LOG, WITH_PICTURES

LARGEST_PICTURE = 64 * MB
WIDEST = 1 << 16
MOST_PIXELS = 1 << 27
"""Pixels of a picture. FFmpeg takes no more than twice as many."""
REMEDY = "record with: edge-hal run --record FOLDER --record-around 30s,20GB --record-pictures source"

Row = TypeVar("Row")


@dataclass(frozen=True)
class Picture:
    """A JPEG of `length` bytes in the file of a recording. `t_ns`: stream time. `size`: width and height."""

    path: Path
    offset: int
    length: int
    frame: int
    t_ns: int
    size: tuple[int, int]

    def read(self) -> bytes:
        """The JPEG. Raises OSError, and ValueError if the file does not hold it."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        if len(data) != self.length or data[:2] != b"\xff\xd8":
            raise ValueError(f"{self.path} is damaged at byte {self.offset}")
        return data


@dataclass(frozen=True)
class Believed:
    """What was believed at `t_ns`: the action that was decided, and the probability of the most probable one."""

    t_ns: int
    action: str | None
    likely: str | None
    probability: float | None


@dataclass(frozen=True)
class Material:
    """What one recording holds for a training. `session` names the run; all its pieces have the same. `being_written`:
    the run goes on."""

    folder: Path
    session: str
    bundle: str
    pictures: tuple[Picture, ...]
    events: tuple[Event, ...]
    believed: tuple[Believed, ...]
    being_written: bool


def read_material(folder: Path) -> Material:
    """Raises EdgeHalError if the folder is no recording, has no pictures of the source, or is damaged."""
    check_readable(folder)
    try:
        being_written = _is_locked(folder / LOG)  # first: what is complete after this stays as it is
        head = parse_head(next(complete_lines(folder / LOG), ("", 0))[0])
        if head["schema"] < WITH_PICTURES:
            why = "it has the pictures at the encoder's size only, or vectors"
            raise EdgeHalError(f"the recording {folder} has no pictures of the source", why, REMEDY)
        file = folder / PICTURES
        return Material(
            folder,
            head["session"],
            head["bundle"],
            tuple(PictureIndex(file, folder / INDEX).more()),
            tuple(_rows(folder / EVENTS, decode)),
            tuple(_rows(folder / BELIEF, _believed)),
            being_written,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_readable(folder, error) from error


def _is_locked(log: Path) -> bool:
    descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _rows(file: Path, parse: Callable[[str], Row]) -> list[Row]:
    """The complete lines of a file. Raises OSError, ValueError."""
    rows = []
    for number, (line, _) in enumerate(complete_lines(file), 1):
        try:
            rows.append(parse(line))
        except (EdgeHalError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {file.name}: {error}") from error
    return rows


class PictureIndex:
    """The pictures that `index` names in `file`. Both may grow."""

    def __init__(self, file: Path, index: Path) -> None:
        self._file, self._index = file, index
        self._read = self._offset = 0
        self._last: Picture | None = None

    def more(self) -> list[Picture]:
        """Those that are complete and were not returned before, in order. Raises OSError, ValueError, KeyError,
        TypeError."""
        file, index = self._file, self._index
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"{file.name} is no regular file")
        found: list[Picture] = []
        size = file.stat().st_size
        for line, end in complete_lines(index, self._read):
            row = _object(line)
            frame, t_ns, count = (_whole(row[key], most) for key, most in _INDEX.items())
            width, height = (_whole(each, WIDEST) for each in row["size"])
            if not 0 < width * height <= MOST_PIXELS:
                raise ValueError(f"{index.name}: picture {frame} has {width} x {height} pixels")
            if self._last is not None and (frame <= self._last.frame or t_ns <= self._last.t_ns):
                raise ValueError(f"{index.name}: picture {frame} is not newer than the one before it")
            if self._offset + count > size:
                break
            self._last = Picture(file, self._offset, count, frame, t_ns, (width, height))
            self._offset, self._read = self._offset + count, end
            found.append(self._last)
        return found


_INDEX = {"frame": 1 << 50, "t_ns": LONGEST_NS, "bytes": LARGEST_PICTURE}


def _object(line: str) -> Mapping[str, Any]:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    return row


def _believed(line: str) -> Believed:
    row = _object(line)
    action, likely = row["action"], row["likely"]
    if not all(text is None or isinstance(text, str) for text in (action, likely)):
        raise ValueError("an action is no text")
    probability = row["probability"]
    if probability is not None and not (type(probability) in (int, float) and 0 <= probability <= 1):
        raise ValueError(f"a probability is {probability!r:.20}")
    return Believed(_whole(row["t_ns"], LONGEST_NS), action, likely, probability)


def _whole(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a number is {value!r:.20}")
    return value
