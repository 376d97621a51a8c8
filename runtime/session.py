"""The loop of a run: frame, tick, step, decide, journal, publish.

source  ->  clock  ->  recogniser   ->  publisher
frames      ticks      transitions      events, to the journal and then to subscribers
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Moment, Transition

from . import saved_state
from .delivery.publisher import Publisher
from .delivery.report import Status
from .network.descriptors import Descriptors
from .observer import Checkpoint, Observer
from .options import RunOptions
from .overload_warning import OverloadWarning
from .recording.replay_source import ReplaySource
from .reload import Succession, take_over
from .resumption import Resumer
from .sources.base import Source
from .stop import Stop
from .stream.clock import Break, FrameClock, Tick
from .stream.latency import Latency
from .stream.now import NowReporter
from .stream.recognizer import Recognizer

log = logging.getLogger("edge_hal.run")


@dataclass(frozen=True, eq=False)
class _PendingTick:
    """A tick that waits to be stepped: its input vector, and what it has cost so far (ns by stage)."""

    moment: Moment
    vector: NDArray[np.float32]
    spent_ns: dict[str, int]


class Session:
    """One source, one recogniser, from the event `start` to the event `end`.

    Args:
        turn: what is computed is computed within it; a station waits there for the turn of the stream.
    """

    def __init__(
        self,
        options: RunOptions,
        recognizer: Recognizer,
        source: Source,
        publisher: Publisher,
        latency: Latency,
        stop: Stop,
        reloader: Succession,
        observers: Sequence[Observer],
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.events = 0
        self._ended = False
        self._descriptors = Descriptors()
        self._options, self.recognizer, self._source = options, recognizer, source
        self._publisher, self._latency = publisher, latency
        self._stop, self._reloader, self._observers = stop, reloader, observers
        self._turn = turn
        self._name = secrets.token_hex(8)
        self._vector: NDArray[np.float32] | None = None
        self._pending: list[_PendingTick] = []
        self._overload = OverloadWarning()
        self._resumer = Resumer(options.resume_s, source, publisher, observers)
        self._now = NowReporter(0.0 if options.events == "core" else options.now_hz)
        self._clock = FrameClock(
            recognizer.spec.model_hz,
            source.period_ns,
            options.max_hold_ms,
            live=source.live,
            cut=source.live if options.overload is None else options.overload == "cut",
        )
        if source.live:
            recognizer.begin_mid_cycle()
        if isinstance(source, ReplaySource) and source.state is not None:
            self._vector = saved_state.restore(source.state, source, self._clock, recognizer)

    def run(self) -> tuple[str, dict[str, Any], float]:
        """Why it ended, the final counters, and how many seconds of wall time it took."""
        begun_ns = time.monotonic_ns()
        engines, bundle = self.recognizer.engines, self.recognizer.bundle.fingerprint
        log.info("bundle %s on %s, %s", bundle[:12], engines.kind, engines.why, extra={"fields": {"bundle": bundle}})
        try:
            resumed = self._resumer.at_start(self.recognizer)
            self._publish(self.recognizer.start(self._source.name, None if resumed is None else resumed.told()))
            self._report()
            if not self._stop.asked:
                self._source.start()
            reason = self._recognise()
            now_ns = self._source.now_ns()
            self._process(self._clock.finish(now_ns), last=True)
            self._step()
            counters = self._end(reason)
            for observer in self._observers:
                observer.ended(reason, now_ns, self._source.intake())
        except BaseException:  # whatever it is: a stream that began must end
            if self.events and not self._ended:
                with suppress(EdgeHalError):
                    self._end("error")
            raise
        finally:
            for observer in self._observers:
                observer.close()
        return reason, counters, (time.monotonic_ns() - begun_ns) / 1e9

    def health(self) -> dict[str, Any]:
        """The source, the engine and why, descriptors, connections, reloads, and what the observers report."""
        engines = self.recognizer.engines
        health = {
            "source": self._source.health(),
            "engine": {"kind": engines.kind, "why": engines.why},
            "descriptors": self._descriptors.health(),
            **self._reloader.health(),
            "connections": self._publisher.connections(),
        }
        for observer in self._observers:
            health |= observer.health()
        return health

    # --- the loop -------------------------------------------------------------------------------

    def _recognise(self) -> str:
        """Take frames, or let time pass; either makes ticks due. Returns why it ended."""
        source, clock = self._source, self._clock
        until_ns = None if self._options.seconds is None else round(self._options.seconds * 1e9)
        while not self._stop.asked:
            now_ns, due_ns = source.now_ns(), clock.next_ns
            if until_ns is not None and now_ns >= until_ns:
                return "eof"
            taken = source.take(due_ns)
            if taken is not None:
                for observer in self._observers:
                    observer.frame_taken(*taken, source.period_ns)
                clock.announce(source.period_ns)
                if clock.epoch < 0:
                    self._resumer.at_first_frame(self.recognizer)
                self._process(clock.push(*taken))
            elif source.ended is not None:
                return source.ended
            elif due_ns is not None and due_ns <= source.now_ns():
                now_ns = max(due_ns, now_ns)  # no later than that: a frame may have come since
                for observer in self._observers:
                    observer.time_passed(now_ns)
                self._process(clock.advance(now_ns))
            if clock.running and not self._pending:
                for observer in self._observers:
                    observer.idle(now_ns, partial(self._checkpoint, now_ns))
            if clock.epoch >= 0:  # before the first frame no epoch could end, so no gap would tell of the takeover
                successor = self._reloader.poll(self.recognizer)
                if successor is not None:
                    self._take_over(successor, now_ns)
            self._report()
        return "signal"

    def _process(self, items: list[Tick | Break], last: bool = False) -> None:
        """Ticks that are due together are stepped together, so a loop that is late catches up. With pace `asap` they
        are collected up to the next decision. `last`: no epoch follows."""
        if not items:
            return
        with self._turn():
            for item in items:
                if isinstance(item, Tick):
                    if self.recognizer.spoiled:  # the rest of the epoch that the model spoiled
                        continue
                    self._pending.append(self._encode(item))
                else:
                    self._step()
                    self._publish_gap(item, last)
            if self._pending and (self._options.pace != "asap" or len(self._pending) >= self.recognizer.room):
                self._step()

    def _encode(self, tick: Tick) -> _PendingTick:
        """The input vector of a tick. A frame that is held was encoded at an earlier tick."""
        spent_ns: dict[str, int] = {}
        if tick.fresh or self._vector is None:
            for observer in self._observers:
                observer.frame_shown(tick)
            begun_ns = time.monotonic_ns()
            self._vector = self.recognizer.encode(tick.frame.data)
            spent_ns["capture_to_tick"] = begun_ns - tick.frame.captured_ns
            spent_ns["encode"] = time.monotonic_ns() - begun_ns
        return _PendingTick(tick.moment, self._vector, spent_ns)

    def _step(self) -> None:
        """Step all pending ticks in the longest chunks that are allowed: step, decide, publish, settle."""
        recognizer, pending = self.recognizer, self._pending
        while pending:
            begun_ns = time.monotonic_ns()
            batch = pending if len(pending) == 1 else pending[: recognizer.room]
            vectors = np.array([item.vector for item in batch])
            count = recognizer.step(vectors, [item.moment for item in batch])
            stepped_ns = time.monotonic_ns()
            if recognizer.spoiled:
                self._clock.end_spoiled(recognizer.epoch, pending[count - 1].moment.t_ns)
                pending.clear()
                return
            newest = pending[count - 1]
            spent_ns = {**newest.spent_ns, "step": stepped_ns - begun_ns}
            for events in recognizer.decide():
                spent_ns["decide"] = time.monotonic_ns() - stepped_ns
                for event in events:
                    self._publish(event, spent_ns if isinstance(event, Transition) else None)
                self._resumer.note(recognizer)
                if self._now.due(recognizer.belief, recognizer.belief_t_ns, events):
                    self._publish_now(recognizer)
            decided_ns = time.monotonic_ns()
            recognizer.settle()  # the upper levels, after the event was published
            spent_ns["settle"] = time.monotonic_ns() - decided_ns
            for observer in self._observers:
                observer.stepped(vectors[:count], newest.moment.t_ns, recognizer.pyramid)
            self._latency.add_all(spent_ns)
            for item in pending[: count - 1]:
                self._latency.add_all(item.spent_ns)
            del pending[:count]

    def _publish_gap(self, broken: Break, last: bool) -> None:
        if broken.reason == "overload":
            self._overload.tell(self.recognizer.stream, self.recognizer.spec.model_hz, broken.lost_ticks)
        if broken.reset:
            self._close_cycle()
        resumed = self._resumer.at_break(broken, self.recognizer) if broken.reset and not last else None
        self._publish(self.recognizer.gap(broken, None if resumed is None else resumed.told()))
        if broken.reset:
            self._now.reset()
        self._resumer.resume(self.recognizer, resumed)

    def _close_cycle(self) -> None:
        """The epoch ends: publish what is to be said of its cycle, which may go on in another."""
        for event in self.recognizer.close_cycle():
            self._publish(event)
        self._resumer.close(self.recognizer)

    # --- another bundle -------------------------------------------------------------------------

    def _take_over(self, successor: Recognizer, now_ns: int) -> None:
        """Go on with another bundle, in a new epoch."""
        self._step()
        self._close_cycle()
        self._clock.interrupt("reload")
        take_over(self.recognizer, successor)
        self.recognizer, self._vector = successor, None
        checkpoint = self._checkpoint(now_ns)
        for observer in self._observers:
            observer.bundle_changed(successor, checkpoint)

    def _checkpoint(self, t_ns: int) -> Checkpoint:
        state = saved_state.state_of(self._clock, self.recognizer, self._vector)
        return Checkpoint(t_ns, self._source.intake(), self.recognizer.bundle, state)

    # --- events and reports ---------------------------------------------------------------------

    def _publish(self, event: Event, spent_ns: Mapping[str, int] | None = None) -> None:
        run: dict[str, Any] = {"session": self._name, "utc_ns": time.time_ns()}
        if spent_ns is not None:
            run["latency_ms"] = {stage: round(ns / 1e6, 3) for stage, ns in spent_ns.items()}
        event = dataclasses.replace(event, run=run)
        self._publisher.publish(event, wait=self._source.waits_for_loop)
        self.events += 1
        for observer in self._observers:
            observer.published(event)

    def _publish_now(self, recognizer: Recognizer) -> None:
        report = recognizer.now()
        assert report is not None
        run = {"session": self._name, "utc_ns": time.time_ns()}
        self._publisher.publish(dataclasses.replace(report, run=run), wait=self._source.waits_for_loop)

    def _report(self) -> None:
        counters = self._clock.counters.tally(self._source.intake())
        self._publisher.status(Status(counters, not self._clock.running, {"session": self._name}, self.health()))

    def _end(self, reason: str) -> dict[str, Any]:
        self._ended = True
        self._source.close()  # nothing is captured after this: the counters are final
        counters = self._clock.counters.tally(self._source.intake())
        if reason != "error":
            self._close_cycle()
        end = self.recognizer.end(reason, counters)
        # After an error, events that have their numbers may not have been handed over: the numbers must go on.
        self._publish(dataclasses.replace(end, seq=self._publisher.next_seq))
        return counters
