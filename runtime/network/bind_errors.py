"""Why an address could not be bound, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error

PRIVILEGED = 1024
"""Linux lets only root bind ports below this one (net.ipv4.ip_unprivileged_port_start)."""


def bind_error(what: str, number: int | None, address: str, other: str) -> EdgeHalError:
    """The error that the user reads.

    Args:
        what: its first part.
        number: of the system's error.
        address: `tcp://HOST:PORT`, `HOST:PORT` or `ipc://PATH`.
        other: an option with an address that would do.
    """
    choose = f"choose another address: {other}"
    if address.startswith("ipc://"):
        path = Path(address.removeprefix("ipc://"))
        if number == errno.EADDRINUSE:
            return EdgeHalError(what, "another process uses this address", choose)
        # The file itself may be there and be replaced: its folder decides.
        return file_error(what, OSError(number or 0, os.strerror(number or 0)), choose, path=path.parent)
    host, _, port = re.sub(r"^tcp://", "", address).rpartition(":")
    if number == errno.EADDRINUSE:
        return EdgeHalError(
            what, "another process uses this address", f"see which: ss -ltnp 'sport = :{port}'; {choose}"
        )
    if number in (errno.EACCES, errno.EPERM):
        why = f"permission denied: ports below {PRIVILEGED} are for root"
        return EdgeHalError(what, why, f"{choose}; in a service: AmbientCapabilities=CAP_NET_BIND_SERVICE")
    if number in (errno.EADDRNOTAVAIL, errno.ENODEV):  # the second is libzmq's, for a name that it cannot resolve
        return EdgeHalError(what, f"this machine has no address {host}", f"see its addresses: ip addr; {choose}")
    return EdgeHalError(what, os.strerror(number or 0), choose)
