"""Where frames come from: cameras, addresses, videos, folders and feature arrays, each read the way it can be.

Files and features read `asap` wait for the loop. At their own pace a thread reads them and keeps only the
newest frame, because a camera's own buffer lags behind (OpenCV keeps several frames; opencv/opencv#13145).
Devices and addresses: `camera_source.py`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .faults import FaultScript, Timed, afflict
from .file_readers import Reader, Undecodable
from .rate import instant_ns
from .slot import Intake, LatestFrameSlot

IDLE_S = 0.5
"""The longest `take` waits in one go, so that the loop can look around."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: `index` counts what the source captured, `t_ns` is stream time (since the first
    frame), `captured_ns` the monotonic clock when it was grabbed. `data`: uint8 BGR (H, W, 3) or
    float32 (D,)."""

    index: int
    t_ns: int
    captured_ns: int
    data: NDArray[Any]


class Source(ABC):
    """Frames in order, with what became of those the loop never saw.

    `name` carries no credentials. `period_ns`: nanoseconds between frames, None where nobody says.
    `live`: time passes whether frames come or not. `patient`: it waits for the loop. `ended` is None,
    or why there are no more frames: `eof`, `source`.
    """

    live = False
    patient = False

    def __init__(self, name: str, period_ns: int | None) -> None:
        self.name = name
        self.period_ns = period_ns
        self.ended: str | None = None

    def start(self) -> None:  # noqa: B027 - a source that waits starts when it is asked
        """Begin to capture; before that nothing is read."""

    @abstractmethod
    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        """The next frame, with how many were superseded before it. None when stream time reached
        `due_ns` first, when half a second passed, after `wake`, or at the end (then `ended` says
        why)."""

    @abstractmethod
    def now_ns(self) -> int:
        """Stream time up to which no frame is still to come."""

    @abstractmethod
    def intake(self) -> Intake: ...

    def health(self) -> dict[str, Any]:
        """What a heartbeat tells of the source; nothing for files, which cannot fail."""
        return {}

    def wake(self) -> None:  # noqa: B027 - a source that never waits has nothing to wake
        """Let a waiting `take` return."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Source:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class WaitingSource(Source):
    """A file read as fast as the loop takes it; nothing is dropped, but by a fault script."""

    patient = True

    def __init__(self, name: str, reader: Reader, faults: FaultScript | None = None) -> None:
        assert reader.rate is not None
        super().__init__(name, instant_ns(1, reader.rate))
        self._reader, self._rate = reader, reader.rate
        self._frames = self._read_all() if faults is None else afflict(faults, self._read_all())
        self._captured = self._undecodable = 0
        self._last_ns = self._moved_ns = 0

    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        for t_ns, data in self._frames:
            index = self._captured
            self._captured += 1
            if data is None:
                self._undecodable += 1
                continue
            self._moved_ns = max(self._moved_ns, self._last_ns - t_ns)  # a clock that was put back
            self._last_ns = t_ns + self._moved_ns
            return Frame(index, self._last_ns, time.monotonic_ns(), data), 0
        self.ended = "eof"
        return None

    def now_ns(self) -> int:
        return self._last_ns

    def intake(self) -> Intake:
        return Intake(captured=self._captured, undecodable=self._undecodable)

    def close(self) -> None:
        self._reader.close()

    def _read_all(self) -> Iterator[Timed]:
        index = 0
        while True:
            try:
                data = self._reader.read()
                if data is None:
                    return
            except Undecodable:
                data = None
            yield instant_ns(index, self._rate), data
            index += 1


class ThreadedSource(Source):
    """A thread and a latest-frame slot. What the thread does is the subclass's `_read_all`."""

    def __init__(self, name: str, period_ns: int | None) -> None:
        super().__init__(name, period_ns)
        self._slot = LatestFrameSlot()
        self._stop = threading.Event()
        self._begun_ns: int | None = None
        self._why = "eof"
        self._failure: EdgeHalError | None = None
        self._thread = threading.Thread(target=self._read_guarded, name="edge-hal-source", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @abstractmethod
    def _read_all(self) -> str:
        """Put frames into the slot until the end. Returns why it ended."""

    @abstractmethod
    def _bound_ns(self) -> int | None:
        """Stream time that cannot be passed before the next frame comes; None where it passes anyway."""

    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        timeout_s, bound_ns = IDLE_S, self._bound_ns()
        if due_ns is not None and (bound_ns is None or due_ns <= bound_ns):
            timeout_s = min(IDLE_S, max(0.0, (due_ns - self.now_ns()) / 1e9))
        taken = self._slot.get(timeout_s)
        if taken is None and self._slot.closed and not self._slot.intake().waiting:
            if self._failure is not None:
                raise self._failure
            self.ended = self._why
        return taken

    def now_ns(self) -> int:
        if self._begun_ns is None:
            return 0
        passed, bound_ns = time.monotonic_ns() - self._begun_ns, self._bound_ns()
        return passed if bound_ns is None else min(passed, bound_ns)

    def intake(self) -> Intake:
        return self._slot.intake()

    def wake(self) -> None:
        self._slot.wake()

    def close(self) -> None:
        self._stop.set()
        self._slot.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def _read_guarded(self) -> None:
        try:
            self._why = self._read_all()
        except EdgeHalError as error:
            self._failure = error
        except Exception as error:  # whatever it is must reach the loop, not die with the thread
            self._failure = EdgeHalError(f"reading {self.name} failed", f"{type(error).__name__}: {error}")
        finally:
            self._slot.close()


class PacedSource(ThreadedSource):
    """A file replayed at its own frame rate, as if it were a camera. Stream time is the file's."""

    def __init__(self, name: str, reader: Reader) -> None:
        assert reader.rate is not None
        super().__init__(name, instant_ns(1, reader.rate))
        self._reader, self._rate = reader, reader.rate
        self._last_ns = 0

    def _read_all(self) -> str:
        index = 0
        while not self._stop.is_set():
            try:
                data = self._reader.read()
            except Undecodable:
                self._slot.skip()
                index += 1
                continue
            if data is None:
                return "eof"
            t_ns = instant_ns(index, self._rate)
            now_ns = time.monotonic_ns()
            if self._begun_ns is None:
                self._begun_ns = now_ns - t_ns
            elif (ahead_ns := self._begun_ns + t_ns - now_ns) > 0:
                self._stop.wait(ahead_ns / 1e9)
            self._slot.put(Frame(index, t_ns, time.monotonic_ns(), data))
            index += 1
        return "eof"

    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        taken = super().take(due_ns)
        if taken is not None:
            self._last_ns = taken[0].t_ns
        return taken

    def close(self) -> None:
        super().close()
        if not self._thread.is_alive():
            self._reader.close()

    def _bound_ns(self) -> int | None:
        assert self.period_ns is not None
        return self._last_ns + self.period_ns - 1
