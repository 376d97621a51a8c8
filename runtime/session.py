"""One source through one recogniser: frame, tick, step, decide, publish, settle.

source -> clock -> recogniser -> publisher
frames    ticks    transitions   events (journalled, then sent)
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Moment

from .checks.selfcheck import SelfCheck, open_selfcheck
from .delivery.publisher import Publisher
from .delivery.report import Status
from .options import RunOptions
from .recording.event_ring import open_recording
from .recording.reader import ReplaySource
from .recording.state_file import State
from .reload import Reloader
from .sources.base import Source
from .stop import Stop
from .stream.clock import Break, FrameClock, Tick
from .stream.latency import Latency
from .stream.recognizer import Recognizer

EPISODE_S = 10.0
"""An overload this long after the last one is another episode, and is warned of again."""

log = logging.getLogger("edge_hal.run")


@dataclass(frozen=True, eq=False)
class _Due:
    """A tick that waits to be stepped: its vector, and what it has cost so far (ns by stage)."""

    moment: Moment
    vector: NDArray[np.float32]
    spent_ns: dict[str, int]


class Session:
    """One source through one recogniser, from `start` to `end`."""

    def __init__(
        self,
        options: RunOptions,
        recognizer: Recognizer,
        source: Source,
        publisher: Publisher,
        latency: Latency,
        stop: Stop,
        reloader: Reloader,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.events = 0
        self._options, self._recognizer, self._source = options, recognizer, source
        self._publisher, self._latency = publisher, latency
        self._stop, self._reloader, self._on_event = stop, reloader, on_event
        self._name = secrets.token_hex(8)
        self._gathers = options.pace == "asap"
        self._recorder = open_recording(options, recognizer.bundle, source)
        self._engine = {"kind": recognizer.engines.kind, "why": recognizer.engines.why}
        self._vector: NDArray[np.float32] | None = None
        self._due: list[_Due] = []
        self._overload_ns: int | None = None
        self._selfcheck = self._open_selfcheck()
        self._clock = FrameClock(
            recognizer.spec.model_hz,
            source.period_ns,
            options.max_hold_ms,
            live=source.live,
            cut=source.live if options.overload is None else options.overload == "cut",
        )
        if isinstance(source, ReplaySource) and source.state is not None:
            self._restore(source.state, source)

    def run(self) -> tuple[str, dict[str, Any], float]:
        """Why it ended, the final counters, and how many seconds of wall time it took."""
        begun_ns = time.monotonic_ns()
        bundle = self._recognizer.bundle.fingerprint
        log.info("bundle %s on %s, %s", bundle[:12], *self._engine.values(), extra={"fields": {"bundle": bundle}})
        self._publish(self._recognizer.start(self._source.name))
        self._report()
        if not self._stop.asked:
            self._source.start()
        try:
            reason = self._recognise()
            now_ns = self._source.now_ns()
            self._follow(self._clock.finish(now_ns))
            self._step()
            counters = self._end(reason)
            if self._recorder is not None:
                self._recorder.ended(reason, now_ns, self._source.intake())
        except EdgeHalError:
            self._end("error")
            raise
        finally:
            if self._recorder is not None:
                self._recorder.close()
        return reason, counters, (time.monotonic_ns() - begun_ns) / 1e9

    def health(self) -> dict[str, Any]:
        """How the source is, what steps and why that, and how the state is."""
        health = {"source": self._source.health(), "engine": self._engine}
        return health if self._selfcheck is None else {**health, "selfcheck": self._selfcheck.health()}

    # --- the flow -------------------------------------------------------------------------------

    def _recognise(self) -> str:
        """A frame comes, or time passes: both make ticks due. Returns why it is over."""
        source, clock = self._source, self._clock
        until_ns = None if self._options.seconds is None else round(self._options.seconds * 1e9)
        while not self._stop.asked:
            now_ns, due_ns = source.now_ns(), clock.next_ns
            if until_ns is not None and now_ns >= until_ns:
                return "eof"
            taken = source.take(due_ns)
            if taken is not None:
                if self._recorder is not None:
                    self._recorder.took(*taken, source.period_ns)
                clock.announce(source.period_ns)
                self._follow(clock.push(*taken))
            elif source.ended is not None:
                return source.ended
            elif due_ns is not None and due_ns <= source.now_ns():
                now_ns = max(due_ns, now_ns)  # not this instant: a frame may have come since
                if self._recorder is not None:
                    self._recorder.passed(now_ns)
                self._follow(clock.advance(now_ns))
            if self._recorder is not None and clock.running and not self._due and self._recorder.full(now_ns):
                self._recorder.go_on(now_ns, source.intake(), self._recognizer.bundle, self._state())
            successor = self._reloader.poll(self._recognizer)
            if successor is not None:
                self._take_over(successor, now_ns)
            self._report()
        return "signal"

    def _follow(self, happened: list[Tick | Break]) -> None:
        """Ticks that are due together are stepped together: a loop that comes late catches up. A file
        that waits gathers them, up to the next decision."""
        for item in happened:
            if isinstance(item, Tick):
                self._due.append(self._encode(item))
            else:
                self._step()
                self._tell(item)
        if self._due and (not self._gathers or len(self._due) >= self._recognizer.room):
            self._step()

    def _encode(self, tick: Tick) -> _Due:
        """The vector of a tick; a frame that is held was encoded before."""
        spent_ns: dict[str, int] = {}
        if tick.fresh or self._vector is None:
            if self._recorder is not None:
                self._recorder.shows(tick)
            begun_ns = time.monotonic_ns()
            self._vector = self._recognizer.encode(tick.frame.data)
            spent_ns["capture_to_tick"] = begun_ns - tick.frame.captured_ns
            spent_ns["encode"] = time.monotonic_ns() - begun_ns
        return _Due(tick.moment, self._vector, spent_ns)

    def _step(self) -> None:
        """Step all ticks that wait, in the longest legal chunks: step, decide, publish, settle."""
        recognizer, due = self._recognizer, self._due
        while due:
            begun_ns = time.monotonic_ns()
            batch = due if len(due) == 1 else due[: recognizer.room]
            vectors = np.array([item.vector for item in batch])
            count = recognizer.step(vectors, [item.moment for item in batch])
            stepped_ns = time.monotonic_ns()
            spent_ns = {**due[count - 1].spent_ns, "step": stepped_ns - begun_ns}
            if recognizer.decision_due:
                transition = recognizer.decide()
                spent_ns["decide"] = time.monotonic_ns() - stepped_ns
                if transition is not None:
                    self._publish(transition, spent_ns)
            left_ns = time.monotonic_ns()
            recognizer.settle()  # the upper levels: the event has left
            spent_ns["settle"] = time.monotonic_ns() - left_ns
            if self._selfcheck is not None:
                self._selfcheck.saw(vectors[:count], due[count - 1].moment.t_ns, recognizer.pyramid)
            self._latency.add_all(spent_ns)
            for item in due[: count - 1]:
                self._latency.add_all(item.spent_ns)
            del due[:count]

    def _tell(self, broken: Break) -> None:
        if broken.reason == "overload":
            now_ns = time.monotonic_ns()
            if self._overload_ns is None or now_ns - self._overload_ns > EPISODE_S * 1e9:
                log.warning(
                    "%s: too slow for %g ticks a second, %d were cut; a smaller model, a lower model_hz or "
                    "fewer streams would help",
                    self._recognizer.stream,
                    self._recognizer.spec.model_hz,
                    broken.lost_ticks,
                )
            self._overload_ns = now_ns
        self._publish(self._recognizer.gap(broken))
        if broken.reset and self._selfcheck is not None:
            self._selfcheck.reset()

    # --- another bundle, another beginning ------------------------------------------------------

    def _take_over(self, successor: Recognizer, now_ns: int) -> None:
        """Another bundle from here on, in a new epoch: its state cannot be that of the old one."""
        self._step()
        self._clock.interrupt("reload")
        successor.succeed(self._recognizer)
        self._recognizer, self._vector = successor, None
        self._engine = {"kind": successor.engines.kind, "why": successor.engines.why}
        if self._selfcheck is not None:
            self._selfcheck.close()
            self._selfcheck = self._open_selfcheck()
        bundle = successor.bundle.fingerprint
        log.info("bundle %s takes over", bundle[:12], extra={"fields": {"bundle": bundle}})
        if self._recorder is not None:
            self._recorder.go_on(now_ns, self._source.intake(), successor.bundle, self._state())

    def _open_selfcheck(self) -> SelfCheck | None:
        every_s = self._options.selfcheck_s
        return None if every_s is None else open_selfcheck(self._recognizer, every_s, self._options.threads)

    def _state(self) -> State:
        """All that the events to come depend on, where no tick waits to be stepped."""
        return {"clock": self._clock.state(), "recognizer": self._recognizer.state(), "vector": self._vector}

    def _restore(self, state: State, source: ReplaySource) -> None:
        frame = state["clock"]["frame"]
        self._clock.restore(state["clock"], None if frame is None else source.frame(*frame))
        self._recognizer.restore(state["recognizer"])
        self._vector = state["vector"]

    # --- what others see ------------------------------------------------------------------------

    def _publish(self, event: Event, spent_ns: Mapping[str, int] | None = None) -> None:
        run: dict[str, Any] = {"session": self._name, "utc_ns": time.time_ns()}
        if spent_ns is not None:
            run["latency_ms"] = {stage: round(ns / 1e6, 3) for stage, ns in spent_ns.items()}
        event = dataclasses.replace(event, run=run)
        self._publisher.publish(event, wait=self._source.waits_for_loop)
        self.events += 1
        if self._recorder is not None:
            self._recorder.told(event)
        if self._on_event is not None:
            self._on_event(event)

    def _report(self) -> None:
        blind = not self._clock.running
        self._publisher.status(Status(self._tally(), blind, {"session": self._name}, self.health()))

    def _tally(self) -> dict[str, Any]:
        return self._clock.counters.tally(self._source.intake())

    def _end(self, reason: str) -> dict[str, Any]:
        if self._selfcheck is not None:
            self._selfcheck.close()
        self._source.close()  # nothing is captured after this: the counters are final
        counters = self._tally()
        self._publish(self._recognizer.end(reason, counters))
        return counters
