"""Names of streams and addresses to publish on: check them, and bind a socket."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import socket as net
import stat

import zmq

from edge_hal.errors import EdgeHalError

from .bind_errors import bind_error

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"
LOCAL = f"use {DEFAULT_ENDPOINT} or ipc:///tmp/edge-hal"
LONGEST_PATH_BYTES = 107
"""The longest path in an address `ipc://PATH`: Linux's limit (`sun_path` in unix(7))."""
EVENT_BYTES = 256_000
"""The largest event. A subscriber ends the connection to a publisher that sends more, and replay omits it."""


def check_stream(stream: str) -> None:
    """Raises EdgeHalError unless `stream` can name topics."""
    if not re.fullmatch(r"[^/\s\x00-\x1f\ud800-\udfff]{1,100}", stream):  # the last: bytes that are no UTF-8
        why = "it must be 1 to 100 characters of UTF-8 without '/' and blanks"
        raise EdgeHalError(f"'{stream}' cannot name a stream", why, "choose another --stream", exit_code=2)


def check_endpoint(endpoint: str, *, insecure: bool = False, encrypted: bool = False) -> None:
    """Raises EdgeHalError if `endpoint` is malformed, or if other machines can reach it and it is neither `encrypted`
    nor allowed by `insecure`."""
    if not (_reaches_this_machine_only(endpoint) or insecure or encrypted):
        raise _open_to_others(
            endpoint, f"{LOCAL}, encrypt with --key FILE (edge-hal keys new), or add --insecure on a trusted network"
        )


def check_local(endpoint: str) -> None:
    """Raises EdgeHalError if `endpoint` is malformed, or if other machines can reach it. For a command that has neither
    --key nor --insecure."""
    if not _reaches_this_machine_only(endpoint):
        raise _open_to_others(endpoint, LOCAL)


def _reaches_this_machine_only(endpoint: str) -> bool:
    """Raises EdgeHalError if `endpoint` is malformed."""
    host_port = _host_port(endpoint)
    return host_port is None or is_loopback(host_port[0].strip("[]"))


def _host_port(endpoint: str) -> tuple[str, str] | None:
    """The host and the port of an address; None for `ipc://`. Raises EdgeHalError if `endpoint` is malformed."""
    if re.fullmatch(r"ipc://(?!\*$)[^\ud800-\udfff\n]+", endpoint):  # for `ipc://*` libzmq makes a folder of its own
        return None
    match = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5}|\*)", endpoint)
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise EdgeHalError(f"cannot publish on '{endpoint}'", "it is not an address", LOCAL, exit_code=2)
    return match[1], match[2]


def _open_to_others(endpoint: str, todo: str) -> EdgeHalError:
    return EdgeHalError(
        f"will not publish on {endpoint}", "other machines could read it, unencrypted", todo, exit_code=2
    )


def default_replay(endpoint: str) -> str:
    """The default address for requests of past events: the next port, or `.replay` for ipc.

    Raises:
        EdgeHalError: `endpoint` is malformed, or there is no next port.
    """
    host_port = _host_port(endpoint)
    if host_port is None:
        return f"{endpoint}.replay"
    host, port = host_port
    if port == "*" or int(port) == 0:  # both mean any free port
        return endpoint
    if int(port) == 65535:
        raise EdgeHalError(f"no port follows '{endpoint}'", "", "choose one with --replay", exit_code=2)
    return f"tcp://{host}:{int(port) + 1}"


def replay_address(endpoint: str, replay: str | None, *, kept: bool) -> str | None:
    """Where past events of a publisher at `endpoint` are requested. `kept`: it keeps a journal.

    Raises:
        EdgeHalError: `replay` was given although nothing is kept, or no port follows `endpoint`.
    """
    if not kept and replay is not None:
        todo = "add --journal FILE, or omit --replay"
        raise EdgeHalError("past events cannot be requested", "this run keeps no journal", todo, exit_code=2)
    return (replay or default_replay(endpoint)) if kept else None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allow_ipv6(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Let the socket use IPv6 if the address is one of IPv6. Call it before the socket is bound or connected."""
    if endpoint.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Detect within half a minute that a peer has vanished, and free what was kept for it.

    The kernel probes the connection. ZeroMQ's own heartbeats abort the process (libzmq 4.3.5, `!_io_error`) when a peer
    leaves while its messages wait.
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)


class BoundAddress:
    """An address that a socket is bound to. For `ipc://` it also holds the lock that keeps another run away."""

    def __init__(self, endpoint: str, lock: int | None) -> None:
        self.endpoint = endpoint
        self._lock = lock

    def accepted(self, connection: net.socket) -> bool:
        """Whether this is a connection that was accepted on this address."""
        if connection.getsockopt(net.SOL_SOCKET, net.SO_ACCEPTCONN):
            return False
        name = connection.getsockname()
        if connection.family == net.AF_UNIX:
            shown = os.fsdecode(name).replace("\0", "@", 1)
            return self.endpoint == f"ipc://{shown}"
        return isinstance(name, tuple) and self.endpoint.endswith(f":{name[1]}")

    def release(self) -> None:
        """Let another run bind it. Call after the socket was closed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def bind(socket: zmq.Socket[bytes], endpoint: str, option: str) -> BoundAddress:
    """Bind a socket. In the address returned a `*` has become a port. `option` is the one that chose the address.

    Raises:
        EdgeHalError: the address is in use, is not one of this machine, or is a file that is no socket.
    """
    lock = None
    if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
        lock = _lock_path(endpoint.removeprefix("ipc://"), option)
    try:
        allow_ipv6(socket, endpoint)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if lock is not None:
            os.close(lock)
        other = f"{option} tcp://127.0.0.1:*"
        raise bind_error(f"cannot publish on {endpoint}", error.errno, endpoint, other) from error
    return BoundAddress(socket.getsockopt_string(zmq.LAST_ENDPOINT), lock)


def _lock_path(path: str, option: str) -> int:
    """Lock the path of an ipc address. libzmq deletes whatever has that name before it binds, so nothing but a socket
    that nobody listens on may be there.

    Raises:
        EdgeHalError: the path is in use, or is no socket.
    """
    what, todo = f"cannot publish on ipc://{path}", f"choose another address: {option} ipc://PATH"
    if len(os.fsencode(path)) > LONGEST_PATH_BYTES:  # else the lock would be left behind
        why = f"the path of a socket has at most {LONGEST_PATH_BYTES} bytes, this one has {len(os.fsencode(path))}"
        raise EdgeHalError(what, why, f"choose a shorter path: {option} ipc://PATH", exit_code=2)
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise bind_error(what, error.errno, f"ipc://{path}", f"{option} ipc://PATH") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise EdgeHalError(what, "a file that is no socket has this name", todo, exit_code=2)
            with net.socket(net.AF_UNIX, net.SOCK_STREAM) as probe:
                probe.setblocking(False)
                if probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT):
                    raise EdgeHalError(what, "another process uses this address", todo)
    except OSError as error:
        os.close(lock)
        used = isinstance(error, BlockingIOError)
        raise EdgeHalError(what, "another process uses this address" if used else str(error), todo) from error
    except EdgeHalError:
        os.close(lock)
        raise
    return lock
