"""How a run is asked to stop, or to read its bundle again: by a signal, or by whoever started it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Asked for by a signal (or by whoever calls the run); wakes what waits. Setting `reload_asked` reads the bundle
    again."""

    def __init__(self) -> None:
        self.asked = self.reload_asked = False
        self._wakers: list[Callable[[], None]] = []

    def on_ask(self, waker: Callable[[], None]) -> None:
        self._wakers.append(waker)

    def ask(self) -> None:
        self.asked = True
        for waker in self._wakers:
            waker()


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask for a stop; the second one ends the process. SIGHUP asks for a reload, and for a stop
    where it says that the terminal is gone. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            os._exit(128 + number)
        stop.ask()

    attended = os.isatty(0)

    def hung_up(number: int, frame: FrameType | None) -> None:
        if attended and not os.isatty(0):
            heard(number, frame)
        else:
            stop.reload_asked = True

    handlers = {signal.SIGINT: heard, signal.SIGTERM: heard, signal.SIGHUP: hung_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
