"""Whether the procedure is followed: decided steps and the time in, deviations and cycles out.

The rules are those of `procedure.json`: what a step requires before it, which steps are optional and repeatable, how
long a step may last, with what a cycle begins and ends. A deviation is final. One that turns out to be another is
corrected by a later one that names it.

Recognition errs too. A segment that is shorter than `shortest_s` of its step, or less certain than its
`least_confidence`, breaks no rule. The step it names may have occurred, so its absence breaks no rule either. If the
step before goes on after it, nothing has happened. So doubt never makes a deviation. A step that was called skipped
counts sooner. What counts is decided here; `cycles.py` judges it.

A cycle may go on over a pause that nothing was seen of. Steps that fit into the pause may have occurred in it. If all
that the cycle lacks and the begin of another fit, another cycle may have begun; then only what was seen since the pause
breaks a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cycle_reports import Cycle, CycleStep, Deviation
from .cycle_rules import CycleRules
from .cycles import Cycles
from .kept_cycle import LONGEST_AGE_S, KeptCycle, KeptStep
from .rules import Procedure
from .running_cycle import GLIMPSED, LARGEST, RunningCycle, Segment

__all__ = ["Conformance", "Cycle", "CycleStep", "Deviation"]


AFTER_ALL = 0.5
"""A step that was called skipped counts after this share of `shortest_s`: only the kind of the mistake may change."""


class Conformance:
    """Follows one epoch of one stream.

    Call `decided` with each decision of the decoder, `passed` with the tick whenever time has passed, and `finish` when
    the stream ends. Each returns what is to be reported, in order.

    Args:
        procedure: the rules; its steps are in the order of the labels.
        model_hz: ticks per second.
    """

    def __init__(self, procedure: Procedure, model_hz: float) -> None:
        self._rules, self._hz = CycleRules(procedure, model_hz), model_hz
        self.reset()

    def reset(self, *, mid_cycle: bool = False) -> None:
        """Start a new epoch. `mid_cycle`: the stream may begin within a cycle, as that of a camera does. Then what its
        first cycle lacks is not reported."""
        self._cycles = Cycles(self._rules, RunningCycle.empty(self._rules.labels, from_begin=not mid_cycle))
        self._current: Segment | None = None
        self._candidate: Segment | None = None
        self._tick = 0
        self._unseen, self._begun = -1, -1

    def resume(self, kept: KeptCycle, pause_s: float) -> None:
        """The epoch begins `pause_s` after what was kept of an earlier one. Before its first decision."""
        names, going_on, hz = self._rules.names, kept.going_on, self._hz
        self._cycles = Cycles(self._rules, kept.running(names, hz), len(kept.called))
        self._unseen = round((kept.unseen_s + pause_s) * hz)
        self._begun = -1 if kept.begun is None else names.index(kept.begun)
        if going_on is not None:
            began = -round((going_on.age_s + pause_s) * hz)
            self._current = Segment(
                names.index(going_on.label), began, going_on.confidence, self._unseen, told=going_on.told
            )
            self._cycles.open_confidence = going_on.confidence if kept.open else 1.0

    def kept(self) -> KeptCycle:
        """What is known of the cycle now, for another epoch. Deviations have their numbers."""
        current, candidate, hz = self._current, self._candidate, self._hz
        going_on, begun, unseen = None, self._begun, self._tick
        if current is not None:
            age_s = min(LONGEST_AGE_S, max(0, self._tick - current.watched_from) / hz)
            going_on = KeptStep(self._rules.names[current.label], age_s, current.confidence, current.told)
            unseen = current.delay_ticks
        if candidate is not None:
            begun, unseen = candidate.label, candidate.delay_ticks
        elif self._unseen >= 0:
            unseen = self._unseen + self._tick
        name = None if begun < 0 else self._rules.names[begun]
        return KeptCycle.of(self._cycles.running, self._rules.names, hz, going_on, name, unseen / hz)

    def decided(self, label: int, boundary_tick: int, decision_tick: int, confidence: float) -> list[Deviation | Cycle]:
        """A decision of the decoder; see `Decision`."""
        self._tick = decision_tick
        if self._unseen >= 0:
            self._see_again(label, boundary_tick, decision_tick)
        found = list(self._settle(boundary_tick, decision_tick))
        if self._current is None or label != self._current.label:
            self._candidate = Segment(label, boundary_tick, confidence, decision_tick - boundary_tick)
        return [*found, *self._advance(decision_tick)]

    def passed(self, tick: int, probability: NDArray[np.floating] | None = None) -> list[Deviation | Cycle]:
        """Time has passed up to `tick`, and the label is the same. `probability`: (K,) what is believed since the last
        call."""
        if probability is not None:
            ticks = max(0, tick - self._tick)
            self._cycles.running.believed += probability * ticks
            if self._candidate is not None:
                self._candidate.believe(float(probability[self._candidate.label]), ticks)
        self._tick = max(tick, self._tick)
        return list(self._advance(self._tick))

    def finish(self, tick: int) -> list[Deviation | Cycle]:
        """The epoch ends at `tick`. A cycle whose last step was seen is closed with what it lacks. Of one that was
        under way it is only said that it is not complete; nothing if the epoch saw none of it. It can be kept still."""
        self._tick = max(tick, self._tick)
        now = self._tick
        return [*self._settle(now, now), *self._advance(now), *self._cycles.finish(now)]

    def done(self) -> NDArray[np.int64]:
        """(K,) how often each step has occurred in the cycle that goes on."""
        done: NDArray[np.int64] = self._cycles.running.done.copy()
        return done

    def came_before(self, label: int) -> bool:
        """Whether the step has occurred in the cycle that goes on, besides the segment that counted last."""
        going_on = self._current is not None and self._current.label == label
        return bool(self._cycles.running.done[label] > going_on)

    # --- segments -------------------------------------------------------------------------------

    def _see_again(self, label: int, boundary_tick: int, decision_tick: int) -> None:
        """The first decision after a pause. What fits between the last one before it and this may have occurred."""
        cycle, current, hidden = self._cycles.running, self._current, self._unseen + decision_tick
        self._unseen = -1
        if self._begun not in (-1, label):
            cycle.doubtful[self._begun] = GLIMPSED
        self._begun = -1
        rest = sum(self._rules.shortest[step] for step in self._rules.missing(cycle))
        cycle.another = cycle.another or bool(hidden >= rest + self._rules.shortest_begin)
        fit = self._rules.shortest <= hidden
        cycle.doubtful[fit] = np.maximum(cycle.doubtful[fit], GLIMPSED)  # in this cycle or in the next one
        if current is not None:
            if label == current.label:
                cycle.go_on(label, boundary_tick)
                current.delay_ticks = decision_tick - boundary_tick
            if fit[np.arange(self._rules.labels) != current.label].any():  # it may have begun anew
                current.watched_from = boundary_tick

    def _settle(self, boundary_tick: int, tick: int) -> Iterator[Deviation | Cycle]:
        """Another segment begins at `boundary_tick`: the candidate has its full length now."""
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return
        if self._counts(candidate, boundary_tick):
            yield from self._confirm(candidate, tick)
        else:
            self._cycles.glimpse(candidate.label)
            # It was not only a flicker, so what goes on now may have begun anew.
            if (
                self._current is not None
                and boundary_tick - candidate.begin_tick >= self._rules.shortest[candidate.label]
            ):
                self._current.watched_from = boundary_tick

    def _advance(self, tick: int) -> Iterator[Deviation | Cycle]:
        candidate = self._candidate
        if candidate is not None and self._counts(candidate, tick + 1 - candidate.delay_ticks):
            self._candidate = None
            yield from self._confirm(candidate, tick)
        if self._unseen < 0 and self._candidate is None and self._current is not None:
            yield from self._cycles.check_duration(self._current, tick)

    def _counts(self, segment: Segment, end_tick: int) -> bool:
        label, cycle, shortest = segment.label, self._cycles.running, float(self._rules.shortest[segment.label])
        if cycle.skipped[label] >= 0 and not self._rules.begins_another(cycle, label):
            shortest *= AFTER_ALL
        long = end_tick - segment.begin_tick >= shortest
        return long and segment.confidence >= self._rules.steps[label].least_confidence

    def _confirm(self, segment: Segment, tick: int) -> Iterator[Deviation | Cycle]:
        self._current = segment
        yield from self._cycles.follow(segment, tick)

    # --- state ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A copy of all that later reports depend on, besides the procedure: arrays of constant shape."""
        segments, confidence = np.full((2, 6), -1, np.int64), np.array([0.0, 0.0, self._cycles.open_confidence])
        for row, segment in enumerate((self._current, self._candidate)):
            if segment is not None:
                more = (segment.told, segment.watched_from, segment.samples)
                segments[row] = (segment.label, segment.begin_tick, segment.delay_ticks, *more)
                confidence[row] = segment.confidence
        counts = np.array([self._cycles.number, self._tick, self._unseen, self._begun], np.int64)
        return {"cycle": self._cycles.running.state(), "segments": segments, "confidence": confidence, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state` with the same procedure. Raises ValueError if a number is out of range."""
        cycle = RunningCycle.of_state(state["cycle"])
        number, tick, unseen, begun = state["counts"].tolist()
        rows, [*confidence, of_open] = state["segments"].tolist(), state["confidence"].tolist()
        held = [
            None if label < 0 else Segment(label, begin, sure, delay, told > 0, watched, max(1, samples))
            for (label, begin, delay, told, watched, samples), sure in zip(rows, confidence, strict=True)
        ]
        if not (
            len(cycle.done) == self._rules.labels
            and 0 <= number < LARGEST
            and 0 <= tick < LARGEST
            and -1 <= unseen < LARGEST
            and -1 <= begun < self._rules.labels
            and all(s is None or s.label < self._rules.labels for s in held)
            and state["segments"].min() > -LARGEST
            and state["segments"].max() < LARGEST
            and all(0 <= sure <= 1 for sure in (*confidence, of_open))
            and max(cycle.skipped.max(), cycle.numbers.max()) < max(number, 1)
        ):
            raise ValueError("the state of the procedure is out of range")
        self._cycles = Cycles(self._rules, cycle, number, of_open)
        self._tick, self._unseen, self._begun = tick, unseen, begun
        self._current, self._candidate = held
