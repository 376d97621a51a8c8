"""Posts each event to an address, signed, and waits for the answer.

The body is the event's JSON as it was published. Three headers: `Edge-Hal-Event` names it (`journal/stream/seq`, the
stream percent-encoded), `Edge-Hal-Timestamp` is the time of sending in seconds since 1970, and `Edge-Hal-Signature` is
`sha256=` and the HMAC-SHA256, in hex, of the time stamp, a full stop and the body (RFC 2104). Who checks both accepts
neither events of others nor old requests that are sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.redaction import redact

from .bridge import Delivery, Identity, Unavailable
from .tls import client_context

log = logging.getLogger("edge_hal")

TIMEOUT_S = 10.0
LONGEST_S = 30.0
"""Limit of a whole request. `TIMEOUT_S` limits only the wait for each part of an answer, however small."""
LONGEST_ANSWER = 1 << 16
LONGEST_RETRY_AFTER_S = 300
TRY_AGAIN = (408, 425, 429)
"""Status codes besides 5xx with which a server asks for another try."""


@dataclass
class Webhook:
    """A target that posts events. Requests follow each other, so events arrive in order.

    Attributes:
        url: `http://` or `https://`.
        secret: the key of the signatures.
        ca: a file with the certificates to trust, for `https://`; None: those of the system.
        types: the types of events to post; None: all durable ones.
        skip_refused: leave out an event that the server refuses, with a warning. Otherwise it ends the bridge.

    Raises:
        EdgeHalError: `url` is no address, or `ca` cannot be used.
    """

    url: str
    secret: str
    ca: Path | None = None
    types: Collection[str] | None = None
    skip_refused: bool = False
    _connection: http.client.HTTPConnection | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
            parts.path.encode("ascii")
        except ValueError as error:
            raise self._malformed(str(error)) from error
        if parts.scheme not in ("http", "https") or not host:
            raise self._malformed("it must begin with http:// or https://, and name a host")
        if parts.username is not None:
            raise self._malformed("it has a user; the receiver knows us by the signature")
        if any(not " " < c < "\x7f" for c in self.url):
            raise self._malformed("it has characters that must be percent-encoded")
        if self.ca is not None and parts.scheme != "https":
            raise EdgeHalError("--ca without https://", "there is no certificate to check", "use https://", exit_code=2)
        self._context = client_context(self.ca) if parts.scheme == "https" else None
        self._host, self._port = host, port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.shown = redact(self.url)

    def open(self) -> None:
        """Nothing: the first event connects."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            if self.types is None or delivery.event.type in self.types:
                self._post(delivery)

    def report(self, event: Event, raw: bytes) -> None:
        """Nothing: reports are not posted."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, delivery: Delivery) -> None:
        kept_alive = self._connection is not None
        try:
            status, answer = self._answer(delivery)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise EdgeHalError(
                    f"{self.shown} has no certificate to trust", error.verify_message, "see --ca"
                ) from error
            if kept_alive and isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                return self._post(delivery)  # the server has ended a connection that it kept for us
            why = str(error) or type(error).__name__
            raise Unavailable(f"cannot post to {self.shown}: {why}") from error
        if 200 <= status < 300:
            return
        what = f"{self.shown} answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status >= 500 or status in TRY_AGAIN:
            raise Unavailable(what, _pause_s(answer))
        name = f"event {name_of(delivery.identity)}, {delivery.event.type}"
        if not self.skip_refused:
            todo = "correct the address, the secret or the receiver; --skip-refused leaves such events out"
            raise EdgeHalError(f"{what} to {name}", "the event stays unacknowledged", todo)
        log.warning("%s to %s: left out", what, name)

    def _answer(self, delivery: Delivery) -> tuple[int, http.client.HTTPResponse]:
        if self._connection is None:
            if self._context is None:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
            else:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=TIMEOUT_S, context=self._context
                )
        stamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"edge-hal/{__version__}",
            "Edge-Hal-Event": name_of(delivery.identity),
            "Edge-Hal-Timestamp": stamp,
            "Edge-Hal-Signature": signature(self.secret, stamp, delivery.raw),
        }
        with _ended_after(self._connection, LONGEST_S):
            self._connection.request("POST", self._path, delivery.raw, headers)
            answer = self._connection.getresponse()
            ends_s, left = time.monotonic() + TIMEOUT_S, LONGEST_ANSWER
            while left and time.monotonic() < ends_s and (part := answer.read1(left)):
                left -= len(part)
            if answer.length == 0:
                answer.read()  # tells the connection that the answer is whole
        if not answer.isclosed() or answer.will_close:  # there is more, which nobody needs
            self.close()
        return answer.status, answer

    def _malformed(self, why: str) -> EdgeHalError:
        return EdgeHalError(f"cannot post to '{redact(self.url)}'", why, "write https://host/path", exit_code=2)


@contextlib.contextmanager
def _ended_after(connection: http.client.HTTPConnection, longest_s: float) -> Iterator[None]:
    """Ends the connection when the block takes longer, so that what waits for it fails."""

    def end() -> None:
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # that of TLS would change what is read

    timer = threading.Timer(longest_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def signature(secret: str, stamp: str, body: bytes) -> str:
    """The value of `Edge-Hal-Signature`."""
    digest = hmac.new(secret.encode("utf-8", "surrogateescape"), stamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def name_of(identity: Identity) -> str:
    """The value of `Edge-Hal-Event`, in ASCII."""
    return f"{quote(identity.journal[:100], safe='')}/{quote(identity.stream[:100], safe='')}/{identity.seq}"


def _pause_s(answer: http.client.HTTPResponse) -> float | None:
    """How long the server asks to wait. Only seconds are understood, and not more than five minutes."""
    with contextlib.suppress(ValueError):
        return float(min(LONGEST_RETRY_AFTER_S, max(0, int(answer.headers.get("Retry-After", "")))))
    return None
