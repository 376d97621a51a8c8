"""What a failed handshake means, at both ends: ZeroMQ tells it only to the monitor of a socket.

| cause                  | at the publisher             | at the subscriber                         |
|------------------------|------------------------------|-------------------------------------------|
| key not allowed        | FAILED_AUTH                  | FAILED_AUTH                               |
| only one side encrypts | FAILED_PROTOCOL, mechanism, at the end that notices first; FAILED_NO_DETAIL at the other |
| wrong `--server-key`   | FAILED_PROTOCOL, cryptography| FAILED_NO_DETAIL: the connection is closed|
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import zmq

from edge_hal.errors import EdgeHalError

FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
MONITORED = FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED
CLOSED = 3
"""A publisher that is restarted may close a connection during a handshake, but not so many in a row."""

log = logging.getLogger("edge_hal")


class RefusedSubscribers:
    """Counts the connections that a publisher refused or ended, and logs the first failed handshake of each cause."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._counts: Counter[str] = Counter()

    def note(self, message: Mapping[str, Any]) -> None:
        """A message of the socket's monitor."""
        if message["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            cause, todo = "key not allowed", "edge-hal keys allow FILE.key lets it in"
        elif message["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            cause, todo = "encryption on one side only", "both sides need their keys, or neither"
        elif message["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            cause = "wrong server key"
            todo = "its --server-key must be the .key file that belongs to --key here; or it is no edge-hal subscriber"
        else:
            cause, todo = "it closed the connection during the handshake", "does one side encrypt and the other not?"
        if self.add(cause):
            log.warning("a subscriber was refused on %s: %s; %s", self._endpoint, cause, todo)

    def add(self, cause: str, count: int = 1) -> bool:
        """Whether it is the first of this cause."""
        first = count > 0 and cause not in self._counts
        if count:
            self._counts[cause] += count
        return first

    def health(self) -> dict[str, int]:
        """How many were refused or ended so far, by cause. A subscriber tries again every second."""
        return dict(self._counts)


class RefusedHere:
    """Finds out at a subscriber that it is refused."""

    def __init__(self, endpoint: str, encrypts: bool) -> None:
        self._endpoint, self._encrypts = endpoint, encrypts
        self._closed = 0

    def note(self, message: Mapping[str, Any]) -> None:
        """A message of the socket's monitor.

        Raises:
            EdgeHalError: the publisher refuses this subscriber.
        """
        event = message["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._closed = 0
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._closed += 1
            if self._closed == CLOSED:
                why = "one side encrypts and the other does not; give --key and --server-key"
                if self._encrypts:
                    why = "--server-key is probably the key of another publisher"
                text = "the publisher on %s closes the connection during the handshake: %s; it is tried again"
                log.warning(text, self._endpoint, why)
        else:
            refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            why = "this key is not allowed there" if refused else "one side encrypts and the other does not"
            todo = "there: edge-hal keys allow FILE.key; here: --key and --server-key"
            raise EdgeHalError(f"the publisher on {self._endpoint} refuses us", why, todo)
