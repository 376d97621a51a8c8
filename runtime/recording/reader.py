"""Read a recording, and compare its events with those of a replay.

A recording may come from anybody: only regular files in its folder are read, and what they hold is checked before use.
A plain recording of another version is read if its schema is known. A piece of a ring is not: it begins with the
internal state of the program, which may change with every version.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.events import Cycle, Deviation, End
from edge_hal.files import check_readable, file_error
from edge_hal.files.untrusted import parse_json
from edge_hal.runtime.options import RunOptions

from .event_ring import NAME, pieces
from .log_file import Entry, EntryParser, complete_lines, not_readable, parse_head, repeated_options
from .state_file import State, check_like, load
from .writer import CUT, EVENTS, FRAMES, LOG, STATE

LATER = {"resumed": None, "before": None}
"""What events of earlier versions lack."""
SOURCE_STATE = {"captured": 0, "superseded": 0, "taken": 0, "now_ns": 0}


@dataclass(frozen=True, eq=False)
class Entries:
    """What happened, in order: the first `count` entries of a log. They are read again each time, because those of days
    do not fit into memory. `last`: None without any. `shown`, `at` (n,): the frames that were shown, in order, and the
    rows with their pixels."""

    folder: Path
    count: int
    last: Entry | None
    shown: NDArray[np.int64]
    at: NDArray[np.int64]

    def __iter__(self) -> Iterator[Entry]:
        parser = EntryParser()
        try:
            for line, _ in itertools.islice(complete_lines(self.folder / LOG), 1, 1 + self.count):
                yield parser.parse(line)
        except (OSError, ValueError) as error:
            raise not_readable(self.folder, error) from error

    def row(self, frame: int) -> int | None:
        """Where the pixels of a frame are; None if no tick showed it."""
        place = int(np.searchsorted(self.shown, frame, "right")) - 1
        return int(self.at[place]) if place >= 0 and self.shown[place] == frame else None


@dataclass(frozen=True, eq=False)
class Recording:
    """`head`: the options of the run. `entries`: what happened, in order. `rows` (n, ...): the frames that were shown.
    `state`: that of the run where the recording begins, None at the start of the run. `ended`: why the recording ended,
    None if the run was killed."""

    folder: Path
    head: dict[str, Any]
    entries: Entries
    rows: NDArray[Any]
    state: State | None

    @property
    def ended(self) -> str | None:
        return None if self.entries.last is None else self.entries.last.get("ended")

    @property
    def version(self) -> str:
        """The version of edge-hal that recorded it."""
        return _version(self.head)

    @property
    def bundle(self) -> str:
        """Fingerprint of the bundle that ran."""
        return str(self.head["bundle"])

    def options(self, bundle: Path) -> RunOptions:
        """How to run it again: what changes the recognition is as recorded, all else is default."""
        return RunOptions(bundle=bundle, camera=f"replay:{self.folder}", **repeated_options(self.head))

    def events(self) -> list[bytes]:
        """The durable events of the recorded run; see `comparable`. Raises EdgeHalError if they cannot be read."""
        try:
            return [comparable(line) for line, _ in complete_lines(self.folder / EVENTS)]
        except (OSError, ValueError) as error:
            raise file_error(f"cannot read the events of {self.folder}", error, path=self.folder / EVENTS) from error

    @property
    def events_cut_off(self) -> bool:
        """Whether the log has the end of the run and the file of the events lacks it. Where a piece of a ring goes on
        in the next one, its events have no end."""
        if self.ended in (None, CUT):
            return False
        return not any(json.loads(event)["type"] == End.type for event in self.events()[-1:])

    def compared(self, found: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The recorded events and those of the replay that must be equal.

        A piece that is not the first has no `start`, and one that is not the last has no `end`. A run that was killed
        may lack its last events, or the frames that they follow from; so may a recording that was cut off.

        Args:
            found: the durable events of the replay.
        """
        then, now = self.events(), list(found[self.state is not None :])
        if self.ended is None:
            while now and _closes(now[-1]):
                now.pop()
            return then[: len(now)], now[: len(then)]
        if self.events_cut_off:
            return then, now[: len(then)]
        if self.ended == CUT:
            now = [event for number, event in enumerate(now) if number < len(then) or not _closes(event)]
        return then, now

    def difference(self, found: Sequence[bytes]) -> tuple[int, bytes | None, bytes | None] | None:
        """Number of the first event that differs, the recorded event and that of the replay, None for one that is
        missing; None if all are equal. The name of the stream may differ, because whoever replays chooses it."""
        for number, (old, new) in enumerate(itertools.zip_longest(*self.compared(found))):
            if old is None or new is None or _alike(old) != _alike(new):
                return number, old, new
        return None


