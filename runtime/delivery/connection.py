"""A subscriber's two sockets: one receives live messages, one asks for past events.

Nothing that a publisher sends is trusted: the size and number of messages are limited, and each is checked before use.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import time
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Unknown, decode
from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.runtime.network.endpoint import (
    DEFAULT_ENDPOINT,
    EVENT_BYTES,
    allow_ipv6,
    check_stream,
    default_replay,
    keep_alive,
)
from edge_hal.runtime.network.handshakes import MONITORED, RefusedHere
from edge_hal.runtime.network.monitored_socket import MonitoredSocket

log = logging.getLogger("edge_hal")

WAITING_MESSAGES, WAITING_ANSWERS = 1000, 2
"""Messages kept here until they are read: 256 MB at most, about 1 MB of usual ones. More wait at the publisher, and are
gone when it ends."""
ANSWER_PARTS, ANSWER_BYTES = 1001, 8 * EVENT_BYTES
PATIENCE = 10
"""Requests without an answer before a warning is logged."""
RETRY_S = 1.0
"""A request without an answer is sent again: the publisher may have been restarted."""
SILENT_S = 10.0
"""The log warns once if no message has come for this long after the start. A run sends a heartbeat each second."""
LARGEST_SEQ = 2**62


@dataclass(frozen=True)
class LiveMessage:
    """A message as it was received. Every durable event before number `until` was published before it: the message is
    event `until`, or a report. `numbers`: the journal that `until` counts in, without one the session. `kept`: the
    publisher has a journal."""

    event: Event
    raw: bytes
    until: int
    numbers: str
    kept: bool


@dataclass(frozen=True)
class Answer:
    """A page of past events from number `begin` on; the journal holds `first` and what follows."""

    journal: str | None
    first: int
    begin: int
    bodies: list[bytes]


class Unavailable(Exception):
    """The journal of a stream cannot be read at present, or what answers does not have it."""


class Silence(Exception):
    """No message came for as long as the caller waits."""


class Connection:
    """For one thread.

    Args:
        timeout_s: `receive` and `ask` raise Silence after so long without a message; None: they wait for ever.

    Raises:
        EdgeHalError: an address or the name of the stream is malformed.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str | None,
        replay: str | None,
        timeout_s: float | None,
        keys: ClientKeys | None,
    ) -> None:
        if stream is not None:
            check_stream(stream)
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._asked = 0
        self._heard_s = time.monotonic()
        self._silent_until_s: float | None = self._heard_s + SILENT_S  # None: it was told, or something came
        self._stream = stream
        self._address = replay or _replay_of(endpoint)
        self._live, self._past = _open(zmq.SUB, keys), _open(zmq.DEALER, keys)
        self._refused = RefusedHere(endpoint, keys is not None)
        self._monitor = self._live.watch(MONITORED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        self._ended_s: float | None = None  # when the live connection ended
        self._live.setsockopt(zmq.SUBSCRIBE, b"" if stream is None else f"{stream}/".encode())
        try:
            _connect(self._live, endpoint, "--connect")
            _connect(self._past, self._address, "--replay")
        except EdgeHalError:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._live, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def close(self) -> None:
        self._live.close()
        self._past.close()

    def waiting(self) -> bool:
        """Whether a live message is here already."""
        return bool(self._live.poll(0))

    def _tell_silence(self) -> None:
        if self._silent_until_s is not None and time.monotonic() > self._silent_until_s:
            self._silent_until_s = None
            of = "" if self._stream is None else f" of the stream '{self._stream}'"
            log.warning("nothing%s comes from %s so far: does a run publish there? still waiting", of, self.endpoint)

    def receive(self) -> LiveMessage:
        """The next live message.

        Raises:
            Silence: none came in time.
            EdgeHalError: the publisher refuses the key, or it is no edge-hal publisher.
        """
        event: Event | None = None
        while event is None or _is_unknown_report(event):
            while self._live not in dict(self._poller.poll(self._patience_ms(RETRY_S))):
                self._follow_connection()
                self._tell_silence()
            self._silent_until_s = None
            parts = _receive_parts(self._live, 2)
            self._heard_s = time.monotonic()
            if len(parts) != 2:
                raise self._stranger("its messages do not have two parts")
            event = decode(parts[1])
        numbered = event.durable or hasattr(event, "last_seq")
        until = event.seq if event.durable else getattr(event, "last_seq", -1) + 1  # type: ignore[attr-defined]
        journal, session = (event.run.get(name) for name in ("journal", "session"))
        numbers = session if journal is None else journal
        if not (numbered and 0 <= until <= LARGEST_SEQ and isinstance(numbers, (str, type(None)))):
            raise self._stranger("its events have no usable numbers")
        return LiveMessage(event, parts[1], until, str(numbers), journal is not None)

    def _follow_connection(self) -> None:
        """Raise EdgeHalError if the publisher refuses the connection. Connect again if it ended and libzmq does not: it
        gives up after a message that is too large."""
        with contextlib.suppress(zmq.Again):
            while True:
                message = recv_monitor_message(self._monitor, zmq.DONTWAIT)
                if message["event"] in (zmq.EVENT_CONNECTED, zmq.EVENT_DISCONNECTED):
                    self._ended_s = None if message["event"] == zmq.EVENT_CONNECTED else time.monotonic()
                else:
                    self._refused.note(message)
        if self._ended_s is not None and time.monotonic() - self._ended_s >= RETRY_S:
            self._ended_s = time.monotonic()
            _connect_again(self._live, self.endpoint)

    def ask(self, stream: str, *, tries: float, **question: int) -> Answer:
        """The answer to a question about a stream, which is sent again until the answer comes. A stream that the
        publisher does not have any more has no journal and no events.

        Args:
            tries: how often the publisher may answer that it cannot read the journal at present.

        Raises:
            Unavailable: it has answered so `tries` times.
            Silence: none came in time.
            EdgeHalError: what answers is no edge-hal publisher.
        """
        self._asked += 1
        question = {key.rstrip("_"): value for key, value in question.items()}
        body = json.dumps({"id": self._asked, "stream": stream, **question}).encode()
        for attempt in itertools.count(1):
            if attempt == PATIENCE:
                why = "is the publisher stopped, or is --replay wrong?"
                log.warning("no answer to requests for past events on %s: %s", self._address, why)
            if attempt % PATIENCE == 0:
                _connect_again(self._past, self._address)
            with contextlib.suppress(zmq.Again):
                if self._past.poll(self._patience_ms(RETRY_S), zmq.POLLOUT):
                    self._past.send(body, zmq.DONTWAIT)
            asked_s = time.monotonic()
            while (left_s := asked_s + RETRY_S - time.monotonic()) > 0 and self._past.poll(self._patience_ms(left_s)):
                try:
                    answer = self._parse(_receive_parts(self._past, ANSWER_PARTS))
                except Unavailable:
                    tries -= 1
                    if tries <= 0:
                        raise
                    continue
                if answer is not None:
                    self._heard_s = time.monotonic()
                    return answer
        raise AssertionError("unreachable")

    def _parse(self, parts: list[bytes]) -> Answer | None:
        """None for the answer to another question. Raises Unavailable for an error, which is temporary."""
        try:
            header = json.loads(parts[0])
            if header["id"] == self._asked and "streams" in header:
                return Answer(None, 0, 0, [])
            if "error" in header:
                raise Unavailable
            if header["id"] != self._asked:
                return None
            first, begin, journal = header["first"], header["from"], header["journal"]
            good = all(isinstance(number, int) and 0 <= number <= LARGEST_SEQ + 1 for number in (first, begin))
            if not good or not isinstance(journal, (str, type(None))):
                raise ValueError
        except (IndexError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise EdgeHalError(
                f"what answers for {self.endpoint} is no edge-hal publisher", "", "check --replay"
            ) from error
        return Answer(journal, first, begin, parts[1:])

    def _stranger(self, why: str) -> EdgeHalError:
        return EdgeHalError(f"{self.endpoint} is no edge-hal publisher", why, "check --connect")

    def _patience_ms(self, most_s: float | None = None) -> int | None:
        """How long to wait for a message. Raises Silence when `timeout_s` is over."""
        if self._timeout_s is None:
            return None if most_s is None else round(most_s * 1000)
        left_s = self._heard_s + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise Silence
        return round(1000 * (left_s if most_s is None else min(left_s, most_s))) + 1


def _is_unknown_report(event: Event) -> bool:
    """Whether a newer publisher sent a report of a type that this version does not know. It has no number."""
    return isinstance(event, Unknown) and event.seq < 0


def _receive_parts(socket: zmq.Socket[bytes], most: int) -> list[bytes]:
    """The parts of one message. Of a message with too many parts or bytes, what is too much is dropped."""
    parts, size = [socket.recv()], 0
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv()
        size += len(part)
        if len(parts) <= most and size <= ANSWER_BYTES:
            parts.append(part)
    return parts


def _open(kind: int, keys: ClientKeys | None) -> MonitoredSocket:
    socket = MonitoredSocket(zmq.Context.instance(), kind)  # shared: an abandoned subscription must not end it
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, WAITING_ANSWERS if kind == zmq.DEALER else WAITING_MESSAGES)
    socket.setsockopt(zmq.MAXMSGSIZE, EVENT_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    keep_alive(socket)
    if kind == zmq.DEALER:
        socket.setsockopt(zmq.IMMEDIATE, 1)  # questions do not pile up for a publisher that is away
    if keys is not None:
        keys.secure(socket)
    return socket


def _connect(socket: zmq.Socket[bytes], endpoint: str, option: str) -> None:
    todo = f"use {option} {DEFAULT_ENDPOINT}"
    if not re.fullmatch(r"(tcp|ipc)://[^\ud800-\udfff]+", endpoint):  # libzmq would wait for ever at `inproc://X`
        raise EdgeHalError(f"cannot connect to '{endpoint}'", "it is not an address", todo, exit_code=2)
    try:
        allow_ipv6(socket, endpoint)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise EdgeHalError(f"cannot connect to '{endpoint}'", str(error.strerror), todo) from error


def _connect_again(socket: zmq.Socket[bytes], endpoint: str) -> None:
    with contextlib.suppress(zmq.ZMQError):
        socket.disconnect(endpoint)
    socket.connect(endpoint)


def _replay_of(endpoint: str) -> str:
    with contextlib.suppress(EdgeHalError):  # then connecting to the endpoint itself has failed, or it has no next port
        return default_replay(endpoint)
    return endpoint
