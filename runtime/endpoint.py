"""Where to publish: which stream names and addresses are good, and why one is not."""

from __future__ import annotations

import ipaddress
import re

import zmq

from edge_hal.errors import EdgeHalError

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"


def check_stream(stream: str) -> None:
    """Raises EdgeHalError unless `stream` can name topics."""
    if not re.fullmatch(r"[^/\s\x00-\x1f]{1,100}", stream):
        why = "it must be 1 to 100 characters without '/' and blanks"
        raise EdgeHalError(f"'{stream}' cannot name a stream", why, "choose another --stream", exit_code=2)


def check_endpoint(endpoint: str, *, insecure: bool) -> None:
    """Raises EdgeHalError where `endpoint` is malformed, or open to other machines without `insecure`."""
    todo = f"use --pub {DEFAULT_ENDPOINT} or --pub ipc:///tmp/edge-hal"
    if re.fullmatch(r"ipc://.+", endpoint):
        return
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:\[\]]+):(\d{1,5}|\*)", endpoint)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise EdgeHalError(f"cannot publish on '{endpoint}'", "it is no endpoint", todo, exit_code=2)
    if not _is_loopback(match[1].strip("[]")) and not insecure:
        raise EdgeHalError(
            f"will not publish on {endpoint}",
            "other machines could read it, unencrypted",
            f"{todo}, or add --insecure where the network is trusted",
            exit_code=2,
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_error(endpoint: str, error: zmq.ZMQError) -> EdgeHalError:
    """What binding to `endpoint` failed on, in words."""
    if error.errno == zmq.EADDRINUSE:
        port = endpoint.rpartition(":")[2]
        todo = f"see who holds it: ss -ltnp 'sport = :{port}'; or choose another: --pub tcp://127.0.0.1:*"
        return EdgeHalError(f"cannot publish on {endpoint}", "another process uses this address", todo)
    return EdgeHalError(f"cannot publish on {endpoint}", str(error.strerror), f"use --pub {DEFAULT_ENDPOINT}")
