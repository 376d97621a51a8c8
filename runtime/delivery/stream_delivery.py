"""The delivery of one stream: what is held of it, its journal, and what its reports tell.

The loop puts events and its status here. The publisher's thread (`sender.py`) calls the rest: it stores events, sends
them, and forgets them, in this order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Heartbeat, Now, Snapshot, encode
from edge_hal.runtime import threads
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.resumed import Noted

from .held_events import HeldEvents
from .journal import Journal
from .report import Report, Status

BATCH_EVENTS = 256
"""Events of one transaction."""

Send = Callable[[Event, bytes | None], None]
"""Sends an event, as these bytes if they are given."""


class StreamDelivery:
    """What one stream has of a publisher.

    Attributes:
        held: events of the loop that were not sent yet.
        events: durable events sent.
        status: what the loop reported last.
        opened_s: when the stream was opened, on the monotonic clock.
        reported_s: when the loop reported last, or went on waiting for subscribers; None before.
        noted: the newest belief of the loop, for the journal.
        leaving: the loop has ended; `left` is set as soon as nothing is held any more.
    """

    def __init__(self, stream: str, journal: Journal | None, latency: Latency) -> None:
        self.stream, self.latency = stream, latency
        self.held = HeldEvents(0 if journal is None else journal.next_seq)
        self.events = 0
        self.status = Status()
        self.noted: Noted | None = None
        self.opened_s = time.monotonic()
        self.reported_s: float | None = None
        self.leaving, self.left = threading.Event(), threading.Event()
        self._journal = journal
        self._kept: Noted | None = None
        self._unkept: str | None = None  # why the newest belief could not be kept
        self._stored: deque[tuple[Event, bytes]] = deque()  # the oldest of those held: in the journal, not yet sent
        self._report = Report(stream, -1 if journal is None else journal.next_seq - 1)

    @property
    def waiting(self) -> bool:
        """Whether something can be sent at once. A journal that cannot be written is tried at each heartbeat."""
        return len(self.held) > 0 and self.held.journal_error is None and self.held.failure is None

    @property
    def silent(self) -> bool:
        """Whether there is nothing to report yet."""
        return self._report.start is None and self.held.journal_error is None

    def goes_on(self) -> None:
        """The loop, or its wait for subscribers, makes progress."""
        self.reported_s = time.monotonic()

    def flush(self, send: Send) -> None:
        """Send all that is held, unless the journal cannot be written."""
        self.send_batch(send)
        while self.waiting:
            self.send_batch(send)
        self.keep_belief()

    def send_batch(self, send: Send) -> None:
        """Store, then send, then forget: an event leaves `held` when it can no longer be lost. Reports are not
        stored. After events the belief is kept at once, so that a restart tells none of their deviations again."""
        if not self._stored:
            held = self.held.first(BATCH_EVENTS)
            if not held:
                return
            now_ns = time.monotonic_ns()
            events = [self._dated(event, now_ns - handed_ns) for event, handed_ns in held]
            batch = [(event, encode(event) if event.durable else b"") for event in events]
            if not self._store(batch):
                self.held.wake()  # whoever waits for room must hear that the journal cannot be written
                return
            self._stored.extend(batch)
        sent, before = 0, self.events
        try:
            while self._stored:
                event, body = self._stored[0]
                if event.durable:
                    send(event, body)
                    self.events += 1
                elif isinstance(event, Now):  # only here is it known after which event it is sent
                    send(dataclasses.replace(event, last_seq=self._report.last_seq), None)
                self._stored.popleft()
                sent += 1
                self._report.follow(event)
        finally:
            self.held.drop(sent)  # all at once: each time wakes whoever waits for room
        if self.events > before:
            self.keep_belief()

    def snapshot(self) -> Snapshot | None:
        """None before the event `start`."""
        return None if self._report.start is None else self._report.snapshot(self.status, self._journal_id)

    def heartbeat(self, delivery: dict[str, Any]) -> Heartbeat:
        """`delivery`: what the publisher reports of all its streams."""
        journal = None
        if self._journal is not None:
            journal = "ok" if self.held.journal_error is None else self.held.journal_error.why
        delivery = {"journal": journal, "held": self.held.durable(), **delivery}
        return self._report.heartbeat(self.status, self._journal_id, self.latency.summary(), delivery)

    def check_journal(self) -> None:
        """Notice that its files were removed or replaced while no event came."""
        if self._journal is None or len(self.held):
            return
        try:
            self._journal.check()
            self._set_journal_error(None)
        except EdgeHalError as error:
            self._set_journal_error(error)

    def keep_belief(self) -> None:
        """Keep the newest belief with the journal, if all events that it names are stored. Events are not held back
        where that fails; a change is logged."""
        noted = self.noted
        if self._journal is None or noted is None or noted is self._kept or self.held.journal_error is not None:
            return
        if noted.newest_seq >= self._journal.next_seq:
            return
        try:
            self._journal.keep_belief(noted.row())
            self._kept, why = noted, None
        except EdgeHalError as error:
            why = error.why
            if why != self._unkept:
                threads.log.warning(
                    "the belief of '%s' cannot be kept: %s; a restart would begin without it", self.stream, why
                )
        self._unkept = why

    def prune(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(EdgeHalError):  # the next append reports it
                self._journal.prune()

    def _dated(self, event: Event, waited_ns: int) -> Event:
        """The event as it is stored and sent, the same bytes both times."""
        waited_ms = waited_ns / 1e6
        self.latency.add("publish", waited_ms)
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
            self._set_journal_error(error)
            return False
        except ValueError as error:  # trying again does not help: this stream ends, the others go on
            self.held.fail(EdgeHalError(f"'{self.stream}' is not published any more", str(error)))
            return False
        self._set_journal_error(None)
        self.latency.add("journal", (time.monotonic_ns() - began_ns) / 1e6)
        return True

    def _set_journal_error(self, error: EdgeHalError | None) -> None:
        """Note why the journal cannot be written, or that it can. A change is logged."""
        before, self.held.journal_error = self.held.journal_error, error
        if error is not None and (before is None or before.why != error.why):
            threads.log.error("%s: %s; events wait for it", error.what, error.why)
        elif error is None and before is not None:
            threads.log.warning("the journal of '%s' can be written again", self.stream)

    @property
    def _journal_id(self) -> str | None:
        return None if self._journal is None else self._journal.id
