"""The publisher's XPUB socket, protected against subscriptions that cost it time and memory.

libzmq keeps the subscriptions in a tree with a node of about 75 bytes for each byte of a prefix. When a subscriber
leaves, libzmq walks through the whole tree in the thread that sends: 200 subscribers that leave with 2 MB of prefixes
silence a publisher for 20 s and more. No option of libzmq limits the tree (ZMQ_XPUB_MANUAL asks after it was filled).
Therefore:

- A message that is longer than any topic ends its connection (ZMQ_MAXMSGSIZE).
- Subscriptions reach this socket a few at a time (ZMQ_RCVHWM, ZMQ_RCVBUF), so that it sees them before more come.
- Each message says which connection it came from (ZMQ_SRCFD). A connection with too many subscriptions that match no
  topic, or too many messages, is shut down.

What each connection subscribes to is kept, so that a subscriber counts once for each stream that it gets something of,
also for a stream that is added later, and no longer when it has left.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable

import zmq

from edge_hal.events import TYPES
from edge_hal.runtime.network.connections import Connections
from edge_hal.runtime.network.curve_keys import ServerKeys
from edge_hal.runtime.network.endpoint import BoundAddress, bind, keep_alive
from edge_hal.runtime.network.monitored_socket import MonitoredSocket

SEND_EVENTS = 10_000
"""Messages ZeroMQ keeps for one subscriber that does not read. Beyond it that subscriber loses messages."""
LINGER_MS = 1000
SHORTEST_LIMIT, COMMAND_BYTES, CURVE_BYTES = 64, 10, 512
"""A subscription of another, longer stream name is no attack; ZMTP 3.1 puts `SUBSCRIBE` before a prefix; the handshake
of CURVE needs more than a prefix."""
WAITING_MESSAGES, RECEIVE_BYTES = 1, 512
"""What waits of one connection. With more than one message, libzmq fills the queue while it is read, and reads on."""
READ_MESSAGES = 5000
"""Messages read before events are sent again. What libzmq has put into its tree must be seen before it puts in more."""
USELESS_BYTES, USELESS_TOTAL_BYTES = 512, 16_384
"""Bytes of subscriptions that match no topic: of one connection, and of all together."""
CHANGES, CHANGES_S = 200, 10.0
"""Most messages of one connection within `CHANGES_S`, and most of its subscriptions, which all come when it connects
again."""


class SubscriptionSocket:
    """The XPUB socket of one or more streams. For one thread at a time.

    Args:
        types: what follows the stream in a topic.
        queue: messages kept for one subscriber that does not read.
        chosen_by: the option that chose the address.

    Attributes:
        topics: of all streams, with the stream of each. Replace the whole of it to change the streams.
        address: where it is bound.
        connections: those to `address`. Call `read` when their monitor or `socket` is readable.

    Raises:
        EdgeHalError: the address cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        streams: Iterable[str],
        keys: ServerKeys | None,
        *,
        types: Iterable[str] = TYPES,
        queue: int = SEND_EVENTS,
        chosen_by: str = "--pub",
    ) -> None:
        self.topics = topics_of(streams, types)
        self._prefixes: dict[int, tuple[bytes, ...]] = {}  # that it subscribes to, by connection
        self._useless: Counter[int] = Counter()  # bytes, by connection
        self._changes: Counter[int] = Counter()  # messages, by connection
        self._counted_s = time.monotonic()
        limit = max(SHORTEST_LIMIT, *map(len, self.topics)) + COMMAND_BYTES
        self.socket = MonitoredSocket(context, zmq.XPUB)
        for option, value in (
            (zmq.XPUB_VERBOSER, 1),  # each message of each connection, not only the first and the last of a prefix
            (zmq.SNDHWM, queue),
            (zmq.LINGER, LINGER_MS),
            (zmq.MAXMSGSIZE, limit if keys is None else max(limit, CURVE_BYTES)),
            (zmq.RCVHWM, WAITING_MESSAGES),
            (zmq.RCVBUF, RECEIVE_BYTES),
        ):
            self.socket.setsockopt(option, value)
        keep_alive(self.socket)
        self.connections = Connections(self.socket, keys)
        try:
            if keys is not None:
                keys.secure(self.socket)
            self.address: BoundAddress = bind(self.socket, endpoint, chosen_by)
            self.connections.bound(self.address)
        except BaseException:
            self.close()
            raise

    def read(self) -> set[str]:
        """Take what subscribers sent, a bounded part of it. Returns the streams that somebody has subscribed to now."""
        frames: list[zmq.Frame] = []
        with contextlib.suppress(zmq.Again):
            while len(frames) < READ_MESSAGES:
                frames.append(self.socket.recv(zmq.DONTWAIT, copy=False))
        self._forget_closed()
        return set[str]().union(*map(self._judge, frames))

    def subscribers(self, stream: str) -> int:
        """How many connections subscribe to a stream, to a part of it, or to everything; any thread may ask."""
        topics = [topic for topic, of in self.topics.items() if of == stream]
        return sum(any(topic.startswith(each) for topic in topics) for each in list(self._prefixes.values()))

    def review(self) -> None:
        """End the connections whose key is no longer allowed. Call it every `REVIEW_S`."""
        self.connections.review()
        self._forget_closed()

    def send(self, *parts: bytes) -> None:
        """A topic, and what follows it."""
        self.socket.send_multipart(parts)

    def close(self) -> None:
        self.socket.close()

    def _judge(self, frame: zmq.Frame) -> set[str]:
        """The streams whose topics a message subscribes to."""
        connection = self.connections.sender(frame)
        if connection is None:  # libzmq unsubscribes for a peer that has left
            return set()
        message = frame.bytes
        prefix, subscribes = message[1:], message[:1] == b"\x01"
        matches = {stream for topic, stream in self.topics.items() if topic.startswith(prefix)}
        others = tuple(each for each in self._prefixes.get(connection, ()) if each != prefix)
        self._prefixes[connection] = (*others, prefix) if subscribes else others
        self._changes[connection] += 1
        if not matches:
            self._useless[connection] += len(message)
        many = max(self._changes[connection], len(self._prefixes[connection])) > CHANGES
        useless = self._useless[connection] > USELESS_BYTES
        if many or useless or (not matches and self._useless.total() > USELESS_TOTAL_BYTES):
            del self._prefixes[connection]
            if self.connections.end(connection):
                self.connections.refused.add("useless subscriptions")
            return set()
        if not matches or not subscribes:
            return set()
        self.connections.useful(connection)
        return matches

    def _forget_closed(self) -> None:
        """A descriptor that was closed, or accepted again, is another connection."""
        for descriptor in self.connections.read():
            self._prefixes.pop(descriptor, None)
            self._useless.pop(descriptor, None)
            self._changes.pop(descriptor, None)
        if time.monotonic() - self._counted_s > CHANGES_S:
            self._counted_s = time.monotonic()
            self._changes.clear()


def topics_of(streams: Iterable[str], types: Iterable[str] = TYPES) -> dict[bytes, str]:
    """Every topic of these streams, and its stream."""
    return {f"{stream}/{name}".encode(): stream for stream in streams for name in types}
