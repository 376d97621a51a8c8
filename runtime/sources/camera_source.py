"""A camera as a source: a thread watches the process that reads it, and replaces that process when it fails.

A camera that hangs, freezes, is unplugged or does not answer is reported in the log and in heartbeats. It is opened
again, with growing pauses, for ever or until `--give-up`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from multiprocessing.connection import Pipe
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.rate import exact_rate, instant_ns

from .camera_backends import CameraRequest
from .camera_process import Message, ReadingProcess
from .frame import Frame
from .threaded import ThreadedSource
from .watchdog import Backoff, CaptureClock, FreezeLimit, Limits

log = logging.getLogger("edge_hal.camera")


class CameraLost(EdgeHalError):
    """A connection to a camera ended, or could not be made."""


class CameraSource(ThreadedSource):
    """A camera, or a file with faults, read by a process of its own. `Limits` says when that is replaced."""

    live = True

    def __init__(self, request: CameraRequest, limits: Limits) -> None:
        super().__init__(request.source.log_name, None)
        self._request, self._limits = request, limits
        self._clock = CaptureClock()
        self._freeze = FreezeLimit(limits.still_s)
        self._wake_receiver, self._wake_sender = Pipe(duplex=False)
        self._captured = 0
        self._last_frame_ns = 0  # monotonic clock
        self._health: dict[str, Any] = {"state": "opening", "connections": 0, "lost": None, "clock_steps": 0}

    def health(self) -> dict[str, Any]:
        return self._health

    def close(self) -> None:
        self._stop.set()
        if not self._wake_sender.closed:
            self._wake_sender.send_bytes(b"")
        super().close()
        if not self._thread.is_alive():
            self._wake_sender.close()
            self._wake_receiver.close()

    def _time_limit_ns(self) -> int | None:
        return None

    def _read_all(self) -> str:
        backoff, give_up_s = Backoff(), self._limits.give_up_s
        self._last_frame_ns = time.monotonic_ns()
        while not self._stop.is_set():
            opened_ns = time.monotonic_ns()
            try:
                with ReadingProcess(replace(self._request, first_ns=self._clock.first_ns)) as process:
                    return self._read(process)
            except (CameraLost, OSError) as error:  # OSError: no process or file handle is free at the moment
                lost = error if isinstance(error, CameraLost) else self._lost(error.strerror or str(error))
                silent_s = (time.monotonic_ns() - self._last_frame_ns) / 1e9
                if give_up_s is not None and silent_s >= give_up_s:
                    if not self._captured:
                        raise lost from None
                    return "source"
                delay_s = backoff.next_delay_s(max(0, self._last_frame_ns - opened_ns) / 1e9)
                if give_up_s is not None:
                    delay_s = min(delay_s, give_up_s - silent_s)
                told = self._health["lost"] is not None
                self._report(state="lost", lost=f"{lost.what}: {lost.why}")
                advice = "" if told or not lost.todo else f" ({lost.todo})"
                log.warning("%s: %s; opening it again in %.1f s%s", lost.what, lost.why, delay_s, advice)
            self._stop.wait(delay_s)
        return "source"

    def _read(self, process: ReadingProcess) -> str:
        """Put frames into the slot until `close`, or until the end of a file.

        Raises:
            CameraLost: it hangs, is frozen or unplugged, or its process died.
        """
        limit_s, why, first = self._limits.open_s, "it does not open", True
        message_ns = time.monotonic_ns()
        while not self._stop.is_set():
            left_s = limit_s - (time.monotonic_ns() - message_ns) / 1e9
            try:
                message = process.receive(max(0.0, left_s), self._wake_receiver)
            except EOFError:
                raise self._lost("the reading process died") from None
            if message is None:
                if not self._stop.is_set():
                    raise self._lost(f"{why}: no picture for {limit_s:g} s")
            elif "failed" in message:
                raise CameraLost(**message["failed"])
            elif "finished" in message:
                self._slot.add_superseded(message["lost"])
                self._captured += message["lost"]
                if message["finished"]:
                    return "eof"
                raise self._lost("it delivers no more frames")
            elif "undecodable" in message:
                self._slot.add_undecodable(message["undecodable"])
                self._captured += message["undecodable"]
            else:
                message_ns = time.monotonic_ns()
                if "memory_bytes" in message:
                    limit_s, why = self._opened(message), "it hangs"
                    continue
                self._put(process, message)
                if not first and self._freeze.reached(message["unchanged_ns"]):
                    unchanged_s = message["unchanged_ns"] / 1e9
                    raise self._lost(f"its picture is frozen: the same for {unchanged_s:.1f} s")
                first = False
        return "source"

    def _opened(self, message: Message) -> float:
        """The camera delivers. Returns after how many seconds without a frame it counts as hanging."""
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
        t_ns, step_ns = self._clock.stream_ns(message["t_ns"], message["grabbed_ns"])
        if step_ns:
            self._report(clock_steps=self._clock.steps)
            log.warning("%s: its clock was stepped by %+.3f s; stream time goes on", self.name, step_ns / 1e9)
        started_ns = self._started_ns = self._clock.first_ns
        assert started_ns is not None
        index = self._captured + message["lost"]
        self._captured, self._last_frame_ns = index + 1, time.monotonic_ns()
        self._slot.put(Frame(index, t_ns, started_ns + t_ns, data), message["lost"])

    def _lost(self, why: str) -> CameraLost:
        return CameraLost(f"the camera {self.name} was lost", why, "check its cable or address")

    def _report(self, **changes: Any) -> None:
        self._health = {**self._health, **changes}  # a new dict, because another thread reads the old one


def describe(mode: dict[str, Any]) -> str:
    """`1280x720, 30 fps, MJPG`, without what the camera does not report."""
    size = f"{mode['width']}x{mode['height']}" if mode.get("width") and mode.get("height") else None
    rate = f"{mode['fps']:g} fps" if mode.get("fps") else None
    return ", ".join(filter(None, (size, rate, mode.get("fourcc")))) or "pictures; it does not report its mode"


def refusals(asked: dict[str, Any], mode: dict[str, Any]) -> list[str]:
    """One sentence for each setting that was asked for and that the camera does not deliver."""
    texts = []
    for name, wanted in asked.items():
        actual = mode.get(name)
        if wanted is None or actual is None:
            continue
        if (abs(wanted - actual) > 0.5) if isinstance(wanted, (int, float)) else wanted != actual:
            texts.append(f"{name} {wanted} was asked for, it delivers {actual}")
    return texts
