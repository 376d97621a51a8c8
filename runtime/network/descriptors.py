"""Descriptors of this process: connections take them, and a camera needs some to be opened again."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from edge_hal.errors import EdgeHalError

MOST = 65_536
LEAST = 64
"""One stream without connections opens about 40."""
RESERVED = 128
"""Left to the run itself: sockets, journal, recordings, and the process that reads the camera."""
SHARE = 3
"""Connections to the event, the replay and the HTTP address may each take one part of the rest."""
COUNT_S = 1.0


def raise_limit() -> None:
    """Raise the soft limit to the hard one, at most to 65 536.

    Raises:
        EdgeHalError: the hard one is too low. libzmq would end the process, or wait for ever.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if limit() < LEAST:
        what, why = f"this process may open {limit()} files", f"it needs at least {LEAST}"
        raise EdgeHalError(what, why, "raise the limit: `ulimit -n 1024`, or LimitNOFILE=1024 for systemd")


def limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else soft


def most_connections(wanted: int) -> int:
    """How many connections one address may have, so that the reserve stays free."""
    return max(1, min(wanted, (limit() - RESERVED) // SHARE))


class Descriptors:
    """What `health` tells: how many are open, and how many may be. Counted once a second."""

    def __init__(self) -> None:
        self._counted_s = -COUNT_S
        self._health: dict[str, Any] = {}

    def health(self) -> dict[str, Any]:
        now_s = time.monotonic()
        if now_s - self._counted_s >= COUNT_S:
            self._counted_s, self._health = now_s, {"open": _open(), "limit": limit(), "reserved": RESERVED}
        return self._health


def _open() -> int | None:
    """None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return None
