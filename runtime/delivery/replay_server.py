"""Answers requests for past events: a ROUTER socket and a thread that reads the journals.

A request is one JSON object of at most 4 kB, an answer is one page of events. After each answer the thread rests four
times as long as it worked, so the recognition keeps the processor however many requests come. Requests wait in ZeroMQ's
bounded queues, which serve the clients in turn.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import SCHEMA
from edge_hal.runtime import threads
from edge_hal.runtime.network.connections import REVIEW_S, Connections
from edge_hal.runtime.network.curve_keys import ServerKeys
from edge_hal.runtime.network.endpoint import bind, keep_alive
from edge_hal.runtime.network.monitored_socket import MonitoredSocket

from .journal_reader import JournalReader, Page

REQUEST_BYTES = 4096
REQUEST_PARTS = 4
PAGE_EVENTS, PAGE_BYTES = 1000, 256 * 1024
REST = 4.0
"""Seconds of rest for each second of work: at most a fifth of one core."""
WAITING_REQUESTS, WAITING_PAGES = 64, 2
"""What ZeroMQ keeps for one peer: requests that it sent, and pages that it does not read. More is dropped."""
LIMIT = 2**63 - 1
GRACE_S, LONGEST_GRACE_S = 0.5, 2.0
RESTARTS = 10

log = logging.getLogger("edge_hal.threads")


@dataclass(frozen=True)
class Request:
    """A valid request. `id` is repeated in the answer. Either `begin` or `since_ns` is set."""

    id: int | str | None
    stream: str
    begin: int | None
    since_ns: int | None
    limit: int


class NoSuchStream(EdgeHalError):
    """A request names no stream of this publisher, or it must name one."""

    def __init__(self, what: str, identity: int | str | None) -> None:
        super().__init__(what)
        self.identity = identity


def parse_request(body: bytes, streams: Collection[str]) -> Request:
    """Raises EdgeHalError with what is wrong. Unknown keys are ignored."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EdgeHalError("a request is one JSON object") from error
    if not isinstance(asked, dict):
        raise EdgeHalError("a request is one JSON object")
    identity = asked.get("id")
    if not (identity is None or _whole(identity) or (isinstance(identity, str) and len(identity) <= 64)):
        raise EdgeHalError("id must be a whole number or a short string")
    stream = asked.get("stream", next(iter(streams)) if len(streams) == 1 else None)
    if not (isinstance(stream, str) and stream in streams):
        what = "a request must name one of several streams" if stream is None else "no such stream"
        raise NoSuchStream(f"{what}; this publisher has {', '.join(streams)}", identity)
    if ("from" in asked) == ("since" in asked):
        raise EdgeHalError("a request has either 'from' or 'since'")
    for name in ("from", "since", "limit"):
        if name in asked and not _whole(asked[name]):
            raise EdgeHalError(f"{name} must be a whole number from 0")
    limit = min(asked.get("limit", PAGE_EVENTS), PAGE_EVENTS)
    return Request(identity, stream, asked.get("from"), asked.get("since"), limit)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LIMIT


@dataclass(frozen=True)
class Kept:
    """A journal that can be read, and its identity."""

    path: Path
    id: str


