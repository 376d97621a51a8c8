"""Where frames come from: cameras, addresses, videos and feature arrays, each read the way it can be read.

Files and features read `asap` wait for the loop. Everything else is read by a thread that keeps
only the newest frame, because a camera's own buffer lags behind (OpenCV keeps several frames;
opencv/opencv#13145).
"""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .rate import instant_ns
from .readers import DeviceReader, FeatureReader, Reader, Undecodable, VideoReader, checked_rate, redact
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

    `name` carries no credentials. `ended` is None, or why there are no more frames: `eof`,
    `source`.
    """

    def __init__(self, name: str, reader: Reader) -> None:
        self.name = name
        self.rate = reader.rate
        self.period_ns = None if reader.rate is None else instant_ns(1, reader.rate)
        self.phase_ns = 0
        self.ended: str | None = None
        self._reader = reader

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

    def wake(self) -> None:  # noqa: B027 - a source that never waits has nothing to wake
        """Let a waiting `take` return."""

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Source:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class WaitingSource(Source):
    """A file read as fast as the loop takes it; nothing is dropped."""

    def __init__(self, name: str, reader: Reader) -> None:
        super().__init__(name, reader)
        assert reader.rate is not None
        self._rate = reader.rate
        self._captured = self._undecodable = 0
        self._last_ns = 0

    def take(self, due_ns: int | None) -> tuple[Frame, int] | None:
        while self.ended is None:
            try:
                data = self._reader.read()
            except Undecodable:
                self._captured += 1
                self._undecodable += 1
                continue
            if data is None:
                self.ended = "eof"
                break
            index = self._captured
            self._captured += 1
            self._last_ns = instant_ns(index, self._rate)
            return Frame(index, self._last_ns, time.monotonic_ns(), data), 0
        return None

    def now_ns(self) -> int:
        return self._last_ns

    def intake(self) -> Intake:
        return Intake(captured=self._captured, undecodable=self._undecodable)


class ThreadedSource(Source):
    """A reading thread and a latest-frame slot. What the thread does is the subclass's `_read_all`."""

    def __init__(self, name: str, reader: Reader) -> None:
        super().__init__(name, reader)
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
            self._thread.join(timeout=2.0)
        if not self._thread.is_alive():  # a hung read keeps its handle until the process ends
            self._reader.close()

    def _read_guarded(self) -> None:
        try:
            self._why = self._read_all()
        except EdgeHalError as error:
            self._failure = error
        except Exception as error:  # whatever a driver raises must reach the loop, not die with the thread
            self._failure = EdgeHalError(f"reading {self.name} failed", f"{type(error).__name__}: {error}")
        finally:
            self._slot.close()


class PacedSource(ThreadedSource):
    """A file replayed at its own frame rate, as if it were a camera. Stream time is the file's."""

    _last_ns = 0

    def _read_all(self) -> str:
        assert self.rate is not None
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
            t_ns = instant_ns(index, self.rate)
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

    def _bound_ns(self) -> int | None:
        assert self.period_ns is not None
        return self._last_ns + self.period_ns - 1


class DeviceSource(ThreadedSource):
    """A camera or URL. Frames are stamped as they are grabbed; time passes whether they come or not."""

    _reader: DeviceReader

    def __init__(self, name: str, reader: DeviceReader) -> None:
        super().__init__(name, reader)
        self.phase_ns = (self.period_ns or 0) // 2

    def _read_all(self) -> str:
        index = 0
        while not self._stop.is_set() and self._reader.grab():
            captured_ns = time.monotonic_ns()
            if self._begun_ns is None:
                self._begun_ns = captured_ns
            try:
                data = self._reader.read()
            except Undecodable:
                self._slot.skip()
            else:
                assert data is not None
                self._slot.put(Frame(index, captured_ns - self._begun_ns, captured_ns, data))
            index += 1
        return "source"

    def _bound_ns(self) -> int | None:
        return None


def open_source(
    uri: str, pace: str = "realtime", *, vector_size: int | None = None, fps: float | None = None
) -> Source:
    """Open `0` (a camera), a video file, `rtsp://`, `http://`, or `features:FILE.npy@HZ`.

    Nothing is captured before `start` (or `with`).

    Args:
        pace: `realtime` plays files at their own rate and drops what the loop cannot take; `asap`
            waits.
        vector_size: the length of feature vectors, which tells (T, D) from (D, T).
        fps: overrides what a video file claims.

    Raises:
        EdgeHalError: it cannot be opened; nothing is left behind.
    """
    name = redact(uri)
    if pace not in ("asap", "realtime"):
        raise EdgeHalError(f"there is no pace '{pace}'", "", "use asap or realtime", exit_code=2)
    live = uri.isdigit() or re.match(r"(rtsp|rtsps|http|https)://", uri) is not None
    if live:
        if pace == "asap":
            todo = "use --pace realtime, or a file"
            raise EdgeHalError(
                f"the camera {name} cannot wait", "--pace asap is for files", todo, exit_code=2
            )
        return DeviceSource(name, DeviceReader(uri))
    if "://" in uri:
        known = "a camera index, a video file, rtsp://, http:// or features:FILE.npy@HZ"
        raise EdgeHalError(f"cannot open the source {name}", "unknown scheme", f"use {known}", exit_code=2)
    featured = uri.startswith("features:")
    reader: Reader = _open_features(uri, vector_size) if featured else VideoReader(Path(uri), fps)
    return WaitingSource(name, reader) if pace == "asap" else PacedSource(name, reader)


def _open_features(uri: str, size: int | None) -> FeatureReader:
    path, _, hz = uri.removeprefix("features:").rpartition("@")
    todo = "write features:FILE.npy@HZ, for example features:hand.npy@30"
    try:
        rate = checked_rate(float(hz), f"'{uri}'", todo)
    except ValueError as error:
        why = "the rate after @ is missing or no number"
        raise EdgeHalError(f"cannot read '{uri}'", why, todo, exit_code=2) from error
    return FeatureReader(Path(path), rate, size)
