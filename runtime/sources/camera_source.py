"""A camera or an address as a source: a thread watches the process that reads it, and replaces it.

A camera that hangs, shows one picture for ever, is unplugged or never answered is reported, in the log and in
heartbeats, and opened again with growing pauses, for ever.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from multiprocessing.connection import Pipe
from typing import Any

from edge_hal.errors import EdgeHalError

from .base import Frame, ThreadedSource
from .camera_backends import CameraRequest
from .camera_process import Message, ReadingProcess
from .rate import exact_rate, instant_ns
from .watchdog import Backoff, Limits, Stamps, StillLimit

log = logging.getLogger("edge_hal.camera")


class CameraLost(EdgeHalError):
    """A connection ended, or none came about."""


class CameraSource(ThreadedSource):
    """A camera or an address, read by a process of its own; see `Limits` for when that is replaced."""

    live = True

    def __init__(self, name: str, request: CameraRequest, limits: Limits) -> None:
        super().__init__(name, None)
        self._request, self._limits = request, limits
        self._stamps = Stamps()
        self._still = StillLimit(limits.still_s)
        self._heard, self._waker = Pipe(duplex=False)
        self._captured = 0
        self._latest_ns = 0
        self._health: dict[str, Any] = {"state": "opening", "connections": 0, "lost": None, "clock_steps": 0}

    def health(self) -> dict[str, Any]:
        return self._health

    def close(self) -> None:
        self._stop.set()
        if not self._waker.closed:
            self._waker.send_bytes(b"")
        super().close()
        if not self._thread.is_alive():
            self._waker.close()
            self._heard.close()

    def _bound_ns(self) -> int | None:
        return None

    def _read_all(self) -> str:
        backoff, give_up_s = Backoff(), self._limits.give_up_s
        self._latest_ns = time.monotonic_ns()
        while not self._stop.is_set():
            opened_ns = time.monotonic_ns()
            try:
                with ReadingProcess(replace(self._request, first_ns=self._stamps.first_ns)) as process:
                    return self._read(process)
            except (CameraLost, OSError) as error:  # OSError: no process or handle is to be had just now
                lost = error if isinstance(error, CameraLost) else self._lost(error.strerror or str(error))
                silent_s = (time.monotonic_ns() - self._latest_ns) / 1e9
                if give_up_s is not None and silent_s >= give_up_s:
                    if not self._captured:
                        raise lost from None
                    return "source"
                delay_s = backoff.failed(max(0, self._latest_ns - opened_ns) / 1e9)
                if give_up_s is not None:
                    delay_s = min(delay_s, give_up_s - silent_s)
                self._report(state="lost", lost=f"{lost.what}: {lost.why}")
                log.warning("%s: %s; opening it again in %.1f s", lost.what, lost.why, delay_s)
            self._stop.wait(delay_s)
        return "source"

    def _read(self, process: ReadingProcess) -> str:
        """Put what the process reads into the slot, until it is a file that is over, or we are told to stop.

        Raises:
            CameraLost: hung, frozen, unplugged or dead.
        """
        limit_s, why, first = self._limits.open_s, "it does not open", True
        heard_ns = time.monotonic_ns()
        while not self._stop.is_set():
            left_s = limit_s - (time.monotonic_ns() - heard_ns) / 1e9
            try:
                message = process.receive(max(0.0, left_s), self._heard)
            except EOFError:
                raise self._lost("the reading process died") from None
            if message is None:
                if not self._stop.is_set():
                    raise self._lost(f"{why}: no picture for {limit_s:g} s")
            elif "failed" in message:
                raise CameraLost(**message["failed"])
            elif "over" in message:
                self._slot.lose(message["lost"])
                self._captured += message["lost"]
                if message["over"]:
                    return "eof"
                raise self._lost("it delivers no more frames")
            elif "undecodable" in message:
                self._slot.skip(message["undecodable"])
                self._captured += message["undecodable"]
            else:
                heard_ns = time.monotonic_ns()
                if "places" in message:
                    limit_s, why = self._opened(message), "it hangs"
                    continue
                self._put(process, message)
                if not first and self._still.frozen(message["still_ns"]):
                    raise self._lost(f"its picture is frozen: the same for {message['still_ns'] / 1e9:.1f} s")
                first = False
        return "source"

    def _opened(self, message: Message) -> float:
        """It delivers. Returns for how many seconds it may fall silent."""
        rate, mode = message["rate"], message["mode"]
        self.period_ns = None if rate is None else instant_ns(1, exact_rate(rate))
        self._report(state="running", connections=self._health["connections"] + 1, mode=mode)
        log.info("%s delivers: %s", self.name, describe(mode), extra={"fields": {"mode": mode}})
        asked = {name: getattr(self._request, name) for name in ("width", "height", "fps", "fourcc")}
        for text in refusals(asked, mode):
            log.warning("%s: %s", self.name, text)
        return max(self._limits.stall_s, 4e-9 * (self.period_ns or 0))

    def _put(self, process: ReadingProcess, message: Message) -> None:
        data = process.picture(message)
        t_ns, step_ns = self._stamps.stream_ns(message["t_ns"], time.monotonic_ns())
        if step_ns:
            self._report(clock_steps=self._stamps.steps)
            log.warning("%s: its clock was stepped by %+.3f s; stream time goes on", self.name, step_ns / 1e9)
        begun_ns = self._begun_ns = self._stamps.first_ns
        assert begun_ns is not None
        index = self._captured + message["lost"]
        self._captured, self._latest_ns = index + 1, time.monotonic_ns()
        self._slot.put(Frame(index, t_ns, begun_ns + t_ns, data), message["lost"])

    def _lost(self, why: str) -> CameraLost:
        return CameraLost(f"the camera {self.name} was lost", why, "check its cable or address")

    def _report(self, **news: Any) -> None:
        self._health = {**self._health, **news}  # replaced, not changed: another thread reads it


def describe(mode: dict[str, Any]) -> str:
    """`1280x720, 30 fps, MJPG`, as far as the camera says."""
    size = f"{mode['width']}x{mode['height']}" if mode.get("width") and mode.get("height") else None
    rate = f"{mode['fps']:g} fps" if mode.get("fps") else None
    return ", ".join(filter(None, (size, rate, mode.get("fourcc")))) or "pictures of a mode it does not tell"


def refusals(asked: dict[str, Any], mode: dict[str, Any]) -> list[str]:
    """What was asked for and is not what the camera says it delivers, in words."""
    texts = []
    for name, want in asked.items():
        have = mode.get(name)
        if want is None or have is None:
            continue
        if (abs(want - have) > 0.5) if isinstance(want, (int, float)) else want != have:
            texts.append(f"{name} {want} was asked for, it delivers {have}")
    return texts
