"""The run: frame, tick, encode, step, decide, publish, settle; until the source ends or a signal comes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import DEFAULT_PATH, Bundle, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event

from .clock import Break, FrameClock, Tick
from .endpoint import DEFAULT_ENDPOINT
from .journal import Journal, Retention, default_path
from .keys import ServerKeys
from .latency import Latency
from .metrics import MetricsServer
from .publisher import Publisher
from .recognizer import Recognizer
from .report import Status
from .source import Source, open_source


@dataclass(frozen=True)
class RunOptions:
    """Everything a run can be told. `decoder` overrides thresholds of the bundle by name; `seconds`
    ends the run after so much stream time; `decide_every` counts ticks; `journal` None keeps no events."""

    bundle: Path = DEFAULT_PATH
    camera: str = "0"
    endpoint: str = DEFAULT_ENDPOINT
    pace: str = "realtime"
    stream: str = "default"
    decoder: Mapping[str, float] = field(default_factory=dict)
    decide_every: int | None = None
    threads: int = 1
    wait_subscribers: int = 0
    max_hold_ms: float = 500.0
    fps: float | None = None
    seconds: float | None = None
    allow_uncertified: bool = False
    insecure: bool = False
    journal: Path | None = None
    retention: Retention | None = None
    replay: str | None = None
    keys: ServerKeys | None = None
    metrics: str | None = None


@dataclass(frozen=True)
class Summary:
    """What a run did. `counters` obey both conservation laws; `events` counts the durable ones;
    `fps` is ticks per second of wall time; `latency_ms` holds p50 and p99 of each stage over the
    last ticks."""

    reason: str
    counters: Mapping[str, Any]
    events: int
    fps: float
    latency_ms: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.counters,
            "events": self.events,
            "fps": self.fps,
            "latency_ms": self.latency_ms,
            "reason": self.reason,
        }


class Stop:
    """Asked for by a signal (or by whoever calls the run); wakes what waits."""

    def __init__(self) -> None:
        self.asked = False
        self._wakers: list[Callable[[], None]] = []

    def on_ask(self, waker: Callable[[], None]) -> None:
        self._wakers.append(waker)

    def ask(self) -> None:
        self.asked = True
        for waker in self._wakers:
            waker()


def run(
    options: RunOptions,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Recognise one source until it ends, `stop` is asked for, or SIGINT or SIGTERM comes.

    Args:
        on_ready: called with the endpoint once it is bound, before anything is captured.
        on_event: called in this thread with each durable event as it is handed to the publisher.

    Raises:
        EdgeHalError: something named in the options cannot be used, or failed on the way; then an `end`
            event with reason `error` was published.
    """
    stop = stop or Stop()
    bundle = load_bundle(options.bundle, allow_uncertified=options.allow_uncertified)
    _check(options, bundle)
    decoder = dataclasses.replace(bundle.decoder, **options.decoder)
    latency = Latency()
    size = bundle.spec.front_end.size
    source = open_source(options.camera, options.pace, vector_size=size, fps=options.fps)
    try:
        with _signals(stop), _journal(options) as journal, ExitStack() as closing:
            recognizer = Recognizer(
                bundle,
                stream=options.stream,
                decoder=decoder,
                decide_every=options.decide_every,
                next_seq=itertools.count(0 if journal is None else journal.next_seq).__next__,
                threads=options.threads,
            )
            with Publisher(
                options.endpoint,
                options.stream,
                journal=journal,
                replay=options.replay,
                keys=options.keys,
                insecure=options.insecure,
                latency=latency,
            ) as publisher:
                if options.metrics is not None:
                    closing.enter_context(MetricsServer(options.metrics, publisher.vitals, insecure=options.insecure))
                stop.on_ask(source.wake)
                stop.on_ask(publisher.wake)
                if on_ready is not None:
                    on_ready(publisher.endpoint)
                publisher.wait_subscribers(options.wait_subscribers, lambda: stop.asked)
                session = _Session(options, recognizer, source, publisher, latency, stop, on_event)
                reason, counters, elapsed_s = session.run()
    finally:
        source.close()
    ticks_per_s = counters["ticks"] / elapsed_s if elapsed_s > 0 else 0.0
    return Summary(reason, counters, session.events, round(ticks_per_s, 2), latency.summary())


