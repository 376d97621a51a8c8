"""`python -m edge_hal` is `edge-hal`. The command line takes a second to import, so signals come first."""

from __future__ import annotations

import signal
import sys
from types import FrameType

RETRY_S = 0.01


def _end(number: int, frame: FrameType | None) -> None:
    """End, so that unfinished files are removed. An import is waited for: numpy and torch swallow what is raised inside
    of theirs, or stay half imported."""
    if _imports(frame):
        signal.signal(signal.SIGALRM, lambda _, later: _end(number, later))
        signal.setitimer(signal.ITIMER_REAL, RETRY_S)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        sys.exit(128 + number)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def main() -> None:
    if sys.argv[1:2] in (["run"], ["bridge"]):
        from edge_hal.runtime.stop import listen_early

        listen_early()
    else:
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nobody asked to ignore it
            signal.signal(signal.SIGINT, _end)
    try:
        from edge_hal import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