class ReplayServer:
    """Answers on `endpoint` with events of journals. Close it before the context.

    Attributes:
        journals: by stream; None for a stream that is not open yet, or that keeps none. A journal stays here when its
            stream has ended. Any thread may set an entry.
        connections: those to `endpoint`.
        answered: requests that were answered, be it with an error.
        refused: requests that were answered with an error.

    Raises:
        EdgeHalError: the address cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        streams: Collection[str],
        keys: ServerKeys | None = None,
        gave_up: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.refused = 0
        self.answered = 0
        self._grace = False
        self._until_s: float | None = None  # when grace ends
        self._review_s = 0.0  # when the keys are looked at again
        self.journals: dict[str, Kept | None] = dict.fromkeys(streams)
        self._socket = MonitoredSocket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, WAITING_REQUESTS)
        self._socket.setsockopt(zmq.SNDHWM, WAITING_PAGES)
        self._socket.setsockopt(zmq.LINGER, 0)
        keep_alive(self._socket)
        self.connections = Connections(self._socket, keys)
        try:
            if keys is not None:
                keys.secure(self._socket)
            self._address = bind(self._socket, endpoint, "--replay")
            self.connections.bound(self._address)
        except BaseException:
            self._socket.close()
            raise
        self.endpoint = self._address.endpoint
        self._stop: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stopped: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop-replay")
        self._stopped.connect("inproc://stop-replay")
        self._thread = threads.Worker(self._serve, "replay", restarts=RESTARTS, gave_up=gave_up)
        self._thread.start()

    def close(self, *, grace: bool) -> bool:
        """With `grace`, first answer subscribers that miss some of the last events, until none has asked for half a
        second. Returns whether the thread ended."""
        self._grace = grace
        with contextlib.suppress(zmq.Again):
            self._stop.send(b"", zmq.DONTWAIT)
        ended = self._thread.finish()
        if ended:
            for socket in (self._socket, self._stop, self._stopped):
                socket.close(linger=0)
        self._address.release()
        return ended

    def _serve(self) -> None:
        with contextlib.closing(_Readers()) as readers:
            while (asked := self._wait()) or not self._stopped.poll(0):
                if not (asked and (frames := self._receive())):
                    continue
                began_s = time.monotonic()
                self.connections.read()  # before it is asked for the sender
                parts, connection = [frame.bytes for frame in frames], self.connections.sender(frames[-1])
                try:
                    self._answer(readers, parts, connection)
                except Exception as error:  # whatever the request or the journal holds, the next one is answered
                    why = threads.describe(error)
                    log.error("a request for past events could not be answered: %s", why)
                    self._refuse(parts, error=f"the journal cannot be read: {type(error).__name__}")
                    readers.close()
                self.answered += 1
                self._attend(time.monotonic() + REST * (time.monotonic() - began_s))

    def _wait(self) -> bool:
        """Until a request comes (True), or until it is time to stop (False)."""
        if not self._stopped.poll(0) and self._attend(math.inf, self._socket):
            return True
        if not self._grace:
            return False
        self._until_s = self._until_s or time.monotonic() + LONGEST_GRACE_S
        left_s = min(GRACE_S, self._until_s - time.monotonic())
        return left_s > 0 and bool(self._socket.poll(round(left_s * 1000)))

    def _attend(self, until_s: float, *sockets: zmq.Socket[bytes]) -> bool:
        """Follow the connections until then or until it is time to stop (False), or until one of these sockets can be
        read (True)."""
        poller = zmq.Poller()
        for socket in (self._stopped, self.connections.monitor, *sockets):
            poller.register(socket, zmq.POLLIN)
        while True:
            if time.monotonic() >= self._review_s:
                self._review_s = time.monotonic() + REVIEW_S
                self.connections.review()
            left_s = min(until_s, self._review_s) - time.monotonic()
            ready = dict(poller.poll(max(0, math.ceil(1000 * left_s))))
            if self.connections.monitor in ready:
                self.connections.read()
            if any(socket in ready for socket in sockets):
                return True
            if self._stopped in ready or time.monotonic() >= until_s:
                return False

    def _receive(self) -> list[zmq.Frame]:
        try:
            return self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.ZMQError:  # the peer is gone again
            return []

    def _answer(self, readers: _Readers, parts: list[bytes], connection: int | None) -> None:
        streams = list(self.journals)
        try:
            if not 2 <= len(parts) <= REQUEST_PARTS or any(parts[1:-1]):
                raise EdgeHalError("a request is one JSON object in one part")
            request = parse_request(parts[-1], streams)
        except NoSuchStream as error:
            self._refuse(parts, id=error.identity, error=error.what, streams=streams)
            return
        except EdgeHalError as error:
            self._refuse(parts, error=error.what)
            return
        kept = self.journals[request.stream]
        if kept is None:
            self._refuse(parts, id=request.id, error=f"no journal of '{request.stream}' is open")
            return
        if connection is not None:
            self.connections.useful(connection)
        reader = readers.open(request.stream, kept)
        begin = request.begin if request.since_ns is None else reader.since(request.since_ns)
        assert begin is not None
        page = reader.page(begin, request.limit, PAGE_BYTES)
        self._send(parts, [self._header(request, kept, page), *page.bodies])

    def _header(self, request: Request, kept: Kept, page: Page) -> bytes:
        header = {
            **{"schema": SCHEMA, "id": request.id, "stream": request.stream, "journal": kept.id},
            **{"from": page.begin, "count": len(page.bodies), "first": page.first, "next": page.next},
        }
        return json.dumps(header).encode()

    def _refuse(self, parts: list[bytes], **answer: Any) -> None:
        self.refused += 1
        self._send(parts, [json.dumps({"schema": SCHEMA, "id": None, **answer}).encode()])

    def _send(self, parts: list[bytes], answer: list[bytes]) -> None:
        """Send an answer. A REQ socket puts an empty part before its request, and expects one before the answer."""
        envelope = [parts[0], b""] if len(parts) > 2 and not parts[1] else parts[:1]
        try:
            self._socket.send_multipart([*envelope, *answer], zmq.DONTWAIT)
        except zmq.ZMQError:  # the peer is gone, or does not read
            return


class _Readers:
    """Opens a journal at its first request, and again after an error, or when the stream has another one."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Kept, JournalReader]] = {}

    def open(self, stream: str, kept: Kept) -> JournalReader:
        known, reader = self._open.get(stream, (None, None))
        if reader is None or known is not kept:
            if reader is not None:
                self._close(reader)
            reader = JournalReader(kept.path)
            self._open[stream] = kept, reader
        return reader

    def close(self) -> None:
        for _, reader in self._open.values():
            self._close(reader)
        self._open.clear()

    def _close(self, reader: JournalReader) -> None:
        with contextlib.suppress(sqlite3.Error):
            reader.close()
