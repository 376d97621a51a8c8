"""The recogniser of one stream: ticks in, events out. The loop of a run and the Python API both use it.

For each tick: `encode` (if its frame is fresh), `step`, `decide` if a decision is due, and then, once the event is
published, `settle`. Up to `room` ticks may be stepped at once; the results are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.decoding.belief import Belief, BeliefTracker
from edge_hal.decoding.decode import decide_every as default_decide_every
from edge_hal.decoding.decode import memory_ticks, split_heads
from edge_hal.decoding.decoder import Decision, Decoder
from edge_hal.decoding.kept_belief import KeptBelief
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Moment, Now, Start, Transition
from edge_hal.procedure.kept_cycle import KeptCycle
from edge_hal.runtime.engines.engine import Engines

from .clock import Break
from .deviation_reports import DeviationReports
from .durable_events import DurableEvents
from .frame_input import FrameInput
from .now import now_event
from .posterior_check import PosteriorCheck
from .pyramid import PyramidStream
from .recent_ticks import RecentTicks
from .restored import check_belief, check_decoder, restored_moment


class Recognizer:
    """One stream of one bundle. `edge_hal.runtime.model.Model.stream` makes it.

    Args:
        engines: those of this stream.
        decoder: that of this stream, at the beginning of an epoch.
        tracker: follows the belief of this stream, at the beginning of an epoch; None without a procedure.
        stream: the name that events carry; `/` separates topics and cannot be part of it.
        decide_every: ticks between decisions, by default those of `decoding.decode.decide_every`.
        next_seq: gives each durable event its number; default counts from 0.
        procedure_events: report deviations and cycles, if the procedure has rules, and unfamiliar input.

    Raises:
        EdgeHalError: a bad name or number, or thresholds that the bundle has no use for.
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: Engines,
        decoder: Decoder,
        tracker: BeliefTracker | None = None,
        *,
        stream: str = "default",
        decide_every: int | None = None,
        next_seq: Callable[[], int] | None = None,
        procedure_events: bool = True,
    ) -> None:
        if not stream or "/" in stream:
            raise EdgeHalError(f"'{stream}' cannot name a stream", "a name is not empty and has no '/'", exit_code=2)
        if decide_every is not None and decide_every < 1:
            raise EdgeHalError(f"decide_every = {decide_every}", "it must be at least 1 tick", exit_code=2)
        self.bundle, self.engines, self.stream = bundle, engines, stream
        self.spec = spec = bundle.spec
        self.pyramid = PyramidStream(spec, engines.levels)
        self._input = FrameInput(bundle, engines.encoder, stream)
        self._decoder, self._tracker = decoder, tracker
        self.belief: Belief | None = None
        self._believed_at = Moment(0, 0, 0)
        numbers, thresholds = next_seq or itertools.count().__next__, decoder.config.fingerprint()
        self._events = DurableEvents(stream, spec.labels, spec.model_hz, bundle.fingerprint, thresholds, numbers)
        self._decide_every = decide_every or default_decide_every(decoder.config, spec)
        self._decided = 0  # ticks whose decision was taken, if one was due
        self._reports = DeviationReports(bundle, decoder.config, stream, numbers, wanted=procedure_events)
        self._recent = RecentTicks(self.pyramid.ring, memory_ticks(spec))
        self.since: Moment | None = None
        self._posteriors = PosteriorCheck(
            f"bundle {bundle.fingerprint[:12]} on {engines.kind}",
            f"run another bundle, or export this one again; {bundle.path} does not work on this input",
        )

    @property
    def epoch(self) -> int:
        return self.pyramid.epoch

    @property
    def action(self) -> str | None:
        """The current action, which began at `since`; None before the first decision of an epoch."""
        label = self._decoder.label
        return None if label is None else self.spec.labels[label]

    @property
    def belief_t_ns(self) -> int:
        """Stream time of the newest belief; 0 without one."""
        return 0 if self.belief is None else self._believed_at.t_ns

    @property
    def spoiled(self) -> bool:
        """Whether a posterior of the last step was not finite."""
        return self._posteriors.spoiled

    # --- ticks ----------------------------------------------------------------------------------

    def encode(self, data: NDArray[Any]) -> NDArray[np.float32]:
        """A picture, or a vector, as the input vector of level 0: (D,) float32. See `FrameInput.vector`."""
        return self._input.vector(data)

    def check(self, data: NDArray[Any]) -> None:
        """Raises EdgeHalError if `encode` would, but does not run the encoder."""
        self._input.check(data)

    @property
    def room(self) -> int:
        """How many ticks may be stepped at once: those until the end of the bin, and until the next decision if a
        decision depends on how many rows the ring holds."""
        due, bin_left = self._decide_every - self.pyramid.ticks % self._decide_every, self.pyramid.room
        if bin_left is None:
            return due
        return bin_left if self._decoder.config.believes else min(due, bin_left)

    def step(self, vectors: NDArray[np.float32], moments: Sequence[Moment]) -> int:
        """Step level 0 once, over as many of these ticks as one step may take.

        Upper levels wait for `settle`, so that the event is published first. `spoiled` is true afterwards if a
        posterior is not finite. Then no decision may follow, and the epoch must end.

        Args:
            vectors: (n, D).

        Returns:
            How many ticks were stepped, at least 1.

        Raises:
            EdgeHalError: a tick is missing, or posteriors were not finite for `SPOILED_S`.
        """
        now = self.pyramid.ticks
        if moments[0].tick != now:
            raise EdgeHalError(f"tick {moments[0].tick} came where tick {now} was due", "no tick may be left out")
        chunk = self.pyramid.legal_chunk(min(self.room, len(moments)))
        part = moments[:chunk]
        self.pyramid.step(vectors[:chunk], [moment.t_ns for moment in part])
        self._recent.add(part)
        self._reports.add(vectors[:chunk])
        self._posteriors.check(self.pyramid.heads(chunk), part[-1].t_ns)
        return chunk

    def decide(self) -> Iterator[list[Event]]:
        """Take the decisions that are due since the last call: for each, the durable events that follow from it, the
        transition first. `belief` is meanwhile that of the decision's tick."""
        first, self._decided = self._decided, self.pyramid.ticks
        for tick in range(first, self.pyramid.ticks):
            if (tick + 1) % self._decide_every:
                continue
            self._recent.newest_due = tick + 1
            steady = None
            if self._tracker is not None:
                rows = self.pyramid.heads(tick - self._tracker.newest_tick + self._tracker.needed, tick)
                self.belief, steady = self._tracker.follow(tick, split_heads(rows, self.spec))
                self._believed_at = self._recent.at(tick)  # may leave the ring before anybody asks
            frames = self.pyramid.ring.rows(0, "frame", max(0, self.pyramid.ticks - len(self._recent)), tick + 1)
            decision = self._decoder.decide(tick, frames, steady)
            events: list[Event] = [] if decision is None else [self._transition(decision)]
            believed, moment = None if steady is None else steady.probability, self._recent.nearest
            events += self._reports.follow(self.epoch, tick, decision, believed, self.action, moment)
            yield events

    def follow(self, vectors: NDArray[np.float32], moments: Sequence[Moment]) -> list[Event]:
        """Step any number of ticks, (n, D), decide whenever a decision is due, and settle. It stops where a posterior
        is not finite; see `step`."""
        events: list[Event] = []
        done = 0
        while done < len(moments):
            done += self.step(vectors[done:], moments[done:])
            if self.spoiled:
                break
            for decided in self.decide():
                events += decided
            self.settle()
        return events

    def now(self) -> Now | None:
        """What is believed since the last decision was due; None before, and without a procedure."""
        if self.belief is None:
            return None
        spec, at, progress = self.spec, self._believed_at, self._reports.progress(self.belief)
        return now_event(
            self.belief, self.stream, self.epoch, spec.labels, spec.model_hz, at, self._recent.find, progress
        )

    def settle(self) -> None:
        """Step the upper levels whose bins are complete; their output serves the next tick."""
        self.pyramid.settle()

    def close_cycle(self) -> list[Event]:
        """The epoch ends: what is to be said of the cycle that goes on. Before `gap` with `reset`, and before `end`."""
        last = self.pyramid.ticks - 1
        return [] if last < 0 else self._reports.finish(self.epoch, last, self._recent.nearest)

    def begin_mid_cycle(self) -> None:
        """The stream may begin within a cycle, as that of a camera does."""
        self._reports.begin_mid_cycle()

    def reset(self) -> None:
        """Begin a new epoch: the state is cleared, and the next transition is from None."""
        self.pyramid.reset()
        self._decoder.reset()
        if self._tracker is not None:
            self._tracker.reset()
        self._reports.reset()
        self._input.reset()
        self._recent.reset()
        self._posteriors.reset()
        self.since, self.belief, self._decided = None, None, 0

    def can_resume(self, belief: KeptBelief) -> bool:
        """Whether it follows a belief about the same labels."""
        return self._tracker is not None and belief.fits(self.spec.labels)

    def cycle(self) -> KeptCycle | None:
        """What is known of the running cycle; None if the procedure is not followed."""
        return self._reports.kept()

    def resume(self, belief: KeptBelief, cycle: KeptCycle | None, pause_s: float) -> None:
        """Begin the epoch with what was believed and known `pause_s` before its first tick. The first transition is
        from None nevertheless. Before the first tick, and only if `can_resume`. `cycle`: of the same labels; None if
        nothing is known, or where the procedure is not followed."""
        assert self._tracker is not None and self.pyramid.ticks == 0
        pause_ticks = max(0, round(pause_s * self.spec.model_hz) - 1)
        self._tracker.resume(*belief.in_order(self.spec.labels, self.spec.model_hz), pause_ticks)
        self._reports.resume(cycle, pause_s)

    # --- state ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that later events depend on, besides the ticks: numbers and arrays, see `state_file`."""
        return {
            "pyramid": self.pyramid.state(),
            "decoder": self._decoder.state(),
            "belief": None if self._tracker is None else self._tracker.state(),
            **self._reports.state(),
            **self._recent.state(),
            "since": None if self.since is None else asdict(self.since),
            "spoiled": self._posteriors.state(),
            **self._input.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, with the same bundle and thresholds. Raises ValueError if its numbers do
        not belong together."""
        ticks = state["pyramid"]["ring"]["written"][0]
        check_decoder(state["decoder"], len(self.spec.labels), ticks)
        self.pyramid.restore(state["pyramid"])
        self._decided = ticks
        self._decoder.restore(state["decoder"])
        if self._tracker is not None:
            check_belief(state["belief"], ticks, self._decide_every + self.spec.first_stride)
            self._tracker.restore(state["belief"])
        self._reports.restore(state)
        self._input.restore(state)
        self._recent.restore(state, ticks - ticks % self._decide_every)
        self.since = None if state["since"] is None else restored_moment(state["since"])
        self._posteriors.restore(state["spoiled"])

    def succeed(self, other: Recognizer) -> None:
        """Continue the numbers of a recogniser of another bundle, whose epoch ends with the next `gap`."""
        self.pyramid.epoch, self._recent.last = other.epoch, other._recent.last

    # --- events ---------------------------------------------------------------------------------

    def start(self, source: str, resumed: dict[str, Any] | None = None) -> Start:
        return self._events.start(self.epoch, source, resumed)

    def gap(self, due: Break, resumed: dict[str, Any] | None = None) -> Gap:
        """The event of a break. If the break ended the epoch, a new one begins."""
        gap = self._events.gap(self.epoch, due, resumed)
        if due.reset:
            self.reset()
            self._recent.last = due.end
        return gap

    def end(self, reason: str, counters: dict[str, Any]) -> End:
        """`reason`: `eof`, `signal`, `source` or `error`."""
        return self._events.end(self.epoch, reason, self._recent.last, counters)

    # --- inside ---------------------------------------------------------------------------------

    def _transition(self, decision: Decision) -> Transition:
        self.since = self._recent.at(decision.boundary_tick)
        warm = decision.decision_tick + 1 >= self.spec.receptive_field
        decided = self._recent.at(decision.decision_tick)
        return self._events.transition(self.epoch, decision, self.since, decided, warm=warm)
