"""`python -m edge_hal` is `edge-hal`. The command line takes a second to import, so signals come first."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

RETRY_S = 0.01


class Ending:
    """A signal ends the command: what is raised leaves it, so that unfinished files are removed.

    Attributes:
        number: a signal that has come and has not ended the command yet.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._show = sys.unraisablehook

    def listen(self) -> None:
        signal.signal(signal.SIGALRM, self._again)
        signal.signal(signal.SIGTERM, self._heard)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nobody asked to ignore it
            signal.signal(signal.SIGINT, self._heard)
        sys.unraisablehook = self._swallowed
        atexit.register(self._at_the_end)  # what is registered first is called last

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and not _in_command(frame):
            os._exit(128 + number)  # the second one does not wait for threads and callbacks that end the process
        self._end(number, frame)

    def _again(self, _alarm: int, frame: FrameType | None) -> None:
        if self.number is not None:
            self._end(self.number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """An import is waited for: numpy and torch swallow what is raised inside of theirs, or stay half imported.
        Outside of the command nothing is raised, because nobody would catch it."""
        if not _in_command(frame) or _imports(frame):
            self._later(number)
            return
        self.number = None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def _later(self, number: int) -> None:
        self.number = number
        signal.setitimer(signal.ITIMER_REAL, RETRY_S)

    def _swallowed(self, told: UnraisableHookArgs) -> None:
        """Python calls this for what is raised inside of a callback, of a weak reference for example, and goes on."""
        error = told.exc_value
        if isinstance(error, KeyboardInterrupt):
            self._later(signal.SIGINT)
        elif isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            self._later(signal.SIGTERM)
        else:
            self._show(told)

    def _at_the_end(self) -> None:
        """Python puts back the default of each handler when it ends: an alarm would kill it, and so would a signal."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self.number is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or there is none
                    stream.flush()
            os._exit(128 + self.number)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _in_command(frame: FrameType | None) -> bool:
    """Whether `main` has called what is interrupted."""
    before = None if frame is None else frame.f_back
    while before is not None:
        if before.f_code is main.__code__:
            return True
        before = before.f_back
    return False


def main() -> None:
    if sys.argv[1:2] in (["run"], ["bridge"]):
        from edge_hal.runtime.stop import listen_early

        listen_early()
    else:
        Ending().listen()
    try:
        from edge_hal import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
