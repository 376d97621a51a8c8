"""The loop of every bridge: takes events from a publisher, gives them to a target, and acknowledges them afterwards.

An event is acknowledged when the target has confirmed it. So it is given at least once, whatever is killed and when. An
event that is given again has the same identity, and the target can tell that it has it already.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost
from edge_hal.files import file_error

from ..delivery.client import Subscription, subscribe
from ..network.curve_keys import ClientKeys
from ..network.endpoint import DEFAULT_ENDPOINT
from ..stop import Stop, signals
from ..threads import Worker

log = logging.getLogger("edge_hal")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LARGEST_BATCH = 1000
LATE_S = 30.0
"""The log warns of a target that has not answered for this long."""


@dataclass(frozen=True)
class Identity:
    """Names an event, as long as there are journals. `journal` is the session of the run where there was no journal."""

    journal: str
    stream: str
    seq: int


@dataclass(frozen=True)
class Delivery:
    """A durable event, or `lost`, and its JSON as it was published."""

    event: Event
    raw: bytes

    @property
    def identity(self) -> Identity:
        """That of `lost` is the identity of the first event which is lost."""
        run, event = self.event.run, self.event
        seq = event.from_ if isinstance(event, Lost) else event.seq  # type: ignore[attr-defined]
        return Identity(str(run.get("journal") or run.get("session") or ""), event.stream, seq)


class Unavailable(Exception):
    """The target does not confirm at present. The same call is repeated later, after `pause_s` if that is given."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class Stopped(BaseException):
    """A signal has ended a wait."""


class Target(Protocol):
    """What events are carried to. Each method is called from one thread.

    With an attribute `interruptible` that is true, a signal ends `open` and `deliver` at any place, by `Stopped`.
    Without it they end by themselves.
    """

    def open(self) -> None:
        """Connect. Raises Unavailable, and EdgeHalError if trying again would not help."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Returns when the target has confirmed all events of the batch, in order. Raises as `open`; then the whole
        batch is given again."""

    def report(self, event: Event, raw: bytes) -> None:
        """A report: `now`, `heartbeat` or `snapshot`. It need not arrive."""

    def close(self) -> None:
        """Also called if `open` has failed."""


@dataclass(frozen=True)
class Source:
    """The publisher that events come from, and the `cursor`, the file that keeps the position (docs/events.md)."""

    cursor: Path
    endpoint: str = DEFAULT_ENDPOINT
    stream: str | None = None
    replay: str | None = None
    keys: ClientKeys | None = None


class Waits:
    """Places where a signal ends the wait. Elsewhere it is noted, and ends the next wait: it tears nothing apart. Who
    asks for the stop in another thread waits for the next message of the publisher."""

    def __init__(self, stop: Stop) -> None:
        self._stop, self._inside, self._thread = stop, False, threading.get_ident()
        stop.on_ask(self._interrupt)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        try:
            self._inside = True
            if self._stop.asked:
                raise Stopped
            yield
        finally:
            self._inside = False

    def _interrupt(self) -> None:
        if self._stop.asked and self._inside and threading.get_ident() == self._thread:
            raise Stopped


class Lateness:
    """Warns, once for each call of a target, that it takes long: nothing else tells of a target that keeps the
    connection and never confirms."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._told = False
        self._ended = threading.Event()
        self._thread = Worker(self._watch, "bridge-lateness", restarts=2)

    def __enter__(self) -> Lateness:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.finish()

    @contextmanager
    def call(self) -> Iterator[None]:
        self._told, self._began_s = False, time.monotonic()
        try:
            yield
        finally:
            self._began_s = None

    def _watch(self) -> None:
        while not self._ended.wait(LATE_S / 10):
            began_s = self._began_s
            if began_s is not None and not self._told and time.monotonic() - began_s >= LATE_S:
                self._told = True
                log.warning("the target has not confirmed for %g s; still waiting, no event is lost", LATE_S)


def bridge(source: Source, target: Target, stop: Stop | None = None, *, largest_batch: int = LARGEST_BATCH) -> None:
    """Carry events until SIGINT or SIGTERM. What was not confirmed by then comes again at the next call.

    Args:
        largest_batch: the most events that are acknowledged together, and that come again after a kill.

    Raises:
        EdgeHalError: the target or the publisher refuses; another bridge uses the cursor.
    """
    stop = stop or Stop()
    with _lock(source.cursor), signals(stop), Lateness() as lateness:
        waits = Waits(stop)

        def ask(work: Callable[[], None]) -> None:
            def once() -> None:
                interruptible = getattr(target, "interruptible", False)
                with lateness.call(), waits.interruptible() if interruptible else nullcontext():
                    work()

            _until_available(once, waits)

        try:
            ask(target.open)
            with subscribe(
                source.endpoint,
                source.stream,
                replay=source.replay,
                begin="oldest",
                cursor=source.cursor,
                keys=source.keys,
            ) as events:
                while True:
                    _carry_once(events, target, waits, ask, largest_batch)
        except Stopped:
            log.info("the bridge was stopped")
        finally:
            target.close()


def _carry_once(
    events: Subscription, target: Target, waits: Waits, ask: Callable[[Callable[[], None]], None], largest_batch: int
) -> None:
    """Wait for an event, and carry it with those that are here already: a page of past events, or what came meanwhile.
    So a target that is slow for each batch is given larger ones."""
    batch: list[Delivery] = []
    with waits.interruptible():
        event = next(events)
        while event.durable or isinstance(event, Lost):
            batch.append(Delivery(event, events.raw))
            if isinstance(event, Lost):
                log.warning("events %d to %d of '%s' are lost: not kept any more", event.from_, event.to, event.stream)
            if not events.waiting or len(batch) == largest_batch:
                break
            event = next(events)
    if batch:
        ask(lambda: target.deliver(batch))
        events.ack()
    if not (event.durable or isinstance(event, Lost)):
        target.report(event, events.raw)


def _until_available(work: Callable[[], None], waits: Waits) -> None:
    """Repeat `work`, at growing intervals, until it does not raise Unavailable."""
    told = ""
    for attempt in itertools.count():
        try:
            work()
            break
        except Unavailable as error:
            if str(error) != told:
                log.warning("%s; trying again until it works", error)
            told = str(error)
            # Many bridges that wait for one broker do not come back at the same moment.
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            with waits.interruptible():
                time.sleep(pause_s if error.pause_s is None else error.pause_s)
    if told:
        log.info("the target can be reached again")


@contextmanager
def _lock(cursor: Path) -> Iterator[None]:
    """Raises EdgeHalError if another bridge uses the cursor: both would move it."""
    path = cursor.with_name(f"{cursor.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_error(f"cannot use the cursor {cursor}", error, "choose another --cursor", path=path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            todo = "stop it, or choose another --cursor"
            raise EdgeHalError(f"the cursor {cursor} is in use", "another bridge moves it", todo) from None
        except OSError as error:  # some network file systems have no locks
            raise file_error(f"cannot lock the cursor {cursor}", error, "choose another --cursor", path=path) from error
        yield
    finally:
        os.close(descriptor)