def _version(head: Mapping[str, Any]) -> str:
    """Version 0.1 did not write its name."""
    return str(head.get("version", "0.1"))


def _alike(event: bytes) -> dict[str, Any]:
    return {**LATER, **json.loads(event), "stream": ""}


def _closes(event: bytes) -> bool:
    """Whether it may come only because a replay ends where the run went on."""
    return json.loads(event)["type"] in ("gap", "deviation", "cycle", "end")


def read_recording(folder: Path) -> Recording:
    """Raises EdgeHalError if the folder is no recording, has a newer schema, is damaged, or is a piece of a ring from
    another version."""
    for file in (folder, *(folder / name for name in (LOG, FRAMES, EVENTS, STATE))):
        check_readable(file)
    try:
        head = parse_head(next(complete_lines(folder / LOG), ("", 0))[0])
        version, of_ring = _version(head), NAME.fullmatch(folder.name) or os.path.lexists(folder / STATE)
        if of_ring and version != __version__:
            raise EdgeHalError(
                f"edge-hal {version} recorded {folder}, a piece of a ring",
                f"this is edge-hal {__version__}, and a piece begins with internal state of the version that wrote it",
                f"replay it with edge-hal {version}; pieces of this version replay one by one: edge-hal replay PIECE",
            )
        rows = frame_rows(folder / FRAMES, tuple(head["shape"]))
        entries = _entries(folder, len(rows))
        state = load(folder / STATE) if os.path.lexists(folder / STATE) else None
        if state is not None:
            check_like(SOURCE_STATE, state.get("source"), "source")
    except (OSError, ValueError, AttributeError) as error:
        if pieces(folder):
            todo = f"it holds pieces: edge-hal replay {folder}"
            raise EdgeHalError(f"{folder} is no recording of its own", "", todo) from error
        raise not_readable(folder, error) from error
    return Recording(folder, head, entries, rows, state)


def _entries(folder: Path, rows: int) -> Entries:
    """Raises OSError, ValueError."""
    parser, shown, at = EntryParser(), array("q"), array("q")
    count, whole, last, last_whole = 0, 0, None, None  # whole: up to the last frame that is there
    missing: tuple[int, int] | None = None  # the first frame that is not: in which entry
    for line, _ in itertools.islice(complete_lines(folder / LOG), 1, None):
        last, count = parser.parse(line), count + 1
        if "shown" not in last:
            continue
        if last["at"] < rows:
            whole, last_whole = count, last
            shown.append(last["shown"])
            at.append(last["at"])
        elif missing is None:
            missing = count, last["at"]
    if last is None or "ended" not in last:  # killed, or no room
        count, last = whole, last_whole
    if missing is not None and missing[0] <= count:
        raise ValueError(f"{FRAMES} has {rows} frames, the log names frame {missing[1]}")
    frames, places = (np.array(each, np.int64) for each in (shown, at))
    order = np.argsort(frames, kind="stable")
    return Entries(folder, count, last, frames[order], places[order])


def frame_rows(file: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """The frames (n, ...) that were shown, read from the disk when they are used. Raises OSError, ValueError."""
    if file.is_symlink() or not file.is_file():
        raise ValueError(f"{file.name} is no regular file")
    dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
    count = file.stat().st_size // (math.prod(shape) * dtype.itemsize)
    return np.memmap(file, dtype, "r", shape=(count, *shape)) if count else np.zeros((0, *shape), dtype)


def recordings(folder: Path) -> list[Path]:
    """The folder itself, or the pieces in it, oldest first."""
    return [folder] if (folder / LOG).exists() else pieces(folder) or [folder]


def comparable(event: str | bytes) -> bytes:
    """An encoded event without `run` and `seq`, which differ between runs. So do the numbers by which a deviation or a
    cycle names other events.

    Raises:
        ValueError: it is no event.
    """
    body = parse_json(event)
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise ValueError("a line is no event")
    compared = {key: value for key, value in body.items() if key not in ("run", "seq")}
    if body["type"] == Deviation.type:
        compared["corrects"] = body.get("corrects") is not None
    if body["type"] == Cycle.type:
        named = body.get("deviations")
        if not isinstance(named, list) or not all(isinstance(each, dict) for each in named):
            raise ValueError("a line is no event")
        compared["deviations"] = [{key: value for key, value in each.items() if key != "seq"} for each in named]
    return json.dumps(compared).encode()
