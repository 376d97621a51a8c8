"""The other end: a publisher's events in order, holes filled from its journal, positions kept in a file.

The promise, for a publisher that keeps a journal: every durable event within retention comes, once, in the order of
`seq`, across restarts and `kill -9` of either side. Only what was not acknowledged comes again, as the same bytes. What
retention has dropped is told: `Lost`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost, decode, encode

from .cursor import Position, read_cursor, write_cursor
from .curve_keys import ClientKeys
from .endpoint import DEFAULT_ENDPOINT, default_replay, keep_alive
from .handshakes import MONITORED, RefusedHere

log = logging.getLogger("edge_hal")

QUEUE_EVENTS = 10_000
PATIENCE = 10
"""Questions without an answer before a word is said about it."""
RETRY_S = 1.0
"""A question that the publisher did not answer is asked again: it may have been restarted."""


@dataclass(frozen=True)
class Since:
    """Begin with the first event kept at this wall clock, nanoseconds since 1970, or later."""

    utc_ns: int


Begin = Literal["now", "oldest"] | int | Since
"""`now`; the `oldest` event kept; a `seq`; or a time."""


@dataclass(frozen=True)
class _Live:
    """A message as it came. Every durable event before number `until` had been published by then: the message is that
    event, or a report. `kept`: the publisher has a journal."""

    event: Event
    raw: bytes
    until: int
    kept: bool


_monitors = itertools.count()


class Subscription:
    """Iterate over it; leave the `with` block, or `close` it. For one thread.

    `raw` is the JSON of the event last returned, as it was published. `seq` is the number last returned.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str | None,
        *,
        replay: str | None,
        begin: Begin,
        cursor: Path | None,
        timeout_s: float | None,
        keys: ClientKeys | None,
    ) -> None:
        self.raw = b""
        self.endpoint = endpoint
        self._stream, self._begin, self._cursor, self._timeout_s = stream, begin, cursor, timeout_s
        self._next: int | None = None
        self._numbers = ""  # the journal, or without one the session, that `_next` counts in
        self._last: Position | None = None
        self._acknowledged: Position | None = None
        self._asked = 0
        self._heard_s = time.monotonic()
        position = None if cursor is None else read_cursor(cursor)
        if position is not None:
            if stream not in (None, position.stream):
                why = f"it belongs to the stream '{position.stream}'"
                raise EdgeHalError(f"cannot use the cursor {cursor}", why, "use one file for each", exit_code=2)
            self._next, self._numbers = position.seq + 1, position.journal
        self._live: _Live | None = None  # received; waits until everything before it is there
        self._ready: deque[tuple[Event, bytes]] = deque()
        self._now = _connect(zmq.SUB, endpoint, keys, "--connect")
        self._now.setsockopt(zmq.SUBSCRIBE, b"" if stream is None else f"{stream}/".encode())
        self._address = replay or _replay_of(endpoint)
        self._past = _connect(zmq.DEALER, self._address, keys, "--replay")
        self._refused = RefusedHere(endpoint, keys is not None)
        self._refusals = self._now.get_monitor_socket()
        self._poller = zmq.Poller()
        self._poller.register(self._now, zmq.POLLIN)
        self._poller.register(self._refusals, zmq.POLLIN)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Event:
        try:
            while not self._ready:
                self._advance()
        except _Silence:
            raise StopIteration from None
        event, self.raw = self._ready.popleft()
        if event.durable or isinstance(event, Lost):
            seq = event.to if isinstance(event, Lost) else event.seq  # type: ignore[attr-defined]
            self._last = Position(self._numbers, event.stream, seq)
        return event

    def ack(self) -> None:
        """The event last returned has been dealt with: after a restart, the next one comes. Moves the cursor file, if
        there is one.

        Raises:
            EdgeHalError: the file cannot be written.
        """
        if self._cursor is None or self._last is None or self._last == self._acknowledged:
            return
        write_cursor(self._cursor, self._last)
        self._acknowledged = self._last

    def close(self) -> None:
        for socket in (self._now, self._past):
            if not socket.closed:
                socket.disable_monitor()
                socket.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- order -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Make something ready: a page of the hole before the live message, else the message itself, if it is due."""
        live = self._live = self._live or self._receive()
        if self._next is None:
            self._next = self._first(live)
        if self._next < live.until:
            self._ready.extend(self._fill(live))
            return
        self._live = None
        if live.until == self._next:  # else replay has told it, or something newer, already
            self._next += live.event.durable
            self._ready.append((live.event, live.raw))

    def _recognise(self, numbers: str) -> None:
        """Another journal, or another run without one, counts from 0: what was there before can be had no more."""
        if self._numbers not in ("", numbers):
            self._next = 0
        self._numbers = numbers

    def _first(self, live: _Live) -> int:
        """The number to begin with."""
        if isinstance(self._begin, int):
            return self._begin
        if self._begin == "now" or not live.kept:
            return live.until
        if isinstance(self._begin, Since):
            return int(self._ask({"since": self._begin.utc_ns, "limit": 0})[0]["from"])
        return int(self._ask({"from": 0, "limit": 0})[0]["first"])

    def _fill(self, live: _Live) -> Iterator[tuple[Event, bytes]]:
        """One page of the events before the live one, or word that they are lost."""
        assert self._next is not None
        begin, bodies = live.until, list[bytes]()
        if live.kept:
            header, bodies = self._ask({"from": self._next, "limit": live.until - self._next})
            if header["journal"] == self._numbers and bodies:
                begin = min(live.until, header["from"])
        if begin > self._next:
            run = {key: value for key, value in live.event.run.items() if key in ("session", "journal")}
            lost = Lost(live.event.stream, live.event.epoch, from_=self._next, to=begin - 1, run=run)
            self._next = begin
            yield lost, encode(lost)
        for body in bodies if self._next < live.until else ():
            event = decode(body)
            if getattr(event, "seq", None) != self._next:
                raise EdgeHalError(f"the journal of {self.endpoint} skips event {self._next}")
            self._next += 1
            yield event, body

    # --- sockets ---------------------------------------------------------------------------------

    def _receive(self) -> _Live:
        """The next live message. Raises _Silence after `timeout_s`."""
        while True:
            ready = dict(self._poller.poll(self._patience_ms()))
            if not ready:
                raise _Silence
            if self._now in ready:
                break
            self._refused.note(recv_monitor_message(self._refusals))
        parts = self._now.recv_multipart()
        self._heard_s = time.monotonic()
        if len(parts) != 2:
            why = f"its messages have {len(parts)} parts"
            raise EdgeHalError(f"{self.endpoint} is no edge-hal publisher", why, "check --connect")
        event = decode(parts[1])
        until = event.seq if event.durable else event.last_seq + 1  # type: ignore[attr-defined]
        journal = event.run.get("journal")
        self._recognise(str(journal or event.run.get("session")))
        return _Live(event, parts[1], until, journal is not None)

    def _ask(self, question: dict[str, int]) -> tuple[dict[str, Any], list[bytes]]:
        """The answer to one question, asked until it comes. Raises _Silence after `timeout_s`."""
        self._asked += 1
        body = json.dumps({"id": self._asked, **question}).encode()
        attempts = 0
        while True:
            attempts += 1
            if attempts == PATIENCE:
                why = "is the publisher away, or --replay wrong?"
                log.warning("nobody answers about the past on %s: %s", self._address, why)
            with contextlib.suppress(zmq.Again):
                if self._past.poll(self._patience_ms(RETRY_S), zmq.POLLOUT):
                    self._past.send(body, zmq.DONTWAIT)
            asked_s = time.monotonic()
            while (left_s := asked_s + RETRY_S - time.monotonic()) > 0 and self._past.poll(self._patience_ms(left_s)):
                header, bodies = _parse_answer(self._past.recv_multipart(), self.endpoint)
                if header.get("id") == self._asked:
                    self._heard_s = time.monotonic()
                    return header, bodies

    def _patience_ms(self, most_s: float | None = None) -> int | None:
        """How long to wait for a message. Raises _Silence when `timeout_s` is over."""
        if self._timeout_s is None:
            return None if most_s is None else round(most_s * 1000)
        left_s = self._heard_s + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise _Silence
        return round(1000 * (left_s if most_s is None else min(left_s, most_s))) + 1


class _Silence(Exception):
    """Nothing came for as long as the caller would wait."""


def subscribe(
    endpoint: str = DEFAULT_ENDPOINT,
    stream: str | None = None,
    *,
    replay: str | None = None,
    begin: Begin = "now",
    cursor: Path | None = None,
    timeout_s: float | None = None,
    keys: ClientKeys | None = None,
) -> Subscription:
    """The events of a publisher, in order. It need not be there yet.

    Args:
        stream: None takes what the endpoint publishes.
        replay: where the publisher answers about the past; default the next port, or `.replay`.
        begin: where to begin; with a `cursor` that exists, it alone decides.
        cursor: a file that `ack` keeps the position in.
        timeout_s: end after so long without an event; default never.
        keys: encrypt, and know the publisher by its key.

    Raises:
        EdgeHalError: an endpoint is malformed, the cursor cannot be read; while iterating, something that is no
            edge-hal publisher answers.
    """
    return Subscription(endpoint, stream, replay=replay, begin=begin, cursor=cursor, timeout_s=timeout_s, keys=keys)


def _connect(kind: int, endpoint: str, keys: ClientKeys | None, option: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)  # shared: an abandoned subscription must not end it
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, QUEUE_EVENTS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    keep_alive(socket)
    if kind == zmq.DEALER:
        socket.setsockopt(zmq.IMMEDIATE, 1)  # questions do not pile up for a publisher that is away
    if keys is not None:
        keys.secure(socket)
    # Its own name: the usual one is that of the file descriptor, which a socket just dropped may not have let go yet.
    socket.get_monitor_socket(MONITORED, addr=f"inproc://edge-hal-monitor-{next(_monitors)}")
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        todo = f"use {option} {DEFAULT_ENDPOINT}"
        raise EdgeHalError(f"cannot connect to '{endpoint}'", str(error.strerror), todo) from error
    return socket


def _replay_of(endpoint: str) -> str:
    with contextlib.suppress(EdgeHalError):  # then connecting to the endpoint itself has failed, or it has no next port
        return default_replay(endpoint)
    return endpoint


def _parse_answer(parts: list[bytes], endpoint: str) -> tuple[dict[str, Any], list[bytes]]:
    try:
        header = json.loads(parts[0])
        if "error" in header:
            return {}, []  # asked again: only a journal that cannot be read just now refuses what we ask
        numbers = {key: int(header[key]) for key in ("from", "first", "next")}
        return {"id": header["id"], "journal": header["journal"], **numbers}, parts[1:]
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeHalError(f"what answers for {endpoint} is no edge-hal publisher", "", "check --replay") from error
