"""One thread between the loop and the world: it sends events, answers subscriptions, beats once a second.

The loop hands events over through a bounded queue and never waits for a subscriber. The thread
tells the state (snapshot, heartbeat) from the events it has itself sent, so a snapshot never runs
ahead of the stream.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import (
    End,
    Event,
    Gap,
    Heartbeat,
    Moment,
    Snapshot,
    Start,
    Transition,
    encode,
    topic,
)

from .endpoint import bind_error, check_endpoint, check_stream
from .latency import Latency

QUEUE_EVENTS = 1000
SEND_EVENTS = 10_000
"""Messages ZeroMQ keeps for one subscriber that does not read; beyond it that subscriber loses."""
LINGER_MS = 1000
HEARTBEAT_S = 1.0


@dataclasses.dataclass(frozen=True)
class Status:
    """What only the loop knows: the counters, whether the model sees anything now, how the source is."""

    counters: dict[str, Any] = dataclasses.field(default_factory=dict)
    blind: bool = False
    run: dict[str, Any] = dataclasses.field(default_factory=dict)
    health: dict[str, Any] = dataclasses.field(default_factory=dict)


class Publisher:
    """Publishes the events of one stream on an XPUB socket.

    Args:
        endpoint: `tcp://HOST:PORT` (`*` for any free port) or `ipc://PATH`.
        stream: the name in every topic; without `/`.
        insecure: allow an address that other machines reach.

    Raises:
        EdgeHalError: the endpoint is malformed, in use, or open to others without `insecure`.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str,
        *,
        insecure: bool = False,
        latency: Latency | None = None,
    ) -> None:
        check_stream(stream)
        check_endpoint(endpoint, insecure=insecure)
        self.stream = stream
        self.sent = 0
        self.failure: EdgeHalError | None = None
        self._prefix = f"{stream}/".encode()
        self._latency = latency or Latency()
        self._queue: queue.Queue[tuple[Event, int]] = queue.Queue(QUEUE_EVENTS)
        self._closing = threading.Event()
        self._status = Status()
        self._subscriptions = 0
        self._subscribed = threading.Condition()
        self._start: Start | None = None
        self._action: str | None = None
        self._since: Moment | None = None
        self._last_seq = -1
        self._epoch = 0
        self._context = zmq.Context()
        self._wake: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._woken: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._wake.bind("inproc://wake")
        self._woken.connect("inproc://wake")
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, SEND_EVENTS)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise bind_error(endpoint, error) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, name="edge-hal-publisher", daemon=True)
        self._thread.start()

    def publish(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event over.

        Args:
            wait: for room in the queue; only a source that can wait may ask for it.

        Raises:
            EdgeHalError: the thread died, or fell a full queue behind: an event must not be lost
                unsaid.
        """
        entry = (event, time.monotonic_ns())
        while True:
            if self.failure is not None:
                raise self.failure
            try:
                self._queue.put(entry, timeout=0.1) if wait else self._queue.put_nowait(entry)
                break
            except queue.Full:
                if not wait:
                    raise EdgeHalError(
                        f"{QUEUE_EVENTS} events wait to be published on {self.endpoint}",
                        "the publisher does not keep up",
                        "give the process more time (--threads 1, fewer streams)",
                    ) from None
        self._nudge()

    def status(self, status: Status) -> None:
        """What the next heartbeat reports; costs the loop one assignment."""
        self._status = status

    def wait_subscribers(self, count: int, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Until `count` subscriptions to this stream have arrived. False if `cancelled` (see `wake`)."""
        with self._subscribed:
            self._subscribed.wait_for(
                lambda: self._subscriptions >= count or cancelled() or self.failure is not None
            )
            if self.failure is not None:
                raise self.failure
            return self._subscriptions >= count

    def wake(self) -> None:
        """Let `wait_subscribers` look at `cancelled` again."""
        with self._subscribed:
            self._subscribed.notify_all()

    def close(self) -> None:
        """Send what is queued, then close; subscribers that read have everything by then."""
        if not self._context.closed:
            self._closing.set()
            self._nudge()
            self._thread.join()
            self._wake.close(linger=0)
            self._context.term()  # bounded: every socket has a linger

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        except Exception as error:  # whatever it is, the loop must hear of it
            self.failure = EdgeHalError(
                f"publishing on {self.endpoint} failed", f"{type(error).__name__}: {error}"
            )
            self.wake()
        finally:
            self._socket.close(linger=LINGER_MS)
            self._woken.close(linger=0)

    def _serve_until_closed(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        beat = time.monotonic() + HEARTBEAT_S
        while True:
            ready = dict(poller.poll(max(0, math.ceil((beat - time.monotonic()) * 1000))))
            if self._woken in ready:
                self._drain(self._woken)
            if self._socket in ready:
                self._welcome(self._drain(self._socket))
            closing = self._closing.is_set()  # before the last look into the queue
            self._send_queued()
            if closing:
                return
            if time.monotonic() >= beat:
                beat = time.monotonic() + HEARTBEAT_S
                self._beat()

    def _drain(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        while True:
            try:
                messages.append(socket.recv(zmq.DONTWAIT))
            except zmq.Again:
                return messages

    def _welcome(self, messages: list[bytes]) -> None:
        """A message starting with 1 is a subscription to the prefix after it; one snapshot serves all."""
        ours = 0
        for message in messages:
            prefix = message[1:]
            if message[:1] == b"\x01" and (
                self._prefix.startswith(prefix) or prefix.startswith(self._prefix)
            ):
                ours += 1
        if not ours:
            return
        with self._subscribed:
            self._subscriptions += ours
            self._subscribed.notify_all()
        self._snapshot()

    def _send_queued(self) -> None:
        while True:
            try:
                event, handed_ns = self._queue.get_nowait()
            except queue.Empty:
                return
            waited_ms = (time.monotonic_ns() - handed_ns) / 1e6
            latency = {**event.run.get("latency_ms", {}), "publish": round(waited_ms, 3)}
            self._send(dataclasses.replace(event, run={**event.run, "latency_ms": latency}))
            self._follow(event)
            self._latency.add("publish", waited_ms)

    def _send(self, event: Event) -> None:
        self._socket.send_multipart([topic(event), encode(event)])
        self.sent += 1

    def _follow(self, event: Event) -> None:
        """Keep the state that snapshots and heartbeats tell."""
        if isinstance(event, Start):
            self._start = event
        elif isinstance(event, Transition):
            self._action, self._since = event.to, event.boundary
        elif isinstance(event, End) or (isinstance(event, Gap) and event.reset):
            self._action = self._since = None
        self._last_seq = getattr(event, "seq", self._last_seq)
        self._epoch = event.epoch + (isinstance(event, Gap) and event.reset)

    def _now(self) -> tuple[Status, str | None, Moment | None]:
        status = self._status
        return (status, None, None) if status.blind else (status, self._action, self._since)

    def _snapshot(self) -> None:
        if self._start is None:
            return
        status, action, since = self._now()
        self._send(
            Snapshot(
                stream=self.stream,
                epoch=self._epoch,
                action=action,
                since=since,
                last_seq=self._last_seq,
                labels=self._start.labels,
                bundle=self._start.bundle,
                decoder=self._start.decoder,
                run=self._run(status),
            )
        )

    def _beat(self) -> None:
        if self._start is None:
            return
        status, action, since = self._now()
        self._send(
            Heartbeat(
                stream=self.stream,
                epoch=self._epoch,
                action=action,
                since=since,
                last_seq=self._last_seq,
                counters=status.counters,
                health=status.health,
                run={**self._run(status), "latency_ms": self._latency.summary()},
            )
        )

    def _run(self, status: Status) -> dict[str, Any]:
        return {**status.run, "utc_ns": time.time_ns()}

    def _nudge(self) -> None:
        with contextlib.suppress(zmq.Again):  # then enough nudges are under way
            self._wake.send(b"", zmq.DONTWAIT)
