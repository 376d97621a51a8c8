"""The queue between the loop and the publisher's thread: bounded, in order, nothing leaves it before it is safe."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event

HELD_EVENTS = 1000
"""Events that may wait, for the journal or for the processor, before the run stops with an error."""
HELD_FOR_REPORTS = HELD_EVENTS // 2
"""If this many events wait, and the source cannot wait, reports are left out, so that they never stop a run."""
PROGRESS_S = 1.0
"""Time between two reports of progress during a wait for subscribers."""


class HeldEvents:
    """Events with the time of their arrival (monotonic clock, ns). The loop puts, the publisher's thread takes.

    Args:
        next_seq: the number of the first durable event.

    Attributes:
        next_seq: the number that the next durable event must have. An event that was not held does not use its number.
        failure: why nothing of the stream is published any more, if that is so.
        journal_error: why the journal cannot be written at present, if it cannot.
    """

    def __init__(self, next_seq: int = 0) -> None:
        self.next_seq = next_seq
        self.failure: EdgeHalError | None = None
        self.journal_error: EdgeHalError | None = None
        self._events: deque[tuple[Event, int]] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event, endpoint: str, *, wait: bool) -> None:
        """Add an event at the end. A report is left out while the journal cannot be written, and while many events
        wait: it would only take the room of events that must not be lost.

        Args:
            wait: wait for room, if none is left.

        Raises:
            EdgeHalError: no room is left, a number is missing, or the thread has ended. In the last case the event is
                held nevertheless: closing the publisher tries to send it.
        """
        with self._changed:
            if not event.durable and not self._room_for_report(wait):
                return
            while self.failure is None and len(self._events) >= HELD_EVENTS:
                if self.journal_error is not None:
                    what = f"{HELD_EVENTS} events could not be stored, and were not published"
                    raise EdgeHalError(what, self.journal_error.why, self.journal_error.todo)
                if not wait:
                    raise EdgeHalError(
                        f"{HELD_EVENTS} events wait to be published on {endpoint}",
                        "the publisher does not keep up",
                        "give the process more time (--threads 1, fewer streams) or the journal a faster disk",
                    )
                self._changed.wait()
            if event.durable:
                self._count(event)
            self._events.append((event, time.monotonic_ns()))
            if self.failure is not None:
                raise self.failure

    def durable(self) -> int:
        """How many of them are durable events."""
        with self._changed:
            return sum(event.durable for event, _ in self._events)

    def _count(self, event: Event) -> None:
        """The journal takes no event after a missing one: it would keep all later events of the stream back."""
        seq: int = event.seq  # type: ignore[attr-defined]
        if seq != self.next_seq:
            why = f"its number is {seq}, the next one is {self.next_seq}"
            raise EdgeHalError(f"an event of '{event.stream}' cannot be published", why, "")
        self.next_seq = seq + 1

    def _room_for_report(self, wait: bool) -> bool:
        if self.journal_error is not None or self.failure is not None:
            return False
        return wait or len(self._events) < HELD_FOR_REPORTS

    def first(self, count: int) -> list[tuple[Event, int]]:
        """The oldest events, at most `count`. They stay."""
        with self._changed:
            return list(itertools.islice(self._events, count))

    def drop(self, count: int) -> None:
        """Remove the oldest events."""
        with self._changed:
            for _ in range(count):
                self._events.popleft()
            self._changed.notify_all()

    def fail(self, error: EdgeHalError) -> None:
        """The thread has ended: `put` and `wait_for` raise this from now on."""
        with self._changed:
            self.failure = error
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], goes_on: Callable[[], None] = lambda: None) -> None:
        """Until `condition` holds; it is looked at after each `wake`. `goes_on` is called each second meanwhile. Raises
        EdgeHalError if the thread ends."""
        with self._changed:
            while not condition() and self.failure is None:
                goes_on()
                self._changed.wait(PROGRESS_S)
            if self.failure is not None:
                raise self.failure

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()
