"""A source whose frames are read by a thread, which keeps the newest one.

A thread is needed because a camera's own buffer lags behind: OpenCV keeps several frames (opencv/opencv#13145).
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.threads import Worker

from .base import Source
from .frame import Frame, Intake
from .slot import LatestFrameSlot

LONGEST_WAIT_S = 0.5
"""`take` returns after this time at the latest, so that the loop can do its other work."""


class ThreadedSource(Source):
    """A reading thread and a latest-frame slot. A subclass says how to read (`_read_all`)."""

    def __init__(self, name: str, period_ns: int | None) -> None:
        super().__init__(name, period_ns)
        self._slot = LatestFrameSlot()
        self._stop = threading.Event()
        self._started_ns: int | None = None  # monotonic clock at stream time 0
        self._end_reason = "eof"
        self._failure: EdgeHalError | None = None
        self._thread = Worker(self._run, "source")

    def start(self) -> None:
        self._thread.start()

    @abstractmethod
    def _read_all(self) -> str:
        """Put frames into the slot until the end. Returns why it ended: see `Source.ended`."""

    @abstractmethod
    def _time_limit_ns(self) -> int | None:
        """Stream time cannot pass this before the next frame comes. None: it passes without frames."""

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        timeout_s, limit_ns = LONGEST_WAIT_S, self._time_limit_ns()
        if until_ns is not None and (limit_ns is None or until_ns <= limit_ns):
            timeout_s = min(LONGEST_WAIT_S, max(0.0, (until_ns - self.now_ns()) / 1e9))
        taken = self._slot.get(timeout_s)
        if taken is None and self._slot.closed and not self._slot.intake().waiting:
            if self._failure is not None:
                raise self._failure
            self.ended = self._end_reason
        return taken

    def now_ns(self) -> int:
        if self._started_ns is None:
            return 0
        elapsed_ns, limit_ns = time.monotonic_ns() - self._started_ns, self._time_limit_ns()
        return elapsed_ns if limit_ns is None else min(elapsed_ns, limit_ns)

    def intake(self) -> Intake:
        return self._slot.intake()

    def wake(self) -> None:
        self._slot.wake()

    def close(self) -> None:
        self._stop.set()
        self._slot.close()
        if self._thread.ident is not None:
            self._thread.finish()

    def _run(self) -> None:
        try:
            self._end_reason = self._read_all()
        except EdgeHalError as error:
            self._failure = error
        except BaseException as error:  # every failure must reach the loop; then the worker reports it too
            self._failure = EdgeHalError(f"reading {self.name} failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._slot.close()
