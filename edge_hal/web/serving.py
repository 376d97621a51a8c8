"""Binds the address of a page and serves it until it is stopped."""

from __future__ import annotations

import errno
import signal
import socket as net
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.connection import ConnectionState
from wsproto.events import RejectConnection

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable
from edge_hal.runtime.network.bind_errors import bind_error
from edge_hal.runtime.network.descriptors import raise_limit
from edge_hal.runtime.network.endpoint import is_loopback

CONNECTIONS, MESSAGE_BYTES = 128, 4096
REST_S = 5
UNREAD_LOOKS = 6
"""A peer that has read nothing of an answer at this many looks in a row, `REST_S` apart, is not waited for."""


@dataclass(frozen=True)
class PageAddress:
    """Where a page is served, and its secret.

    Attributes:
        port: 0 takes a free one.
        tls: certificate and key. Without them only loopback addresses are served.
    """

    token: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    tls: tuple[Path, Path] | None = None


class HttpProtocol(H11Protocol):
    """Ends a connection that has sent no whole request for `REST_S`, or at most twice that, and one that does not read
    its answer. Others could not connect while many such are open."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > 2 * CONNECTIONS:  # those beyond `CONNECTIONS` get an answer: 503
            transport.abort()
            return
        self._waited = False
        self._unsent_bytes = self._unread_looks = 0
        self.loop.call_later(REST_S, self._look)

    def _look(self) -> None:
        if self not in self.connections:  # it has ended, or has become a WebSocket
            return
        waits = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        unsent_bytes = self.transport.get_write_buffer_size()
        unread = unsent_bytes > 0 and unsent_bytes == self._unsent_bytes
        self._unread_looks = self._unread_looks + 1 if unread else 0
        if (waits and self._waited and not unsent_bytes) or self._unread_looks >= UNREAD_LOOKS:
            self.transport.abort()
            return
        self._waited, self._unsent_bytes = waits, unsent_bytes
        self.loop.call_later(REST_S, self._look)


class WebSocketProtocol(WSProtocol):
    """Lets the application end a connection whose peer does not read, and answers a request whose headers are no
    text. Without an answer uvicorn would count that connection for ever."""

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except ValueError:  # a header that wsproto decodes
            if self.conn.state is ConnectionState.CONNECTING:
                self.transport.write(self.conn.send(RejectConnection(status_code=400)))
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        self.scope["state"]["abort"] = self.transport.abort  # the task with this scope has not begun


class Listener(net.socket):
    """Goes on where no descriptor is free. Of the error that a socket has then, asyncio logs one line for each
    connection that waits, and starts to listen again as often: soon the event loop does nothing else."""

    def accept(self) -> tuple[net.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise BlockingIOError from error  # asyncio tries again
            raise


def check_address(address: PageAddress) -> None:
    """Raises EdgeHalError if other machines could reach it without TLS."""
    if address.tls is None and not is_loopback(address.host):
        why = "other machines could read the token and what is shown, unencrypted"
        todo = "give --tls-cert and --tls-key, or use an SSH tunnel to 127.0.0.1"
        raise EdgeHalError(f"will not serve on {address.host}", why, todo, exit_code=2)


def serve_page(
    address: PageAddress, application: Callable[[frozenset[str] | None], Any], on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        application: gives the ASGI application for the names that the server answers to, see `Guard`.
        on_ready: called with the address, token included, once it is bound.

    Raises:
        EdgeHalError: the address or a certificate cannot be used; other machines could reach it without TLS.
    """
    check_address(address)
    raise_limit()
    tls = {} if address.tls is None else _tls(*address.tls)
    with _listener(address.host, address.port) as listener:
        port = listener.getsockname()[1]
        shown = f"[{address.host}]" if ":" in address.host else address.host
        hosts = frozenset(("127.0.0.1", "localhost", "[::1]", shown))
        config = uvicorn.Config(
            application(hosts if address.tls is None else None),
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_max_size=MESSAGE_BYTES,
            limit_concurrency=CONNECTIONS,
            backlog=CONNECTIONS,  # so many are accepted at a time
            timeout_keep_alive=REST_S,
            timeout_graceful_shutdown=1,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            log_level="critical",
            **tls,
        )
        scheme = "http" if address.tls is None else "https"
        on_ready(f"{scheme}://{shown}:{port}/#{address.token}")
        _run(uvicorn.Server(config), listener)


def _run(server: uvicorn.Server, listener: net.socket) -> None:
    """Until SIGINT or SIGTERM, which are no failure: uvicorn hands them on to the handlers that were there before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    try:
        for number in before:
            signal.signal(number, stop)
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listener(host: str, port: int) -> Listener:
    address = f"{host}:{port}"
    try:
        place = net.getaddrinfo(host, port, type=net.SOCK_STREAM)[0]
        made = net.create_server(place[4][:2], family=place[0], backlog=CONNECTIONS)
        return Listener(made.family, made.type, made.proto, made.detach())
    except OSError as error:
        raise bind_error(f"cannot serve on {address}", error.errno, address, "--port 0") from error


def _tls(certificate: Path, key: Path) -> dict[str, Any]:
    for path in (certificate, key):
        check_readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        what = f"cannot use the certificate {certificate} with the key {key}"
        raise EdgeHalError(what, str(error), "give PEM files, the key without a passphrase", exit_code=2) from error
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