class _Session:
    """One source through one recogniser, from `start` to `end`."""

    def __init__(
        self,
        options: RunOptions,
        recognizer: Recognizer,
        source: Source,
        publisher: Publisher,
        latency: Latency,
        stop: Stop,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.events = 0
        self._options, self._recognizer, self._source = options, recognizer, source
        self._publisher, self._latency = publisher, latency
        self._stop, self._on_event = stop, on_event
        self._name = secrets.token_hex(8)
        self._vector: NDArray[np.float32] | None = None
        self._clock = FrameClock(
            recognizer.spec.model_hz, source.period_ns, options.max_hold_ms, source.phase_ns
        )

    def run(self) -> tuple[str, dict[str, Any], float]:
        """Why it ended, the final counters, and how many seconds of wall time it took."""
        begun_ns = time.monotonic_ns()
        self._publish(self._recognizer.start(self._source.name))
        self._report()
        if not self._stop.asked:
            self._source.start()
        try:
            reason = self._recognise()
            for item in self._clock.finish(self._source.now_ns()):
                self._handle(item)
        except EdgeHalError:
            self._end("error")
            raise
        counters = self._end(reason)
        return reason, counters, (time.monotonic_ns() - begun_ns) / 1e9

    def _recognise(self) -> str:
        """The loop. Returns why it is over."""
        source, clock = self._source, self._clock
        until_ns = None if self._options.seconds is None else round(self._options.seconds * 1e9)
        while not self._stop.asked:
            if until_ns is not None and source.now_ns() >= until_ns:
                return "eof"
            due_ns = clock.next_ns
            taken = source.take(due_ns)
            happened: list[Tick | Break] = []
            if taken is not None:
                happened = clock.push(*taken)
            elif source.ended is not None:
                return source.ended
            elif due_ns is not None and due_ns <= source.now_ns():
                happened = clock.advance(due_ns)  # not to now: a frame may have come since
            for item in happened:
                self._handle(item)
            self._report()
        return "signal"

    def _handle(self, item: Tick | Break) -> None:
        if isinstance(item, Break):
            self._publish(self._recognizer.gap(item))
            return
        due_ns = time.monotonic_ns()
        if item.fresh or self._vector is None:
            self._vector = self._recognizer.encode(item.frame.data)
        encoded_ns = time.monotonic_ns()
        transition = self._recognizer.tick(self._vector, item.moment)
        stepped_ns = time.monotonic_ns()
        spent = {"encode": encoded_ns - due_ns, "step": stepped_ns - encoded_ns}
        if item.fresh:
            spent = {"capture_to_tick": due_ns - item.frame.captured_ns, **spent}
        if transition is not None:
            self._publish(transition, {name: round(ns / 1e6, 3) for name, ns in spent.items()})
        left_ns = time.monotonic_ns()
        self._recognizer.settle()
        spent["settle"] = time.monotonic_ns() - left_ns
        for name, ns in spent.items():
            self._latency.add(name, ns / 1e6)

    def _publish(self, event: Event, latency_ms: Mapping[str, float] | None = None) -> None:
        run = {"session": self._name, "utc_ns": time.time_ns()}
        if latency_ms is not None:
            run["latency_ms"] = dict(latency_ms)
        event = dataclasses.replace(event, run=run)
        self._publisher.publish(event, wait=self._options.pace == "asap")
        self.events += 1
        if self._on_event is not None:
            self._on_event(event)

    def _report(self) -> None:
        blind = not self._clock.running
        self._publisher.status(Status(self._tally(), blind, {"session": self._name}))

    def _tally(self) -> dict[str, Any]:
        return self._clock.counters.tally(self._source.intake())

    def _end(self, reason: str) -> dict[str, Any]:
        self._source.close()  # nothing is captured after this: the counters are final
        counters = self._tally()
        self._publish(self._recognizer.end(reason, counters))
        return counters


def _check(options: RunOptions, bundle: Bundle) -> None:
    """Refuse before anything is opened what cannot work."""
    if bundle.spec.encoder is None and not options.camera.startswith("features:"):
        raise EdgeHalError(
            f"the bundle {options.bundle} takes feature vectors, not pictures",
            "it was exported without a frame encoder",
            "run it on an array: --camera features:FILE.npy@HZ",
        )
    for name in ("max_hold_ms", "seconds", "threads"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e9:
            raise EdgeHalError(
                f"{name} = {value}",
                "it must be positive",
                f"correct --{name.replace('_', '-')}",
                exit_code=2,
            )


@contextmanager
def _journal(options: RunOptions) -> Iterator[Journal | None]:
    """The journal of a run, if it keeps one. Only the default folder is made; a given one must be there."""
    if options.journal is None:
        yield None
        return
    if options.journal == default_path(options.stream):
        with suppress(OSError):  # opening it says why
            options.journal.parent.mkdir(parents=True, exist_ok=True)
    with Journal(options.journal, options.stream, options.retention) as journal:
        yield journal


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask for a stop; the second one ends the process. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            os._exit(128 + number)
        stop.ask()

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
