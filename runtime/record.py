"""Record a run and replay it: a failure in the field becomes a test.

What a run does follows from what its clock was told, in which order, and from the frames its ticks showed. A
recording is that: `log.jsonl` (how it was run, each frame and each passing of time, how it ended), `frames.bin` (the
pictures shown, as the encoder sees them, or the vectors) and `events.jsonl` (the durable events, to compare with).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, encode
from edge_hal.preprocess import resize

from .clock import Tick
from .options import RunOptions
from .slot import Intake
from .source import Frame, Source

SCHEMA = 1
LOG, FRAMES, EVENTS = "log.jsonl", "frames.bin", "events.jsonl"
REPEATED = ("stream", "pace", "decoder", "decide_every", "threads", "max_hold_ms", "overload")
"""What of the options decides which events come."""

log = logging.getLogger("edge_hal.record")


class Recorder:
    """Writes what happens to one run into an empty folder. A disk that is full ends the recording, with
    a warning, and not the run.

    Raises:
        EdgeHalError: the folder holds something, or cannot be written.
    """

    def __init__(self, folder: Path, options: RunOptions, bundle: Bundle, source: Source) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                why = "a recording overwrites nothing"
                raise EdgeHalError(f"{folder} is not empty", why, "choose another --record")
            self._log, self._events = (open(folder / name, "w", buffering=1) for name in (LOG, EVENTS))  # noqa: SIM115
            self._frames = open(folder / FRAMES, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            todo = "choose another --record"
            raise EdgeHalError(f"cannot record into {folder}", str(error.strerror), todo) from error
        self._encoder = bundle.spec.encoder
        self._shown = 0
        self._whole = True
        self._write(
            schema=SCHEMA,
            bundle=bundle.fingerprint,
            source=source.name,
            live=source.live,
            period_ns=source.period_ns,
            options={name: getattr(options, name) for name in REPEATED},
            shape=self._shape(bundle),
        )

    def took(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        self._write(frame=frame.index, t_ns=frame.t_ns, missed=missed, period_ns=period_ns)

    def passed(self, t_ns: int) -> None:
        self._write(passed=t_ns)

    def shows(self, tick: Tick) -> None:
        """A tick is about to encode its frame."""
        data = tick.frame.data
        if self._encoder is not None and data.ndim == 3:
            data = resize(data, self._encoder.height, self._encoder.width)
        else:
            data = data.astype(np.float32)
        if self._whole:
            try:
                self._frames.write(np.ascontiguousarray(data).data)
            except OSError as error:
                self._stop(error)
        self._write(shown=tick.frame.index, at=self._shown)
        self._shown += 1

    def told(self, event: Event) -> None:
        if self._whole:
            try:
                self._events.write(encode(event).decode() + "\n")
            except OSError as error:
                self._stop(error)

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        self._write(ended=reason, t_ns=t_ns, intake=dataclasses.asdict(intake))

    def close(self) -> None:
        for file in (self._log, self._events, self._frames):
            try:
                file.close()
            except OSError as error:
                self._stop(error)

    def _write(self, **entry: Any) -> None:
        if self._whole:
            try:
                self._log.write(json.dumps(entry) + "\n")
            except OSError as error:
                self._stop(error)

    def _stop(self, error: OSError) -> None:
        if self._whole:
            log.warning("the recording ends here, the run goes on: %s", error.strerror)
        self._whole = False

    def _shape(self, bundle: Bundle) -> list[int]:
        encoder = bundle.spec.encoder
        return [bundle.spec.front_end.size] if encoder is None else list(encoder.image.shape)


class ReplaySource(Source):
    """A recording, handed to the loop as it happened then; see `Recorder`."""

    patient = True

    def __init__(self, folder: Path) -> None:
        head, self._entries, rows = read_log(folder)
        super().__init__(head["source"], head["period_ns"])
        self.live = head["live"]
        self._rows, self._row = rows, {e["shown"]: e["at"] for e in self._entries if "shown" in e}
        self._steps = iter(entry for entry in self._entries if "shown" not in entry)
        self._captured = self._superseded = self._taken = self._now_ns = 0
        self._intake: Intake | None = None
        self._next = next(self._steps, None)

    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        entry = self._next
        if entry is None or "ended" in entry:
            self.ended = "source" if entry is None else entry["ended"]
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
        row = self._row.get(index)
        data = np.zeros(0, np.float32) if row is None else np.array(self._rows[row])
        return Frame(index, entry["t_ns"], entry["t_ns"], data), missed

    def now_ns(self) -> int:
        upcoming = self._next
        return upcoming["passed"] if upcoming is not None and "passed" in upcoming else self._now_ns

    def intake(self) -> Intake:
        undecodable = self._captured - self._superseded - self._taken
        return self._intake or Intake(self._captured, self._superseded, undecodable)

    def close(self) -> None:
        self._rows = self._rows[:0]


def read_log(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], NDArray[Any]]:
    """(how it was run, what happened, what was shown: (n, ...)).

    Raises:
        EdgeHalError: the folder is no recording of this version.
    """
    try:
        lines = (folder / LOG).read_text().splitlines(keepends=True)
        head = json.loads(lines[0])
        if head["schema"] != SCHEMA:
            raise ValueError(f"schema {head['schema']}, this version reads {SCHEMA}")
        entries = [json.loads(line) for line in lines[1:] if line.endswith("\n")]
        if not entries or "ended" not in entries[-1]:  # killed: it is whole up to the last frame shown
            while entries and "shown" not in entries[-1]:
                entries.pop()
        shape = tuple(int(size) for size in head["shape"])
        dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
        count = (folder / FRAMES).stat().st_size // (int(np.prod(shape)) * dtype.itemsize)
        rows = np.memmap(folder / FRAMES, dtype, "r", shape=(count, *shape)) if count else np.zeros((0, *shape), dtype)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        todo = "give a folder that edge-hal run --record wrote"
        raise EdgeHalError(f"{folder} is no recording", f"{type(error).__name__}: {error}", todo) from error
    return head, entries, rows


def replay_options(folder: Path, bundle: Path) -> tuple[RunOptions, str]:
    """How to run a recording again, and the fingerprint of the bundle it was made with."""
    head, _, _ = read_log(folder)
    options = RunOptions(bundle=bundle, camera=f"replay:{folder}", **head["options"])
    return options, head["bundle"]


def recorded_events(folder: Path) -> Iterator[bytes]:
    """The durable events of the recording, without what differs between runs; see `comparable`."""
    for line in (folder / EVENTS).read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield comparable(line)


def comparable(event: str | bytes) -> bytes:
    """An event on the wire less `run` and `seq`, which belong to the run and its journal."""
    body = json.loads(event)
    return json.dumps({key: value for key, value in body.items() if key not in ("run", "seq")}).encode()
