"""One thread between the loop and the world: it keeps events, then sends them, answers subscriptions, beats once a
second.

The loop hands events over and never waits, neither for the disk nor for a subscriber. The thread tells the state
(snapshot, heartbeat) from the events it has itself sent, so a snapshot never runs ahead of the stream.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, encode, topic
from edge_hal.runtime.stream.latency import Latency

from .curve_keys import ServerKeys
from .endpoint import bind, check_endpoint, check_stream, default_replay, keep_alive
from .handshakes import FAILED, RefusedSubscribers
from .journal import Journal
from .prometheus import Vitals
from .replay_server import ReplayServer
from .report import Report, Status
from .systemd import Notifier

HELD_EVENTS = 1000
"""Events that may wait, for the journal or for the processor, before the run is given up."""
BATCH_EVENTS = 256
"""Events of one transaction."""
SEND_EVENTS = 10_000
"""Messages ZeroMQ keeps for one subscriber that does not read; beyond it that subscriber loses."""
SUBSCRIPTION_BYTES = 1024
DRAIN_MESSAGES = 1000
"""Subscriptions taken in one go: a flood of them must not keep events waiting."""
LINGER_MS = 1000
HEARTBEAT_S = 1.0
PRUNE_S = 60.0
SILENCE_S = 5.0
"""A loop that reports nothing for so long is not well."""


class Publisher:
    """Publishes the events of one stream on an XPUB socket, after the journal has them.

    Args:
        endpoint: `tcp://HOST:PORT` (`*` for any free port) or `ipc://PATH`.
        stream: the name in every topic; without `/`.
        journal: keeps events; whoever opened it closes it, after this. None: nothing is kept.
        replay: where past events are asked for; default the next port, or `.replay`.
        keys: encrypt, and let in only whom they allow.
        insecure: allow an unencrypted address that other machines reach.

    Raises:
        EdgeHalError: an endpoint is malformed, in use, or open to others without `keys` or `insecure`; `replay`
            without a journal.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str,
        *,
        journal: Journal | None = None,
        replay: str | None = None,
        keys: ServerKeys | None = None,
        insecure: bool = False,
        latency: Latency | None = None,
    ) -> None:
        check_stream(stream)
        check_endpoint(endpoint, insecure=insecure, encrypted=keys is not None)
        if journal is None and replay is not None:
            todo = "add --journal FILE, or leave --replay out"
            raise EdgeHalError("no past can be asked for", "this run keeps no journal", todo, exit_code=2)
        if journal is not None:
            replay = replay or default_replay(endpoint)
            check_endpoint(replay, insecure=insecure, encrypted=keys is not None)
        self.stream = stream
        self.sent = 0
        self.failure: EdgeHalError | None = None
        self._prefix = f"{stream}/".encode()
        self._latency = latency or Latency()
        self._journal = journal
        self._ailing: EdgeHalError | None = None  # why the journal could not be written just now
        self._held: deque[tuple[Event, int]] = deque()
        self._changed = threading.Condition()  # guards what both threads touch: held, subscriptions, failure
        self._closing = threading.Event()
        self._status = Status()
        self._reported_s = self._beat_s = -math.inf
        self._events = 0
        self._notifier = Notifier()
        self._subscriptions = 0
        self._report = Report(stream, -1 if journal is None else journal.next_seq - 1)
        self._replay: ReplayServer | None = None
        self._context = zmq.Context()
        self._guard = None if keys is None else keys.guard(self._context)
        self._wake: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._woken: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._wake.bind("inproc://wake")
        self._woken.connect("inproc://wake")
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, SEND_EVENTS)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES)
        keep_alive(self._socket)
        try:
            if keys is not None:
                keys.secure(self._socket)
            self._failures = self._socket.get_monitor_socket(FAILED)
            self.endpoint = bind(self._socket, endpoint, "--pub")
            self._refused = RefusedSubscribers(self.endpoint)
            if journal is not None and replay is not None:
                self._replay = ReplayServer(self._context, replay, journal, keys)
        except BaseException:
            if self._guard is not None:
                self._guard.stop()
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._serve, name="edge-hal-publisher", daemon=True)
        self._thread.start()

    @property
    def replay(self) -> str | None:
        """Where past events are asked for."""
        return None if self._replay is None else self._replay.endpoint

    def publish(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event over.

        Args:
            wait: for room; only a source that can wait may ask for it.

        Raises:
            EdgeHalError: the thread died, the journal cannot be written, or the thread fell too far behind: an event
                must not be lost unsaid.
        """
        with self._changed:
            while self.failure is None and len(self._held) >= HELD_EVENTS:
                if self._ailing is not None:
                    raise EdgeHalError(
                        f"{HELD_EVENTS} events could not be kept, nor published", self._ailing.why, self._ailing.todo
                    )
                if not wait:
                    raise EdgeHalError(
                        f"{HELD_EVENTS} events wait to be published on {self.endpoint}",
                        "the publisher does not keep up",
                        "give the process more time (--threads 1, fewer streams) or the journal a faster disk",
                    )
                self._changed.wait()
            if self.failure is not None:
                raise self.failure
            self._held.append((event, time.monotonic_ns()))
        self._nudge()

    def status(self, status: Status) -> None:
        """What the next heartbeat reports; costs the loop two assignments. A loop that stops reporting is not reported
        alive to systemd."""
        self._status = status
        self._reported_s = time.monotonic()

    def vitals(self) -> Vitals:
        """How the run is; any thread may ask."""
        troubles = []
        if self.failure is not None:
            troubles.append(str(self.failure))
        if self._ailing is not None:
            troubles.append(f"journal: {self._ailing.why}")
        if time.monotonic() - self._reported_s > SILENCE_S:
            troubles.append(f"the loop has not gone round for {SILENCE_S:g} s")
        return Vitals(
            self.stream,
            self._status.counters,
            self._latency.summary(),
            self._events,
            len(self._held),
            tuple(troubles),
        )

    def wait_subscribers(self, count: int, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Until `count` subscriptions to this stream have arrived. False if `cancelled` (see `wake`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._subscriptions >= count or cancelled() or self.failure is not None)
            if self.failure is not None:
                raise self.failure
            return self._subscriptions >= count

    def wake(self) -> None:
        """Let `wait_subscribers` look at `cancelled` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Keep and send what is held, then close; subscribers that read have everything by then.

        Raises:
            EdgeHalError: the journal could not be written to the last; what was not kept was not published.
        """
        if self._context.closed:
            return
        self._closing.set()
        self._notifier.stopping()
        self._nudge()
        self._thread.join()
        if self._replay is not None:
            self._replay.close(grace=self._subscriptions > 0)
        if self._guard is not None:
            self._guard.stop()
        self._wake.close(linger=0)
        self._context.term()  # bounded: every socket has a linger
        if self._ailing is not None:
            what = f"{len(self._held)} events were not kept, nor published"
            raise EdgeHalError(what, self._ailing.why, self._ailing.todo)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            self.close()
        except EdgeHalError:
            if kind is None:  # else the same has been said already
                raise

    # --- the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        except Exception as error:  # whatever it is, the loop must hear of it
            with self._changed:
                self.failure = EdgeHalError(f"publishing on {self.endpoint} failed", f"{type(error).__name__}: {error}")
                self._changed.notify_all()
        finally:
            self._socket.disable_monitor()
            self._failures.close(linger=0)
            self._socket.close(linger=LINGER_MS)
            self._woken.close(linger=0)

    def _serve_until_closed(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        beat = prune = time.monotonic() + HEARTBEAT_S
        while True:
            waiting = self._held and self._ailing is None  # an ailing journal is tried again with the next beat
            ready = dict(poller.poll(0 if waiting else max(0, math.ceil((beat - time.monotonic()) * 1000))))
            if self._woken in ready:
                self._drain(self._woken)
            if self._socket in ready:
                self._welcome(self._drain(self._socket))
            closing, beating = self._closing.is_set(), time.monotonic() >= beat  # before the last look at what is held
            if self._ailing is None or beating or closing:
                self._send_batch()
            if closing:
                while self._held and self._ailing is None:
                    self._send_batch()
                return
            if beating:
                beat = time.monotonic() + HEARTBEAT_S
                if self._reported_s > self._beat_s:
                    self._notifier.alive()
                self._beat_s = time.monotonic()
                self._beat()
            if self._journal is not None and time.monotonic() >= prune:
                prune = time.monotonic() + PRUNE_S
                with contextlib.suppress(EdgeHalError):  # the next append will tell
                    self._journal.prune()

    def _drain(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        with contextlib.suppress(zmq.Again):
            while len(messages) < DRAIN_MESSAGES:
                messages.append(socket.recv(zmq.DONTWAIT))
        return messages

    def _welcome(self, messages: list[bytes]) -> None:
        """A message starting with 1 is a subscription to the prefix after it; one snapshot serves all."""
        ours = 0
        for message in messages:
            prefix = message[1:]
            if message[:1] == b"\x01" and (self._prefix.startswith(prefix) or prefix.startswith(self._prefix)):
                ours += 1
        if not ours:
            return
        with self._changed:
            self._subscriptions += ours
            self._changed.notify_all()
        if self._report.start is not None:
            self._tell(self._report.snapshot(self._status, self._journal_id))

    def _send_batch(self) -> None:
        """Keep, then send, then let go: an event leaves `held` when nothing can lose it any more."""
        with self._changed:
            held = list(itertools.islice(self._held, BATCH_EVENTS))
        if not held:
            return
        now_ns = time.monotonic_ns()
        events = [self._dated(event, now_ns - handed_ns) for event, handed_ns in held]
        bodies = [encode(event) for event in events]
        kept = self._keep(events, bodies)
        if kept:
            for event, body in zip(events, bodies, strict=True):
                self._send(topic(event), body)
                self._report.follow(event)
                self._events += 1
        with self._changed:
            for _ in events if kept else ():
                self._held.popleft()
            self._changed.notify_all()  # whoever waits for room, or must hear that the journal ails

    def _dated(self, event: Event, waited_ns: int) -> Event:
        """The event as it is kept and sent, the same bytes both times."""
        waited_ms = waited_ns / 1e6
        self._latency.add("publish", waited_ms)
        latency_ms = {**event.run.get("latency_ms", {}), "publish": round(waited_ms, 3)}
        return dataclasses.replace(event, run={**event.run, "latency_ms": latency_ms, "journal": self._journal_id})

    def _keep(self, events: Sequence[Event], bodies: Sequence[bytes]) -> bool:
        if self._journal is None:
            return True
        began_ns = time.monotonic_ns()
        try:
            seqs = [event.seq for event in events]  # type: ignore[attr-defined]
            self._journal.append(list(zip(seqs, bodies, strict=True)))
        except EdgeHalError as error:
            self._ailing = error
            return False
        self._ailing = None
        self._latency.add("journal", (time.monotonic_ns() - began_ns) / 1e6)
        return True

    def _tell(self, report: Event) -> None:
        self._send(topic(report), encode(report))

    def _send(self, topic: bytes, body: bytes) -> None:
        self._socket.send_multipart([topic, body])
        self.sent += 1

    def _beat(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._refused.note(recv_monitor_message(self._failures, zmq.DONTWAIT))
        if self._report.start is None and self._ailing is None:
            return
        delivery: dict[str, Any] = {"journal": None, "held": len(self._held), "replay": self.replay}
        delivery["refused"] = self._refused.health()
        if self._journal is not None:
            delivery["journal"] = "ok" if self._ailing is None else self._ailing.why
        self._tell(self._report.heartbeat(self._status, self._journal_id, self._latency.summary(), delivery))

    @property
    def _journal_id(self) -> str | None:
        return None if self._journal is None else self._journal.id

    def _nudge(self) -> None:
        with contextlib.suppress(zmq.Again):  # then enough nudges are under way
            self._wake.send(b"", zmq.DONTWAIT)
