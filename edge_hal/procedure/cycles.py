"""The cycles of an epoch: segments that count in, deviations and cycles out, by the rules of the procedure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .cycle_reports import Cycle, Deviation
from .cycle_rules import CycleRules
from .running_cycle import BEGUN, GLIMPSED, RunningCycle, Segment

RESTART = 2
"""This many repeated steps in a row, of which the first begins cycles, are a new cycle."""


class Cycles:
    """One cycle after the other. Each method yields what is to be reported, in order.

    Attributes:
        running: the cycle that goes on.
        number: that of the next deviation.
        open_confidence: the least of the open steps of the cycle; 1 without any.
    """

    def __init__(self, rules: CycleRules, running: RunningCycle, number: int = 0, open_confidence: float = 1.0) -> None:
        self._rules = rules
        self.running, self.number, self.open_confidence = running, number, open_confidence

    def follow(self, segment: Segment, tick: int) -> Iterator[Deviation | Cycle]:
        """A segment counts, decided at `tick`: what was before it has ended, and it is judged."""
        self.running.end_step(segment.begin_tick)
        step = self._rules.steps[segment.label]
        if self.running.count and self._rules.begins_another(self.running, segment.label):
            begins = [*self.running.open_steps, segment.label]
            yield from self._close(segment.begin_tick, tick, segment, report=self.running.from_begin)
            if not any(self._rules.surely_begins[label] for label in begins):  # its begin was not seen for certain
                self.running.doubtful[:] = np.maximum(self.running.doubtful, 1)
        elif self.running.count and step.background and self._rules.over(self.running):
            yield from self._close(segment.begin_tick, tick, None, report=True)
        if not step.background:
            if not self.running.count and self._rules.surely_begins[segment.label]:
                self.running = self.running.next()  # the stream began where a cycle does
            if self._rules.may_begin_another(self.running, segment.label):
                self.running.add(segment.label, segment.begin_tick, open=True)
                self.open_confidence = min(self.open_confidence, segment.confidence)
                return
            yield from self._judge_open(tick)
            yield from self._judge(segment, tick)
            self.running.add(segment.label, segment.begin_tick, ends=step.ends_cycle)

    def glimpse(self, label: int) -> None:
        """A segment was too short or too uncertain to count. It makes the step doubtful."""
        begun = self._rules.steps[label].begins_cycle and self._rules.ended(self.running)
        self.running.doubtful[label] = BEGUN if begun else GLIMPSED

    def check_duration(self, segment: Segment, tick: int) -> Iterator[Deviation]:
        """The segment that counted last goes on at `tick`. If that is too long, it is called overdue, once."""
        limit, lasted = self._rules.overdue[segment.label], tick - segment.delay_ticks - segment.watched_from
        if segment.told or limit is None or lasted < limit or self._rules.steps[segment.label].background:
            return
        segment.told = True
        follower, evidence = self._rules.follower[segment.label], {"ticks": lasted, "limit_ticks": limit}
        at_tick = max(0, segment.watched_from + limit)
        yield self._deviation("overdue", follower, segment, tick, 1.0, evidence, boundary_tick=at_tick)

    def finish(self, tick: int) -> Iterator[Deviation | Cycle]:
        """The epoch ends. The running cycle is closed, and stays as it was: it can be kept still. What it lacks was
        skipped only if its end was seen for certain: it may go on, and a doubt makes no deviation."""
        cycle = self.running
        if not cycle.shown:
            return
        steps = cycle.steps.copy(), cycle.count, cycle.open
        yield from self._close(tick, tick, None, report=self._rules.surely_ended(cycle))
        if self.running.shown:  # steps that may belong to the next cycle
            yield from self._close(tick, tick, None, report=False)
        self.running, (cycle.steps, cycle.count, cycle.open) = cycle, steps

    # --- the rules ------------------------------------------------------------------------------

    def _judge(self, segment: Segment, tick: int) -> Iterator[Deviation | Cycle]:
        seen = segment.label
        if self.running.another and self._rules.contradicts(self.running, seen):
            self.running = self.running.seen()
        cycle = self.running
        again = bool(cycle.done[seen])
        cycle.repeats = cycle.repeats + 1 if again else 0
        if again and not self._rules.steps[seen].repeatable:
            closed = self._restart(segment, tick)
            if closed is not None:
                yield closed
                return
            yield self._repeated(segment, tick, times_before=int(cycle.done[seen]))
            return
        for before, sure in self._rules.needs[seen].items():
            if not again and self._rules.lacks(cycle, before) and cycle.skipped[before] < 0:
                cycle.skipped[before] = self.number
                yield self._deviation("skipped", before, segment, tick, sure, {"sure": sure})
        yield from self._judge_late(segment, tick)

    def _judge_open(self, tick: int) -> Iterator[Deviation]:
        """The steps that might have belonged to the next cycle belong to this one."""
        cycle, confidence = self.running, self.open_confidence
        for label, begin, _ in cycle.steps[cycle.count - cycle.open : cycle.count].tolist():
            segment = Segment(label, max(0, begin), confidence)
            if self._rules.repeated(cycle, label):
                yield self._repeated(segment, tick, times_before=int(cycle.done[label]) - 1)
            yield from self._judge_late(segment, tick)
        cycle.open, self.open_confidence = 0, 1.0

    def _repeated(self, segment: Segment, tick: int, times_before: int) -> Deviation:
        evidence = {"times_before": float(times_before)}
        return self._deviation("repeated", self._rules.follower[segment.label], segment, tick, 1.0, evidence)

    def _judge_late(self, segment: Segment, tick: int) -> Iterator[Deviation]:
        cycle, seen = self.running, segment.label
        late = self._rules.late(cycle, seen)
        if late:
            step, told = max(late, key=lambda step: late[step]), int(cycle.skipped[seen])
            corrects = None if told < 0 else told
            evidence = {"sure": late[step]}
            yield self._deviation("out_of_order", step, segment, tick, late[step], evidence, corrects=corrects)

    def _restart(self, segment: Segment, tick: int) -> Cycle | None:
        """If the cycle was given up and begun again, close it: its last steps, all repeated, begin the next one."""
        cycle, first = self.running, self.running.count - self.running.repeats + 1
        if cycle.repeats < RESTART or cycle.count > len(cycle.steps):
            return None
        labels = [*cycle.steps[first : cycle.count, 0].tolist(), segment.label]
        if not self._rules.steps[labels[0]].begins_cycle or not any(self._rules.surely_begins[n] for n in labels):
            return None
        begin = int(cycle.steps[first, 1])
        self.running = cycle.next(cycle.count - first)
        return cycle.closed(max(0, begin), tick, self._rules.missing(cycle), False)

    def _close(self, end_tick: int, tick: int, seen: Segment | None, *, report: bool) -> Iterator[Deviation | Cycle]:
        """The cycle ends, where its open steps begin if there are some. With `report`, what it lacks was skipped."""
        cycle, missing = self.running, self._rules.missing(self.running)
        if cycle.open:
            first, begin, _ = cycle.steps[cycle.count - cycle.open].tolist()
            end_tick = max(0, begin)
            seen = Segment(first, end_tick, self.open_confidence)
        following = cycle.next(cycle.open)
        for label in missing:
            if report and cycle.skipped[label] < 0:
                cycle.skipped[label] = self.number
                at = seen or Segment(-1, end_tick, 1.0)
                yield self._deviation("skipped", label, at, tick, 1.0, {"cycle_ended": 1.0})
        yield cycle.closed(end_tick, tick, missing, self._rules.ended(cycle) or not self._rules.has_ends)
        self.running, self.open_confidence = following, 1.0

    def _deviation(
        self,
        kind: str,
        expected: int | None,
        segment: Segment,
        tick: int,
        sure: float,
        evidence: Mapping[str, float],
        *,
        boundary_tick: int | None = None,
        corrects: int | None = None,
    ) -> Deviation:
        number = self.number
        self.number += 1
        self.running.note(number)
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
