"""Files as sources, one class for each `--pace`: as fast as the loop, or at their own frame rate."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator

from edge_hal.rate import instant_ns

from .base import Source
from .faults import FaultScript, TimedFrame, inject_faults
from .file_readers import Reader
from .frame import Frame, Intake
from .threaded import ThreadedSource

log = logging.getLogger("edge_hal.camera")


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
        while (read := self._reader.read()) is not None:
            yield read
        warn_of_loss(self.name, self._reader)


class RealtimeFileSource(ThreadedSource):
    """A file played at its own times, like a camera. Stream time is the file's time."""

    def __init__(self, name: str, reader: Reader) -> None:
        super().__init__(name, instant_ns(1, reader.rate))
        self._reader = reader
        self._last_ns = 0
        self._not_taken_ns: deque[int] = deque()  # times of the frames that were read and not taken yet

    def _read_all(self) -> str:
        index = 0
        while not self._stop.is_set() and (read := self._reader.read()) is not None:
            t_ns, data = read
            if data is None:
                self._slot.add_undecodable()
                index += 1
                continue
            now_ns = time.monotonic_ns()
            if self._started_ns is None:
                self._started_ns = now_ns - t_ns
            self._not_taken_ns.append(t_ns)
            if (ahead_ns := self._started_ns + t_ns - now_ns) > 0:
                self._stop.wait(ahead_ns / 1e9)
            self._slot.put(Frame(index, t_ns, time.monotonic_ns(), data))
            index += 1
        if not self._stop.is_set():
            warn_of_loss(self.name, self._reader)
        return "eof"

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        taken = super().take(until_ns)
        if taken is not None:
            self._last_ns = taken[0].t_ns
            while self._not_taken_ns and self._not_taken_ns[0] <= self._last_ns:
                self._not_taken_ns.popleft()
        return taken

    def close(self) -> None:
        super().close()
        if not self._thread.is_alive():
            self._reader.close()

    def _time_limit_ns(self) -> int:
        """Frames need not be a period apart: time stops before the next one that is known, or at the last one."""
        try:
            return self._not_taken_ns[0] - 1
        except IndexError:
            return self._last_ns


def warn_of_loss(name: str, reader: Reader) -> None:
    """Log what the file announced and did not give."""
    if (loss := reader.loss()) is not None:
        log.warning("%s: %s", name, loss)
