"""Files as sources, one class for each `--pace`: as fast as the loop, or at their own frame rate."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .base import Source
from .faults import FaultScript, TimedFrame, inject_faults
from .file_readers import Reader, Undecodable
from .frame import Frame, Intake
from .rate import instant_ns
from .threaded import ThreadedSource


class AsapFileSource(Source):
    """A file read as fast as the loop takes its frames. None is dropped, except by a fault script."""

    waits_for_loop = True

    def __init__(self, name: str, reader: Reader, faults: FaultScript | None = None) -> None:
        super().__init__(name, instant_ns(1, reader.rate))
        self._reader = reader
        self._frames = self._read_all() if faults is None else inject_faults(faults, self._read_all())
        self._captured = self._undecodable = 0
        self._last_ns = 0
        self._offset_ns = 0  # added to the file's times, so that stream time never runs backwards

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        for t_ns, data in self._frames:
            index = self._captured
            self._captured += 1
            if data is None:
                self._undecodable += 1
                continue
            self._offset_ns = max(self._offset_ns, self._last_ns - t_ns)
            self._last_ns = t_ns + self._offset_ns
            return Frame(index, self._last_ns, time.monotonic_ns(), data), 0
        self.ended = "eof"
        return None

    def now_ns(self) -> int:
        return self._last_ns

    def intake(self) -> Intake:
        return Intake(captured=self._captured, undecodable=self._undecodable)

    def close(self) -> None:
        self._reader.close()

    def _read_all(self) -> Iterator[TimedFrame]:
        index = 0
        while True:
            try:
                data = self._reader.read()
                if data is None:
                    return
            except Undecodable:
                data = None
            yield instant_ns(index, self._reader.rate), data
            index += 1


class RealtimeFileSource(ThreadedSource):
    """A file played at its own frame rate, like a camera. Stream time is the file's time."""

    def __init__(self, name: str, reader: Reader) -> None:
        self._frame_period_ns = instant_ns(1, reader.rate)
        super().__init__(name, self._frame_period_ns)
        self._reader = reader
        self._last_ns = 0

    def _read_all(self) -> str:
        index = 0
        while not self._stop.is_set():
            try:
                data = self._reader.read()
            except Undecodable:
                self._slot.add_undecodable()
                index += 1
                continue
            if data is None:
                return "eof"
            t_ns = instant_ns(index, self._reader.rate)
            now_ns = time.monotonic_ns()
            if self._started_ns is None:
                self._started_ns = now_ns - t_ns
            elif (ahead_ns := self._started_ns + t_ns - now_ns) > 0:
                self._stop.wait(ahead_ns / 1e9)
            self._slot.put(Frame(index, t_ns, time.monotonic_ns(), data))
            index += 1
        return "eof"

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        taken = super().take(until_ns)
        if taken is not None:
            self._last_ns = taken[0].t_ns
        return taken

    def close(self) -> None:
        super().close()
        if not self._thread.is_alive():
            self._reader.close()

    def _time_limit_ns(self) -> int:
        return self._last_ns + self._frame_period_ns - 1
