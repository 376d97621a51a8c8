"""Read a recording, replay it as a source, and compare its events.

A plain recording of another version is read if its schema is known. A piece of a ring is not: it begins with the
internal state of the program, which may change with every version.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake

from .event_ring import NAME, pieces
from .state_file import State, load
from .writer import CUT, EVENTS, FRAMES, LOG, SCHEMA, STATE


@dataclass(frozen=True, eq=False)
class Recording:
    """`head`: the options of the run. `entries`: what happened, in order. `rows` (n, ...): the frames that were shown.
    `state`: that of the run where the recording begins, None at the start of the run. `ended`: why the recording ended,
    None if the run was killed."""

    folder: Path
    head: dict[str, Any]
    entries: list[dict[str, Any]]
    rows: NDArray[Any]
    state: State | None

    @property
    def ended(self) -> str | None:
        return self.entries[-1].get("ended") if self.entries else None

    @property
    def version(self) -> str:
        """The version of edge-hal that recorded it."""
        return _version(self.head)

    @property
    def bundle(self) -> str:
        """Fingerprint of the bundle that ran."""
        return str(self.head["bundle"])

    def options(self, bundle: Path) -> RunOptions:
        """How to run it again."""
        return RunOptions(bundle=bundle, camera=f"replay:{self.folder}", **self.head["options"])

    def events(self) -> list[bytes]:
        """The durable events of the recorded run; see `comparable`."""
        lines = (self.folder / EVENTS).read_text().splitlines(keepends=True)
        return [comparable(line) for line in lines if line.endswith("\n")]

    def difference(self, found: Sequence[bytes]) -> tuple[int, bytes, bytes] | None:
        """Number of the first event that differs, the recorded event and that of the replay; None if all are equal.

        `found` are the durable events of the replay. A piece that is not the first has no `start`, and one that is not
        the last has no `end`. A run that was killed may lack its last events, or the frames that they follow from.
        """
        then, now = self.events(), list(found[self.state is not None :])
        if self.ended is None:
            now = now[:-1][: len(then)]
            then = then[: len(now)]
        elif self.ended == CUT:
            now = [event for number, event in enumerate(now) if number < len(then) or not _ends(event)]
        for number, (old, new) in enumerate(itertools.zip_longest(then, now, fillvalue=b"nothing")):
            if old != new:
                return number, old, new
        return None


def _version(head: Mapping[str, Any]) -> str:
    """Version 0.1 did not write its name."""
    return str(head.get("version", "0.1"))


def _ends(event: bytes) -> bool:
    return json.loads(event)["type"] in ("gap", "end")


def read_recording(folder: Path) -> Recording:
    """Raises EdgeHalError if the folder is no recording, has a newer schema, or is a piece of a ring from another
    version."""
    try:
        lines = (folder / LOG).read_text().splitlines(keepends=True)
        head = json.loads(lines[0])
        if head["schema"] not in range(1, SCHEMA + 1):
            why = f"edge-hal {_version(head)} wrote schema {head['schema']}, {__version__} reads schemas up to {SCHEMA}"
            raise ValueError(why)
        version, of_ring = _version(head), NAME.fullmatch(folder.name) or (folder / STATE).exists()
        if of_ring and version != __version__:
            raise EdgeHalError(
                f"edge-hal {version} recorded {folder}, a piece of a ring",
                f"this is edge-hal {__version__}, and a piece begins with internal state of the version that wrote it",
                f"replay it with edge-hal {version}; pieces of this version replay one by one: edge-hal replay PIECE",
            )
        entries = [json.loads(line) for line in lines[1:] if line.endswith("\n")]
        if not entries or "ended" not in entries[-1]:  # killed: complete up to the last frame shown
            while entries and "shown" not in entries[-1]:
                entries.pop()
        shape = tuple(int(size) for size in head["shape"])
        dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
        count = (folder / FRAMES).stat().st_size // (int(np.prod(shape)) * dtype.itemsize)
        rows = np.memmap(folder / FRAMES, dtype, "r", shape=(count, *shape)) if count else np.zeros((0, *shape), dtype)
        state = load(folder / STATE) if (folder / STATE).exists() else None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        todo = "give a folder that edge-hal run --record wrote"
        if pieces(folder):
            todo = f"it holds pieces: edge-hal replay {folder}"
        raise EdgeHalError(f"{folder} is no recording", f"{type(error).__name__}: {error}", todo) from error
    return Recording(folder, head, entries, rows, state)


def recordings(folder: Path) -> list[Path]:
    """The folder itself, or the pieces in it, oldest first."""
    return [folder] if (folder / LOG).exists() else pieces(folder) or [folder]


def comparable(event: str | bytes) -> bytes:
    """An encoded event without `run` and `seq`, which differ between runs."""
    body = json.loads(event)
    return json.dumps({key: value for key, value in body.items() if key not in ("run", "seq")}).encode()


class ReplaySource(Source):
    """A recording as a source: the loop gets frames and times in the recorded order. `state`: see `Recording`."""

    waits_for_loop = True

    def __init__(self, folder: Path) -> None:
        recording = read_recording(folder)
        super().__init__(recording.head["source"], recording.head["period_ns"])
        self.live = recording.head["live"]
        self.state = recording.state
        entries = recording.entries
        self._rows, self._row = recording.rows, {e["shown"]: e["at"] for e in entries if "shown" in e}
        self._steps = iter(entry for entry in entries if "shown" not in entry)
        counts = {} if self.state is None else self.state["source"]
        self._captured, self._superseded = counts.get("captured", 0), counts.get("superseded", 0)
        self._taken, self._now_ns = counts.get("taken", 0), counts.get("now_ns", 0)
        self._intake: Intake | None = None
        self._next = next(self._steps, None)

    def frame(self, index: int, t_ns: int) -> Frame:
        """The frame with the pixels that were shown; without pixels if no tick showed it."""
        row = self._row.get(index)
        data = np.zeros(0, np.float32) if row is None else np.array(self._rows[row])
        return Frame(index, t_ns, t_ns, data)

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        entry = self._next
        if entry is None or "ended" in entry:
            self.ended = "source" if entry is None else "eof" if entry["ended"] == CUT else entry["ended"]
            if entry is not None:
                self._now_ns, self._intake = entry["t_ns"], Intake(**entry["intake"])
            return None
        self._next = next(self._steps, None)
        if "passed" in entry:
            self._now_ns = entry["passed"]
            return None
        index, missed, self.period_ns = entry["frame"], entry["missed"], entry["period_ns"]
        self._captured, self._superseded, self._taken = index + 1, self._superseded + missed, self._taken + 1
        self._now_ns = entry["t_ns"]
        return self.frame(index, entry["t_ns"]), missed

    def now_ns(self) -> int:
        upcoming = self._next
        passed_ns: int | None = upcoming.get("passed") if upcoming is not None else None
        return self._now_ns if passed_ns is None else passed_ns

    def intake(self) -> Intake:
        undecodable = self._captured - self._superseded - self._taken
        return self._intake or Intake(self._captured, self._superseded, undecodable)

    def close(self) -> None:
        self._rows = self._rows[:0]
