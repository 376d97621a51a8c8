"""How a run is asked to stop, or to read its bundle again: by a signal, or by whoever started it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Asked for by a signal (or by whoever calls the run); wakes what waits. `reload_asked` reads the bundle again."""

    def __init__(self) -> None:
        self.asked = self.reload_asked = False
        self._wakers: list[Callable[[], None]] = []

    def on_ask(self, waker: Callable[[], None]) -> None:
        self._wakers.append(waker)

    def forget_wakers(self) -> None:
        """What they would wake is closed."""
        self._wakers.clear()

    def ask(self) -> None:
        self.asked = True
        self._wake()

    def ask_reload(self) -> None:
        self.reload_asked = True
        self._wake()

    def _wake(self) -> None:
        for waker in tuple(self._wakers):
            waker()


_early: Stop | None = None


def listen_early() -> None:
    """Listen to signals before a run is imported and opened, which takes seconds. The run ends, or reads its bundle
    again, as soon as it has begun, so that its journal tells of it."""
    global _early
    _early = Stop()
    _install(_early)


def early_stop() -> Stop:
    """What was heard since `listen_early`, if it was called."""
    return _early or Stop()


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask for a stop; the second one ends the process. SIGHUP asks for a reload, and for a stop
    where it says that the terminal is gone. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _install(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.forget_wakers()


def _install(stop: Stop) -> dict[signal.Signals, Any]:
    """Returns the handlers that were installed before."""

    def heard(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            os._exit(128 + number)
        stop.ask()

    attended = os.isatty(0)

    def hung_up(number: int, frame: FrameType | None) -> None:
        if attended and not os.isatty(0):
            heard(number, frame)
        else:
            stop.ask_reload()

    handlers = {signal.SIGINT: heard, signal.SIGTERM: heard, signal.SIGHUP: hung_up}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}
