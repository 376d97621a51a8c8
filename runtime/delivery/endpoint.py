"""Where to publish: which stream names and addresses are good, and why one is not."""

from __future__ import annotations

import ipaddress
import re

import zmq

from edge_hal.errors import EdgeHalError

from .bind_errors import bind_error

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"


def check_stream(stream: str) -> None:
    """Raises EdgeHalError unless `stream` can name topics."""
    if not re.fullmatch(r"[^/\s\x00-\x1f]{1,100}", stream):
        why = "it must be 1 to 100 characters without '/' and blanks"
        raise EdgeHalError(f"'{stream}' cannot name a stream", why, "choose another --stream", exit_code=2)


def check_endpoint(endpoint: str, *, insecure: bool = False, encrypted: bool = False) -> None:
    """Raises EdgeHalError where `endpoint` is malformed, or open to other machines neither `encrypted` nor with
    `insecure`."""
    todo = f"use {DEFAULT_ENDPOINT} or ipc:///tmp/edge-hal"
    if re.fullmatch(r"ipc://.+", endpoint):
        return
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:\[\]]+):(\d{1,5}|\*)", endpoint)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise EdgeHalError(f"cannot publish on '{endpoint}'", "it is no endpoint", todo, exit_code=2)
    if not (is_loopback(match[1].strip("[]")) or insecure or encrypted):
        raise EdgeHalError(
            f"will not publish on {endpoint}",
            "other machines could read it, unencrypted",
            f"{todo}, encrypt with --key FILE (edge-hal keys new), or add --insecure where the network is trusted",
            exit_code=2,
        )


def default_replay(endpoint: str) -> str:
    """Where past events are asked for, unless told: the next port, `.replay` for ipc.

    Raises:
        EdgeHalError: there is no next port.
    """
    if endpoint.startswith("ipc://"):
        return f"{endpoint}.replay"
    host, _, port = endpoint.rpartition(":")
    if port == "*":
        return endpoint
    if not port.isdigit() or int(port) >= 65535:
        raise EdgeHalError(f"no port follows '{endpoint}'", "", "choose one with --replay", exit_code=2)
    return f"{host}:{int(port) + 1}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Notice within half a minute that the other end has vanished, and free what was kept for it.

    By the kernel's probes: ZeroMQ's own heartbeats abort the process (libzmq 4.3.5, `!_io_error`) when a peer leaves
    whose messages have been left waiting.
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)


def bind(socket: zmq.Socket[bytes], endpoint: str, option: str) -> str:
    """Bind, and say where: a `*` has become a port. `option` is the one that chose the address.

    Raises:
        EdgeHalError: the address is taken, or none of this machine.
    """
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        other = f"{option} tcp://127.0.0.1:*"
        raise bind_error(f"cannot publish on {endpoint}", error.errno, endpoint, other) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
