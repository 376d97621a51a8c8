"""`python -m edge_hal` is `edge-hal`. The command line takes a second to import, so signals come first."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def _end(number: int, frame: object) -> NoReturn:
    """End as at Ctrl-C, so that unfinished files are removed."""
    sys.exit(128 + number)


def main() -> None:
    if sys.argv[1:2] in (["run"], ["bridge"]):
        from edge_hal.runtime.stop import listen_early

        listen_early()
    else:
        signal.signal(signal.SIGTERM, _end)
    from edge_hal import cli

    cli.main()


if __name__ == "__main__":
    main()
