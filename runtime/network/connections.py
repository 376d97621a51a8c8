"""The connections to one address: how many there may be, whose they are, and which are ended.

libzmq accepts whoever connects and has no limit. It tells the monitor of a socket of each connection, by its
descriptor. Therefore:

- One connection too many ends the oldest one that has asked for nothing. So idle connections keep nobody out.
- The key of a connection is in its messages (`admission.py` adds it). A connection whose key was revoked is ended.
- A connection that has not finished its handshake is ended by libzmq (ZMQ_HANDSHAKE_IVL).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket as net
from collections import Counter
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from .curve_keys import ServerKeys
from .descriptors import most_connections
from .endpoint import BoundAddress
from .handshakes import FAILED, RefusedSubscribers
from .monitored_socket import MonitoredSocket

CONNECTIONS = 256
"""Connections to one address. All of them are admitted within 5 s, which is less than the time for a handshake."""
HANDSHAKE_MS = 10_000
REVIEW_S = 1.0
"""Time between two reads of `allowed/`: a revoked key is noticed within it."""
KEY = "X-Edge-Hal-Key"
"""The name under which a message tells the key of its connection."""

log = logging.getLogger("edge_hal")


@dataclass
class _Peer:
    """`key`: as Z85; None until its first message. `useful`: it has asked for something that is here."""

    key: bytes | None = None
    useful: bool = False


class Connections:
    """Those of one socket. For one thread at a time, the one that reads the socket. Make it before the socket is bound,
    and call `bound` then.

    Attributes:
        monitor: readable when connections came or went: call `read`.
        limit: the most connections.
        ended: connections that were ended here.
    """

    refused: RefusedSubscribers
    address: BoundAddress

    def __init__(self, socket: MonitoredSocket, keys: ServerKeys | None) -> None:
        self.limit = most_connections(CONNECTIONS)
        self.ended = 0
        self._keys = keys
        self._peers: dict[int, _Peer] = {}  # by descriptor, the oldest first
        self._changed: list[int] = []  # what `read` returns next
        self._allowed: dict[str, bytes] = {} if keys is None else keys.names()
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, "edge-hal")  # every connection is admitted by `admission.py`
        self.monitor = socket.watch(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | FAILED)

    def bound(self, address: BoundAddress) -> None:
        self.address = address
        self.refused = RefusedSubscribers(address.endpoint)

    def read(self) -> list[int]:
        """Take what the monitor tells. Returns the descriptors that have become another connection, or none, since the
        last call."""
        self._follow()
        changed, self._changed = self._changed, []
        return changed

    def sender(self, frame: zmq.Frame) -> int | None:
        """The descriptor of the connection that a message came from; None if it is gone, or was ended here. Call `read`
        after the message was received: else a new connection is not known yet."""
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return None
        peer = self._peers.get(descriptor)
        if peer is None:
            return None
        if self._keys is not None and peer.key is None:
            peer.key = _key(frame)
        return descriptor

    def useful(self, descriptor: int) -> None:
        """The connection has asked for something that is here."""
        peer = self._peers.get(descriptor)
        if peer is not None:
            peer.useful = True

    def review(self) -> None:
        """End the connections whose key is no longer allowed. Call it every `REVIEW_S`."""
        if self._keys is None:
            return
        before, self._allowed = self._allowed, self._keys.names()
        allowed = set(self._allowed.values())
        revoked = {key: name for name, key in before.items() if key not in allowed}
        self._follow()
        ended: Counter[str] = Counter()
        for descriptor, peer in list(self._peers.items()):
            if peer.key is None and revoked:  # whose it is, is not known yet; all but the revoked connect again
                self.end(descriptor)
            elif peer.key is not None and peer.key not in allowed and self.end(descriptor):
                ended[revoked.get(peer.key, "(unknown)")] += 1
        for name in {*revoked.values(), *ended}:
            text = "the key '%s' is no longer allowed on %s; connections ended: %d"
            log.warning(text, name, self.address.endpoint, ended[name])
        self.refused.add("key revoked", ended.total())

    def end(self, descriptor: int) -> bool:
        """End a connection, and discard what it has sent: libzmq would still read it. Nothing happens unless the
        descriptor is a connection to this address, for it may have been closed and used again. Returns whether it
        was ended."""
        self._peers.pop(descriptor, None)
        with contextlib.suppress(OSError), net.socket(fileno=os.dup(descriptor)) as connection:
            if not self.address.accepted(connection):
                return False
            connection.setblocking(False)
            connection.shutdown(net.SHUT_RDWR)
            self.ended += 1
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass
            return True
        return False

    def health(self) -> dict[str, int]:
        return {"open": len(self._peers), "limit": self.limit}

    def _follow(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                message = recv_monitor_message(self.monitor, zmq.DONTWAIT)
                if message["event"] & FAILED:
                    self.refused.note(message)
                    continue
                descriptor = int(message["value"])
                self._changed.append(descriptor)
                self._peers.pop(descriptor, None)
                if message["event"] == zmq.EVENT_ACCEPTED:
                    self._peers[descriptor] = _Peer()
                    if len(self._peers) > self.limit:
                        self._end_one()

    def _end_one(self) -> None:
        idle = next((descriptor for descriptor, peer in self._peers.items() if not peer.useful), None)
        assert idle is not None  # the newest has not asked for anything yet
        if self.end(idle) and self.refused.add("too many connections"):
            text = "%d connections to %s, the limit: the oldest that has asked for nothing is ended for each new one"
            log.warning(text, self.limit, self.address.endpoint)


def _key(frame: zmq.Frame) -> bytes | None:
    try:
        return str(frame.get(KEY)).encode()
    except zmq.ZMQError:
        return None
