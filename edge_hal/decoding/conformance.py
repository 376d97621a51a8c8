"""Whether the procedure is followed: decided steps and the time in, deviations and cycles out.

The rules are those of `procedure.json`: what a step requires before it, which steps are optional and repeatable, how
long a step may last, with what a cycle begins and ends. A deviation is final. One that turns out to be another is
corrected by a later one that names it.

Recognition errs too. A segment that is shorter than `shortest_s` of its step, or less certain than its
`least_confidence`, breaks no rule. The step it names may have occurred, so its absence breaks no rule either. If the
step before goes on after it, nothing has happened. So doubt never makes a deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .procedure import Procedure
from .running_cycle import LARGEST, Cycle, CycleStep, Deviation, RunningCycle

__all__ = ["Conformance", "Cycle", "CycleStep", "Deviation"]

RARE = 0.05
"""A step that follows the last step of a cycle less often than this is not waited for before the cycle is closed."""
RESTART = 2
"""So many repeated steps in a row, beginning with a step that begins a cycle, are a new cycle."""


@dataclass
class _Segment:
    """A segment of decided labels. `told`: it was called overdue."""

    label: int
    begin_tick: int
    confidence: float
    told: bool = False


class Conformance:
    """Follows one epoch of one stream.

    Call `decided` with each decision of the decoder, `passed` with the tick whenever time has passed, and `finish` when
    the stream ends. Each returns what is to be reported, in order.

    Args:
        procedure: the rules; its steps are in the order of the labels.
        model_hz: ticks per second.
    """

    def __init__(self, procedure: Procedure, model_hz: float) -> None:
        steps, names = list(procedure.steps.values()), list(procedure.steps)
        index = {name: label for label, name in enumerate(names)}
        self._steps, self._labels = steps, len(steps)
        self._overdue = [None if s.overdue_s is None else max(1, round(s.overdue_s * model_hz)) for s in steps]
        self._shortest = [math.ceil(step.shortest_s * model_hz) for step in steps]
        self._follower = [index[max(step.then, key=lambda to: step.then[to])] if step.then else None for step in steps]
        self._needs = [{index[to]: sure for to, sure in step.requires.items()} for step in steps]
        self._closed_by = [{index[to]: sure for to, sure in step.not_after.items()} for step in steps]
        ends = [step.ends_cycle for step in steps]
        self._has_ends = any(ends)
        self._last = [
            ends[label]
            and all(
                chance < RARE or steps[index[to]].begins_cycle or steps[index[to]].background
                for to, chance in step.then.items()
            )
            for label, step in enumerate(steps)
        ]
        self.reset()

    def reset(self, *, mid_cycle: bool = False) -> None:
        """Start a new epoch. `mid_cycle`: the stream may begin within a cycle, as that of a camera does. Then what its
        first cycle lacks is not reported."""
        self._cycle = RunningCycle.empty(self._labels, from_begin=not mid_cycle)
        self._current: _Segment | None = None
        self._candidate: _Segment | None = None
        self._number = 0
        self._tick = 0

    def decided(self, label: int, boundary_tick: int, decision_tick: int, confidence: float) -> list[Deviation | Cycle]:
        """A decision of the decoder; see `Decision`."""
        self._tick = decision_tick
        found = list(self._settle(boundary_tick, decision_tick))
        if self._current is None or label != self._current.label:
            self._candidate = _Segment(label, boundary_tick, confidence)
        return [*found, *self._advance(decision_tick)]

    def passed(self, tick: int) -> list[Deviation | Cycle]:
        """Time has passed up to `tick`, and the label is the same."""
        self._tick = max(tick, self._tick)
        return list(self._advance(self._tick))

    def finish(self, tick: int) -> list[Deviation | Cycle]:
        """The epoch ends at `tick`. A cycle whose last step was seen is closed with what it lacks. Of one that was
        under way it is only said that it is not complete."""
        self._tick = max(tick, self._tick)
        found = [*self._settle(self._tick, self._tick), *self._advance(self._tick)]
        if self._cycle.count:
            found += self._close(self._tick, self._tick, None, report=self._ended())
        self._current = None
        return found

    def done(self) -> NDArray[np.int64]:
        """(K,) how often each step has occurred in the cycle that goes on."""
        done: NDArray[np.int64] = self._cycle.done.copy()
        return done

    # --- segments -------------------------------------------------------------------------------

    def _settle(self, boundary_tick: int, tick: int) -> Iterator[Deviation | Cycle]:
        """Another segment begins at `boundary_tick`: the candidate has its full length now."""
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return
        if self._counts(candidate, boundary_tick):
            yield from self._confirm(candidate, tick)
        else:
            self._cycle.doubtful[candidate.label] = 1

    def _advance(self, tick: int) -> Iterator[Deviation | Cycle]:
        candidate = self._candidate
        if candidate is not None and self._counts(candidate, tick + 1):
            self._candidate = None
            yield from self._confirm(candidate, tick)
        current = self._current
        if self._candidate is None and current is not None and not current.told:
            limit = self._overdue[current.label]
            if limit is not None and tick - current.begin_tick >= limit and not self._steps[current.label].background:
                current.told = True
                yield self._deviation(
                    "overdue",
                    self._follower[current.label],
                    current,
                    tick,
                    1.0,
                    {"ticks": tick - current.begin_tick, "limit_ticks": limit},
                    boundary_tick=current.begin_tick + limit,
                )

    def _counts(self, segment: _Segment, end_tick: int) -> bool:
        long = end_tick - segment.begin_tick >= self._shortest[segment.label]
        return long and segment.confidence >= self._steps[segment.label].least_confidence

    def _confirm(self, segment: _Segment, tick: int) -> Iterator[Deviation | Cycle]:
        """The segment counts: what was before it has ended, and it is judged."""
        self._current = segment
        self._cycle.end_step(segment.begin_tick)
        step = self._steps[segment.label]
        if self._cycle.count and self._begins_another(segment.label):
            yield from self._close(segment.begin_tick, tick, segment, report=self._cycle.from_begin)
        elif self._cycle.count and step.background and self._over():
            yield from self._close(segment.begin_tick, tick, None, report=True)
        if not step.background:
            if not self._cycle.count and step.begins_cycle:  # the stream began where a cycle does
                self._cycle = RunningCycle.empty(self._labels)
            yield from self._judge(segment, tick)
            self._cycle.add(segment.label, segment.begin_tick)

    # --- the rules ------------------------------------------------------------------------------

    def _judge(self, segment: _Segment, tick: int) -> Iterator[Deviation | Cycle]:
        cycle, seen = self._cycle, segment.label
        again = bool(cycle.done[seen])
        cycle.repeats = cycle.repeats + 1 if again else 0
        if again and not self._steps[seen].repeatable:
            closed = self._restart(segment, tick)
            if closed is not None:
                yield closed
                return
            evidence = {"times_before": float(cycle.done[seen])}
            yield self._deviation("repeated", self._follower[seen], segment, tick, 1.0, evidence)
            return
        for before, sure in self._needs[seen].items():
            if not again and self._lacks(before) and cycle.skipped[before] < 0:
                cycle.skipped[before] = self._number
                yield self._deviation("skipped", before, segment, tick, sure, {"sure": sure})
        late = {step: sure for step, sure in self._closed_by[seen].items() if cycle.done[step]}
        if not again and not cycle.doubtful[seen]:
            late |= {step: needs[seen] for step, needs in enumerate(self._needs) if seen in needs and cycle.done[step]}
        if late:
            step, told = max(late, key=lambda step: late[step]), int(cycle.skipped[seen])
            corrects = None if told < 0 else told
            evidence = {"sure": late[step]}
            yield self._deviation("out_of_order", step, segment, tick, late[step], evidence, corrects=corrects)

    def _lacks(self, label: int) -> bool:
        """Whether the cycle lacks a step that it must have, for certain."""
        optional = self._steps[label].optional or self._steps[label].background
        return not optional and not self._cycle.done[label] and not self._cycle.doubtful[label]

    def _missing(self) -> tuple[int, ...]:
        return tuple(label for label in range(self._labels) if self._lacks(label))

    def _ended(self) -> bool:
        """Whether a step that ends a cycle has occurred, or may have."""
        cycle = self._cycle
        return any(s.ends_cycle and (cycle.done[n] or cycle.doubtful[n]) for n, s in enumerate(self._steps))

    def _over(self) -> bool:
        """Whether nothing of the cycle can follow: its last step is one after which only a new cycle begins."""
        cycle = self._cycle
        return cycle.count <= len(cycle.steps) and bool(self._last[cycle.steps[cycle.count - 1, 0]])

    def _begins_another(self, label: int) -> bool:
        """Whether this step belongs to the next cycle. After the end of a cycle, a step that begins cycles does, unless
        it is optional and the cycle has been without it. If the end was not seen, it does if that explains what was
        seen with fewer deviations than a repeated step: at most one step is missing."""
        step, cycle = self._steps[label], self._cycle
        if not step.begins_cycle:
            return False
        if not cycle.from_begin:
            return True
        done = bool(cycle.done[label])
        if self._ended():
            return done or not step.optional
        return done and not step.repeatable and len(self._missing()) <= 1

    def _restart(self, segment: _Segment, tick: int) -> Cycle | None:
        """If the cycle was given up and begun again, close it: its last steps, all repeated, begin the next one."""
        cycle, first = self._cycle, self._cycle.count - self._cycle.repeats + 1
        if cycle.repeats < RESTART or cycle.count > len(cycle.steps):
            return None
        if not self._steps[int(cycle.steps[first, 0])].begins_cycle:
            return None
        moved = cycle.steps[first : cycle.count].copy()
        cycle.steps[first : cycle.count] = -1
        cycle.count = first
        closed = cycle.closed(int(moved[0, 1]), tick, self._missing(), False)
        self._cycle = RunningCycle.empty(self._labels)
        for label, begin, end in moved.tolist():
            self._cycle.add(label, begin)
            self._cycle.end_step(end)
        return closed

    def _close(self, end_tick: int, tick: int, seen: _Segment | None, *, report: bool) -> Iterator[Deviation | Cycle]:
        """The cycle ends. With `report`, what it lacks was skipped."""
        cycle, missing = self._cycle, self._missing()
        for label in missing:
            if report and cycle.skipped[label] < 0:
                cycle.skipped[label] = self._number
                at = seen or _Segment(-1, end_tick, 1.0)
                yield self._deviation("skipped", label, at, tick, 1.0, {"cycle_ended": 1.0})
        yield cycle.closed(end_tick, tick, missing, self._ended() or not self._has_ends)
        self._cycle = RunningCycle.empty(self._labels)

    def _deviation(
        self,
        kind: str,
        expected: int | None,
        segment: _Segment,
        tick: int,
        sure: float,
        evidence: Mapping[str, float],
        *,
        boundary_tick: int | None = None,
        corrects: int | None = None,
    ) -> Deviation:
        number = self._number
        self._number += 1
        self._cycle.note(number)
        return Deviation(
            kind=kind,
            expected=expected,
            seen=None if segment.label < 0 else segment.label,
            evidence=dict(evidence),
            boundary_tick=segment.begin_tick if boundary_tick is None else boundary_tick,
            decision_tick=tick,
            confidence=round(min(1.0, segment.confidence * sure), 6),
            number=number,
            corrects=corrects,
        )

    # --- state ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A copy of all that later reports depend on, besides the procedure: arrays of constant shape."""
        segments, confidence = np.full((2, 3), -1, np.int64), np.zeros(2)
        for row, segment in enumerate((self._current, self._candidate)):
            if segment is not None:
                segments[row] = (segment.label, segment.begin_tick, segment.told)
                confidence[row] = segment.confidence
        counts = np.array([self._number, self._tick], np.int64)
        return {"cycle": self._cycle.state(), "segments": segments, "confidence": confidence, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state` with the same procedure. Raises ValueError if a number is out of range."""
        cycle = RunningCycle.of_state(state["cycle"])
        number, tick = state["counts"].tolist()
        rows, confidence = state["segments"].tolist(), state["confidence"].tolist()
        held = [
            None if label < 0 else _Segment(label, begin, sure, told > 0)
            for (label, begin, told), sure in zip(rows, confidence, strict=True)
        ]
        if not (
            len(cycle.done) == self._labels
            and 0 <= number < LARGEST
            and 0 <= tick < LARGEST
            and all(s is None or (s.label < self._labels and -LARGEST < s.begin_tick < LARGEST) for s in held)
            and all(0 <= sure <= 1 for sure in confidence)
            and max(cycle.skipped.max(), cycle.numbers.max()) < max(number, 1)
        ):
            raise ValueError("the state of the procedure is out of range")
        self._cycle, self._number, self._tick = cycle, number, tick
        self._current, self._candidate = held
