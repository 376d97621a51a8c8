"""A recording as a source of frames: a run that reads from it is replayed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.resumed import Resumed

from .reader import SOURCE_STATE, read_recording
from .writer import CUT


class ReplaySource(Source):
    """The loop gets frames and times in the recorded order. `state`: see `Recording`."""

    waits_for_loop = True

    def __init__(self, folder: Path) -> None:
        recording = read_recording(folder)
        super().__init__(recording.head["source"], recording.head["period_ns"])
        self.live = recording.head["live"]
        self.state = recording.state
        self._rows, self._entries = recording.rows, recording.entries
        self._steps = iter(entry for entry in recording.entries if "shown" not in entry)
        counts = SOURCE_STATE if self.state is None else self.state["source"]
        self._captured, self._superseded = counts["captured"], counts["superseded"]
        self._taken, self._now_ns = counts["taken"], counts["now_ns"]
        self._intake: Intake | None = None
        self._resumed: dict[str, Any] | None = None
        self._next = self._following()

    def resumed(self) -> Resumed | None:
        """What the run resumed at its start, or after the newest frame; each is returned once."""
        entry, self._resumed = self._resumed, None
        return None if entry is None else Resumed.from_entry(entry)

    def _following(self) -> dict[str, Any] | None:
        self._resumed = None
        for entry in self._steps:
            if "resumed" not in entry:
                return entry
            self._resumed = entry
        return None

    def frame(self, index: int, t_ns: int) -> Frame:
        """The frame with the pixels that were shown; without pixels if no tick showed it."""
        row = self._entries.row(index)
        data = np.zeros(0, np.float32) if row is None else np.array(self._rows[row])
        return Frame(index, t_ns, time.monotonic_ns(), data)  # it is "captured" now: latency is that of this run

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        entry = self._next
        if entry is None or "ended" in entry:
            self.ended = "source" if entry is None else "eof" if entry["ended"] == CUT else entry["ended"]
            if entry is not None:
                self._now_ns, self._intake = entry["t_ns"], Intake(**entry["intake"])
            return None
        self._next = self._following()
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
