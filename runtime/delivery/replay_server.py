"""Past events on request: a ROUTER socket that reads the journal, in a thread of its own.

One request is one JSON object of at most 4 kB, one answer one page. After each the thread rests four times as long as
it worked, so that however many ask, and whatever they ask, recognition keeps the processor; waiting requests stay in
ZeroMQ's bounded queues, which take turns between those who ask.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import SCHEMA

from .curve_keys import ServerKeys
from .endpoint import bind, keep_alive
from .journal import Journal, JournalReader, Page

REQUEST_BYTES = 4096
REQUEST_PARTS = 4
PAGE_EVENTS, PAGE_BYTES = 1000, 256 * 1024
REST = 4.0
"""Seconds of rest for a second of work: at most a fifth of one core."""
WAITING_REQUESTS, WAITING_PAGES = 64, 2
"""What ZeroMQ keeps for one peer: requests it sent and pages it does not read. More is dropped."""
LIMIT = 2**63 - 1
GRACE_S, LONGEST_GRACE_S = 0.5, 3.0


@dataclass(frozen=True)
class Request:
    """`id` comes back in the answer. Either `begin` or `since_ns` is set."""

    id: int | str | None
    begin: int | None
    since_ns: int | None
    limit: int


def parse_request(body: bytes, stream: str) -> Request:
    """Raises EdgeHalError, naming what is wrong. Keys it does not know are ignored."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EdgeHalError("a request is one JSON object") from error
    if not isinstance(asked, dict):
        raise EdgeHalError("a request is one JSON object")
    identity = asked.get("id")
    if not (identity is None or _whole(identity) or (isinstance(identity, str) and len(identity) <= 64)):
        raise EdgeHalError("id must be a whole number or a short string")
    if asked.get("stream", stream) != stream:
        raise EdgeHalError(f"this journal keeps the stream '{stream}'")
    if ("from" in asked) == ("since" in asked):
        raise EdgeHalError("a request has either 'from' or 'since'")
    for name in ("from", "since", "limit"):
        if name in asked and not _whole(asked[name]):
            raise EdgeHalError(f"{name} must be a whole number from 0")
    limit = min(asked.get("limit", PAGE_EVENTS), PAGE_EVENTS)
    return Request(identity, asked.get("from"), asked.get("since"), limit)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LIMIT


class ReplayServer:
    """Answers on `endpoint` out of a journal. `close` it before the context ends.

    Raises:
        EdgeHalError: the address cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        journal: Journal,
        keys: ServerKeys | None = None,
    ) -> None:
        self.refused = 0
        self._grace = False
        self._until_s: float | None = None  # when grace ends
        self._path, self._stream, self._journal_id = journal.path, journal.stream, journal.id
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, WAITING_REQUESTS)
        self._socket.setsockopt(zmq.SNDHWM, WAITING_PAGES)
        self._socket.setsockopt(zmq.LINGER, 0)
        keep_alive(self._socket)
        if keys is not None:
            keys.secure(self._socket)
        try:
            self.endpoint = bind(self._socket, endpoint, "--replay")
        except EdgeHalError:
            self._socket.close()
            raise
        self._stop: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stopped: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop-replay")
        self._stopped.connect("inproc://stop-replay")
        self._thread = threading.Thread(target=self._serve, name="edge-hal-replay", daemon=True)
        self._thread.start()

    def close(self, *, grace: bool) -> None:
        """With `grace`, first answer those who found a hole in the last events, until nobody asks for half a second."""
        self._grace = grace
        self._stop.send(b"")
        self._thread.join()
        self._stop.close(linger=0)

    def _serve(self) -> None:
        reader: JournalReader | None = None
        try:
            while (asked := self._wait()) or not self._stopped.poll(0):
                if not (asked and (parts := self._receive())):
                    continue
                began_s = time.monotonic()
                try:
                    reader = reader or JournalReader(self._path)
                    self._answer(reader, parts)
                except sqlite3.Error as error:
                    self._refuse(parts, None, f"the journal cannot be read: {error}")
                    if reader is not None:
                        reader.close()
                        reader = None
                self._stopped.poll(math.ceil(REST * 1000 * (time.monotonic() - began_s)))
        finally:
            if reader is not None:
                reader.close()
            self._socket.close()
            self._stopped.close()

    def _wait(self) -> bool:
        """Until somebody asks, or it is time to stop: then False."""
        if not self._stopped.poll(0):
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLIN)
            poller.register(self._stopped, zmq.POLLIN)
            if self._socket in dict(poller.poll()):
                return True
        if not self._grace:
            return False
        self._until_s = self._until_s or time.monotonic() + LONGEST_GRACE_S
        left_s = min(GRACE_S, self._until_s - time.monotonic())
        return left_s > 0 and bool(self._socket.poll(round(left_s * 1000)))

    def _receive(self) -> list[bytes]:
        try:
            return self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.ZMQError:  # the peer is gone again
            return []

    def _answer(self, reader: JournalReader, parts: list[bytes]) -> None:
        request = None
        try:
            if not 2 <= len(parts) <= REQUEST_PARTS or any(parts[1:-1]):
                raise EdgeHalError("a request is one JSON object in one part")
            request = parse_request(parts[-1], self._stream)
        except EdgeHalError as error:
            self._refuse(parts, request, error.what)
            return
        begin = request.begin if request.since_ns is None else reader.since(request.since_ns)
        assert begin is not None
        page = reader.page(begin, request.limit, PAGE_BYTES)
        self._send(parts, [self._header(request, page), *page.bodies])

    def _header(self, request: Request, page: Page) -> bytes:
        header = {
            **{"schema": SCHEMA, "id": request.id, "stream": self._stream, "journal": self._journal_id},
            **{"from": page.begin, "count": len(page.bodies), "first": page.first, "next": page.next},
        }
        return json.dumps(header, ensure_ascii=False).encode()

    def _refuse(self, parts: list[bytes], request: Request | None, why: str) -> None:
        self.refused += 1
        self._send(parts, [json.dumps({"schema": SCHEMA, "id": request and request.id, "error": why}).encode()])

    def _send(self, parts: list[bytes], answer: list[bytes]) -> None:
        """Back the way it came: a REQ socket put an empty part before its request, and wants it back."""
        envelope = [parts[0], b""] if len(parts) > 2 and not parts[1] else parts[:1]
        try:
            self._socket.send_multipart([*envelope, *answer], zmq.DONTWAIT)
        except zmq.ZMQError:  # the peer is gone, or does not read
            return
