"""What the publisher's thread does: store events, send them, greet subscribers, send a heartbeat each second.

Reports (snapshot, heartbeat) describe only events that were sent before them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections import deque
from typing import Any

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Now, encode, topic
from edge_hal.runtime import threads
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.resumed import Noted

from .held_events import HeldEvents
from .journal import Journal
from .replay_server import ReplayServer
from .report import Report, Status
from .subscriptions import SubscriptionSocket
from .systemd import Notifier

BATCH_EVENTS = 256
"""Events of one transaction."""
HEARTBEAT_S = 1.0
PRUNE_S = 60.0
SILENCE_S = 5.0
"""A loop that has not reported for so long is unhealthy."""
UNSENT_S = 3.0
"""A publisher that has sent nothing for so long is unhealthy: it should send a heartbeat each second."""


class Sender:
    """Sends the events that the loop puts into `held`.

    Attributes:
        sent: messages sent.
        events: durable events sent.
        subscriptions: subscriptions to this stream that have arrived.
        status: what the loop reported last, at `reported_s` (monotonic clock).
        noted: the newest belief of the loop, for the journal.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: SubscriptionSocket,
        held: HeldEvents,
        journal: Journal | None,
        replay: ReplayServer | None,
        report: Report,
        latency: Latency,
    ) -> None:
        self.sent = self.events = self.subscriptions = 0
        self.status = Status()
        self.noted: Noted | None = None
        self._kept: Noted | None = None
        self.reported_s = self._beat_s = -math.inf
        self._socket, self._held, self._journal, self._replay = socket, held, journal, replay
        self._report, self._latency = report, latency
        self._stored: deque[tuple[Event, bytes]] = deque()  # the oldest of those held: in the journal, not yet sent
        self._sent_s = time.monotonic()
        self._closing = threading.Event()
        self._notifier = Notifier()
        self._wake: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._woken: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        self._woken.connect("inproc://wake")

    def nudge(self) -> None:
        """Something is held; for the loop's thread."""
        with contextlib.suppress(zmq.Again):  # then enough nudges are under way
            self._wake.send(b"", zmq.DONTWAIT)

    def stop(self) -> None:
        """Let `serve` return as soon as nothing is held; for the loop's thread."""
        self._closing.set()
        self._notifier.stopping()
        self.nudge()

    def close(self) -> None:
        """After `serve` has returned for good."""
        if self._held.failure is not None:  # the thread failed at this before: the last attempt
            with contextlib.suppress(Exception):
                self._send_batch()
        self._socket.close()
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
            waiting = len(self._held) > 0 and self._held.ailing is None  # an ailing journal is tried at each heartbeat
            ready = dict(poller.poll(0 if waiting else max(0, math.ceil((beat - time.monotonic()) * 1000))))
            with contextlib.suppress(zmq.Again):
                while self._woken in ready:
                    self._woken.recv(zmq.DONTWAIT)
            if self._socket.socket in ready or self._socket.connections.monitor in ready:
                self._greet(self._socket.read())
            closing, beating = self._closing.is_set(), time.monotonic() >= beat  # before the last look at what is held
            if self._held.ailing is None or beating or closing:
                self._send_batch()
            if closing:
                while len(self._held) and self._held.ailing is None:
                    self._send_batch()
                self._keep_belief()
                return
            if beating:
                beat = time.monotonic() + HEARTBEAT_S
                self._socket.connections.review()
                self._beat()
                self._keep_belief()
            if self._journal is not None and time.monotonic() >= prune:
                prune = time.monotonic() + PRUNE_S
                with contextlib.suppress(EdgeHalError):  # the next append reports it
                    self._journal.prune()

    def connections(self) -> dict[str, dict[str, int]]:
        """How many are open and may be open, by address; any thread may ask."""
        found = {"events": self._socket.connections.health()}
        return found if self._replay is None else {**found, "replay": self._replay.connections.health()}

    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the run, one sentence each; any thread may ask."""
        now_s, found = time.monotonic(), list(threads.troubles())
        if self._held.failure is not None:
            found.append(str(self._held.failure))
        if self._held.ailing is not None:
            found.append(f"journal: {self._held.ailing.why}")
        if now_s - self.reported_s > SILENCE_S:
            found.append(f"the loop has made no progress for {SILENCE_S:g} s")
        if now_s - self._sent_s > UNSENT_S:
            found.append(f"the publisher has sent nothing for {UNSENT_S:g} s")
        return tuple(found)

    def _greet(self, subscriptions: int) -> None:
        """Answer new subscriptions; one snapshot serves all."""
        if not subscriptions:
            return
        self.subscriptions += subscriptions
        self._held.wake()
        if self._report.start is not None:
            self._send(self._report.snapshot(self.status, self._journal_id))

    def _send_batch(self) -> None:
        """Store, then send, then forget: an event leaves `held` when it can no longer be lost. Reports are not
        stored."""
        if not self._stored:
            held = self._held.first(BATCH_EVENTS)
            if not held:
                return
            now_ns = time.monotonic_ns()
            events = [self._dated(event, now_ns - handed_ns) for event, handed_ns in held]
            batch = [(event, encode(event) if event.durable else b"") for event in events]
            if not self._store(batch):
                self._held.wake()  # whoever waits for room must hear that the journal cannot be written
                return
            self._stored.extend(batch)
        sent = 0
        try:
            while self._stored:
                event, body = self._stored[0]
                if event.durable:
                    self._send(event, body)
                    self.events += 1
                elif isinstance(event, Now):  # only here is it known after which event it is sent
                    self._send(dataclasses.replace(event, last_seq=self._report.last_seq))
                self._stored.popleft()
                sent += 1
                self._report.follow(event)
        finally:
            self._held.drop(sent)  # all at once: each time wakes whoever waits for room

    def _dated(self, event: Event, waited_ns: int) -> Event:
        """The event as it is stored and sent, the same bytes both times."""
        waited_ms = waited_ns / 1e6
        self._latency.add("publish", waited_ms)
        latency_ms = {**event.run.get("latency_ms", {}), "publish": round(waited_ms, 3)}
        return dataclasses.replace(event, run={**event.run, "latency_ms": latency_ms, "journal": self._journal_id})

    def _store(self, batch: list[tuple[Event, bytes]]) -> bool:
        durable = [(event.seq, body) for event, body in batch if event.durable]  # type: ignore[attr-defined]
        if self._journal is None or not durable:
            return True
        began_ns = time.monotonic_ns()
        try:
            self._journal.append(durable)
        except EdgeHalError as error:
            self._journal_ails(error)
            return False
        self._journal_ails(None)
        self._latency.add("journal", (time.monotonic_ns() - began_ns) / 1e6)
        return True

    def _keep_belief(self) -> None:
        """Keep the newest belief with the journal. Events are not held back where that fails: the next one tells."""
        noted = self.noted
        if self._journal is None or noted is None or noted is self._kept or self._held.ailing is not None:
            return
        with contextlib.suppress(EdgeHalError):
            self._journal.keep_belief(noted.row())
            self._kept = noted

    def _journal_ails(self, error: EdgeHalError | None) -> None:
        """Note why the journal cannot be written, or that it can. A change is logged."""
        before, self._held.ailing = self._held.ailing, error
        if error is not None and (before is None or before.why != error.why):
            threads.log.error("%s: %s; events wait for it", error.what, error.why)
        elif error is None and before is not None:
            threads.log.warning("the journal can be written again")

    def _send(self, event: Event, body: bytes | None = None) -> None:
        self._socket.send(topic(event), encode(event) if body is None else body)
        self._sent_s = time.monotonic()
        self.sent += 1

    def _beat(self) -> None:
        if self._journal is not None and not len(self._held):
            try:
                self._journal.check()
                self._journal_ails(None)
            except EdgeHalError as error:
                self._journal_ails(error)
        if self._report.start is None and self._held.ailing is None:
            self._sent_s = time.monotonic()  # there is nothing to report yet
            return
        journal, replay = None, self._replay
        if self._journal is not None:
            journal = "ok" if self._held.ailing is None else self._held.ailing.why
        delivery: dict[str, Any] = {
            "journal": journal,
            "held": len(self._held),
            "replay": None if replay is None else replay.endpoint,
            "refused": self._socket.connections.refused.health(),
            "replay_refused": {} if replay is None else replay.connections.refused.health(),
            "troubles": self.troubles(),
        }
        self._send(self._report.heartbeat(self.status, self._journal_id, self._latency.summary(), delivery))
        if self.reported_s > self._beat_s:
            self._notifier.alive()
        self._beat_s = time.monotonic()

    @property
    def _journal_id(self) -> str | None:
        return None if self._journal is None else self._journal.id
