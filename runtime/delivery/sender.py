"""What the publisher's thread does: store events, send them, greet subscribers, send a heartbeat each second.

It serves any number of streams. Reports (snapshot, heartbeat) describe only events that were sent before them.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Any

import zmq

from edge_hal.events import Event, encode, topic
from edge_hal.runtime import threads

from .replay_server import ReplayServer
from .stream_delivery import StreamDelivery
from .subscriptions import SubscriptionSocket
from .systemd import Notifier

HEARTBEAT_S = 1.0
PRUNE_S = 60.0
SILENCE_S = 5.0
"""A loop that has not reported for this long is unhealthy."""
UNSENT_S = 3.0
"""A publisher that has sent nothing for this long is unhealthy: it should send a heartbeat each second."""


class Sender:
    """Sends the events that loops put into the deliveries of their streams.

    Attributes:
        sent: messages sent.
        streams: the streams that are served. Any thread may ask.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: SubscriptionSocket,
        replay: ReplayServer | None,
    ) -> None:
        self.sent = 0
        self.streams: tuple[StreamDelivery, ...] = ()
        self._beat_s = -math.inf
        self._socket, self._replay = socket, replay
        self._sent_s = time.monotonic()
        self._closing = threading.Event()
        self._notifier = Notifier()
        self._lock = threading.Lock()  # of `_wake` and of changes of `streams`: loops of several threads use them
        self._wake: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._woken: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        self._woken.connect("inproc://wake")

    def add(self, stream: StreamDelivery) -> None:
        """Serve one more stream; for any thread."""
        with self._lock:
            self.streams = (*self.streams, stream)

    def nudge(self) -> None:
        """Something is held, or a stream is leaving; for any thread of a loop, also one that was left behind."""
        with self._lock, contextlib.suppress(zmq.Again):  # then enough nudges are under way
            if not self._wake.closed:
                self._wake.send(b"", zmq.DONTWAIT)

    def stop(self) -> None:
        """Let `serve` return as soon as nothing is held."""
        self._closing.set()
        self._notifier.stopping()
        self.nudge()

    def close(self) -> None:
        """After `serve` has returned for good."""
        for stream in self.streams:
            if stream.held.failure is not None:  # the thread failed at this before: the last attempt
                with contextlib.suppress(Exception):
                    stream.send_batch(self._send)
        self._socket.close()
        with self._lock:
            self._wake.close(linger=0)
        self._woken.close(linger=0)

    def serve(self) -> None:
        """Until `stop`. May be called again after an exception: nothing that is held is lost or sent twice."""
        poller = zmq.Poller()
        poller.register(self._socket.socket, zmq.POLLIN)
        poller.register(self._socket.connections.monitor, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        beat = prune = time.monotonic() + HEARTBEAT_S
        while True:
            waiting = any(stream.waiting for stream in self.streams)
            ready = dict(poller.poll(0 if waiting else max(0, math.ceil((beat - time.monotonic()) * 1000))))
            with contextlib.suppress(zmq.Again):
                while self._woken in ready:
                    self._woken.recv(zmq.DONTWAIT)
            if self._socket.socket in ready or self._socket.connections.monitor in ready:
                self._greet(self._socket.read())
            closing, beating = self._closing.is_set(), time.monotonic() >= beat  # before the last look at what is held
            for stream in self.streams:
                if closing or stream.leaving.is_set():
                    stream.flush(self._send)
                    self._let_go(stream)
                elif stream.held.journal_error is None or beating:
                    stream.send_batch(self._send)
            if closing:
                return
            if beating:
                beat = time.monotonic() + HEARTBEAT_S
                self._socket.review()
                self._beat()
            if time.monotonic() >= prune:
                prune = time.monotonic() + PRUNE_S
                for stream in self.streams:
                    stream.prune()

    def subscribers(self, stream: str) -> int:
        """How many subscribe to a stream now; any thread may ask."""
        return self._socket.subscribers(stream)

    def connections(self) -> dict[str, dict[str, int]]:
        """How many are open and may be open, by address; any thread may ask."""
        found = {"events": self._socket.connections.health()}
        return found if self._replay is None else {**found, "replay": self._replay.connections.health()}

    def troubles(self, stream: StreamDelivery) -> tuple[str, ...]:
        """What is wrong with a stream, one sentence each; any thread may ask."""
        now_s, found = time.monotonic(), list(threads.troubles(stream.stream))
        if stream.held.failure is not None:
            found.append(str(stream.held.failure))
        if stream.held.journal_error is not None:
            found.append(f"journal: {stream.held.journal_error.why}")
        source = stream.status.health.get("source", {})
        if source.get("state") == "lost":
            found.append(f"source: {source['lost']}")
        if now_s - (stream.reported_s or stream.opened_s) > SILENCE_S:
            found.append(f"the loop has made no progress for {SILENCE_S:g} s")
        if now_s - self._sent_s > UNSENT_S:
            found.append(f"the publisher has sent nothing for {UNSENT_S:g} s")
        return tuple(found)

    def _let_go(self, stream: StreamDelivery) -> None:
        if not self._closing.is_set():  # else it may be asked for its troubles until the end
            with self._lock:
                self.streams = tuple(each for each in self.streams if each is not stream)
        stream.left.set()

    def _greet(self, subscribed: set[str]) -> None:
        """Answer new subscriptions; one snapshot of a stream serves all."""
        for stream in self.streams:
            if stream.stream not in subscribed:
                continue
            stream.held.wake()
            snapshot = stream.snapshot()
            if snapshot is not None:
                self._send(snapshot)

    def _send(self, event: Event, body: bytes | None = None) -> None:
        self._socket.send(topic(event), encode(event) if body is None else body)
        self._sent_s = time.monotonic()
        self.sent += 1

    def _beat(self) -> None:
        """A heartbeat of each stream. systemd is told of life if one of the loops goes on, or if there is none. A loop
        that has not reported yet does not go on: the run is ready when it has begun."""
        delivery: dict[str, Any] = {
            "replay": None if self._replay is None else self._replay.endpoint,
            "refused": self._socket.connections.refused.health(),
            "replay_refused": {} if self._replay is None else self._replay.connections.refused.health(),
        }
        for stream in self.streams:
            stream.check_journal()
            if not stream.silent:
                self._send(stream.heartbeat({**delivery, "troubles": self.troubles(stream)}))
            stream.keep_belief()
        if all(stream.silent for stream in self.streams):
            self._sent_s = time.monotonic()
        reported_s = [stream.reported_s for stream in self.streams]
        if any(at_s is not None and at_s > self._beat_s for at_s in reported_s) or not reported_s:
            self._notifier.alive()
        self._beat_s = time.monotonic()
