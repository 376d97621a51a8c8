"""What a procedure says of a running cycle: what it lacks, whether it is over, which step comes too late.

Times are in ticks. These rules only look; `cycles.py` follows the steps and reports.
"""

from __future__ import annotations

import math

import numpy as np

from .rules import Procedure
from .running_cycle import BEGUN, GLIMPSED, MOST_STEPS, RunningCycle

RARE = 0.05
"""A step that follows the last step of a cycle less often than this is not waited for before the cycle is closed."""


class CycleRules:
    """The rules of a procedure, whose steps are in the order of the labels, at `model_hz` ticks a second.

    Attributes:
        steps: the entries of the procedure, by label. `names`: their names. `labels`: how many there are.
        shortest: (K,) the ticks after which a segment counts. `shortest_begin`: the least of the steps that begin a
            cycle.
        overdue: the ticks that a step may last, by label; None without a limit.
        follower: the step that mostly follows, by label; None if nothing is known.
        needs: by label: the steps that come before it -> how sure that is.
        surely_begins: by label: whether a cycle begins with it for certain. Steps that are optional or repeatable occur
            within a cycle too; they count only if no other step begins cycles.
        has_ends: whether there are steps that end a cycle.
    """

    def __init__(self, procedure: Procedure, model_hz: float) -> None:
        steps, names = list(procedure.steps.values()), list(procedure.steps)
        index = {name: label for label, name in enumerate(names)}
        self.steps, self.names, self.labels = steps, tuple(names), len(steps)
        self.overdue = [None if s.overdue_s is None else max(1, round(s.overdue_s * model_hz)) for s in steps]
        self.shortest = np.array([math.ceil(step.shortest_s * model_hz) for step in steps])
        begins = [self.shortest[label] for label, step in enumerate(steps) if step.begins_cycle]
        self.shortest_begin = min(begins, default=math.inf)
        self.follower = [index[max(step.then, key=lambda to: step.then[to])] if step.then else None for step in steps]
        self.needs = [{index[to]: sure for to, sure in step.requires.items()} for step in steps]
        sure = [step.begins_cycle and not step.optional and not step.repeatable for step in steps]
        self.surely_begins = sure if any(sure) else [step.begins_cycle for step in steps]
        ends = [step.ends_cycle for step in steps]
        self.has_ends = any(ends)
        self._doubt = [None if s.doubt_s is None else s.doubt_s * model_hz for s in steps]
        self._closed_by = [{index[to]: sure for to, sure in step.not_after.items()} for step in steps]
        self._last = [
            ends[label]
            and all(
                chance < RARE or steps[index[to]].begins_cycle or steps[index[to]].background
                for to, chance in step.then.items()
            )
            for label, step in enumerate(steps)
        ]

    def late(self, cycle: RunningCycle, seen: int) -> dict[int, float]:
        """The steps of the cycle that `seen` should have come before, and how sure that is."""
        late = {step: sure for step, sure in self._closed_by[seen].items() if cycle.done[step]}
        if not cycle.done[seen] and not cycle.doubtful[seen]:
            late |= {step: needs[seen] for step, needs in enumerate(self.needs) if seen in needs and cycle.done[step]}
        return late

    def repeated(self, cycle: RunningCycle, done: int) -> bool:
        """Whether a step that has occurred has done so more often than it may."""
        return cycle.done[done] > 1 and not self.steps[done].repeatable

    def contradicts(self, cycle: RunningCycle, seen: int) -> bool:
        """Whether the step breaks the rules of the cycle."""
        again = bool(cycle.done[seen]) and not self.steps[seen].repeatable
        return again or bool(self.late(cycle, seen))

    def lacks(self, cycle: RunningCycle, label: int) -> bool:
        """Whether the cycle lacks a step that it must have, for certain."""
        optional, limit = self.steps[label].optional or self.steps[label].background, self._doubt[label]
        doubt = limit is not None and cycle.believed[label] >= limit
        return not optional and not cycle.done[label] and not cycle.doubtful[label] and not doubt

    def missing(self, cycle: RunningCycle) -> tuple[int, ...]:
        """All steps that it lacks."""
        return tuple(label for label in range(self.labels) if self.lacks(cycle, label))

    def ended(self, cycle: RunningCycle) -> bool:
        """Whether a step that ends a cycle has occurred, or may have."""
        return any(s.ends_cycle and (cycle.done[n] or cycle.doubtful[n]) for n, s in enumerate(self.steps))

    def surely_ended(self, cycle: RunningCycle) -> bool:
        """Whether a step that ends a cycle has occurred."""
        return any(step.ends_cycle and cycle.done[label] for label, step in enumerate(self.steps))

    def over(self, cycle: RunningCycle) -> bool:
        """Whether nothing of the cycle can follow: its last step is one after which only a new cycle begins."""
        return cycle.count <= len(cycle.steps) and bool(self._last[cycle.steps[cycle.count - 1, 0]])

    def may_begin_another(self, cycle: RunningCycle, label: int) -> bool:
        """Whether the step may belong to this cycle or to the next one. It begins cycles, and

        - this one may be complete, and the step is optional or repeatable, and occurred before or breaks a rule of this
          one; or
        - the end of this one was not seen, and one step is missing: that one was left out, or this one is repeated."""
        step, done = self.steps[label], bool(cycle.done[label])
        if not (step.begins_cycle and 0 < cycle.count < MOST_STEPS):
            return False
        free, missing = step.repeatable if done else step.optional, len(self.missing(cycle))
        if self.ended(cycle):
            return free and not missing and (done or self.contradicts(cycle, label))
        return cycle.open > 0 if free else done and missing == 1

    def begins_another(self, cycle: RunningCycle, label: int) -> bool:
        """Whether this step shows that another cycle has begun.

        After the end of a cycle, a step that begins cycles does, unless it can belong to this one too: it is optional
        or repeatable. If the end was not seen, it does if nothing is missing, or if another begin was seen before it.

        Any other step does if a begin was seen before it, which may be that of the next cycle or did not count, and if
        it breaks more rules of this cycle than of the next one. If the end was not seen, what this one lacks counts
        as broken there, as many broken rules are enough, and background shows nothing."""
        step, done, ended = self.steps[label], bool(cycle.done[label]), self.ended(cycle)
        if not step.begins_cycle:
            here, there = self._broken(cycle, label), self._broken_in_next(cycle, label)
            if not ended:
                return cycle.open > 0 and not step.background and here >= there + len(self.missing(cycle))
            return (cycle.open > 0 or bool((cycle.doubtful == BEGUN).any())) and here > there
        if not cycle.from_begin:
            return self.surely_begins[label]
        if ended:
            return not (step.repeatable if done else step.optional)
        return done and not step.repeatable and (cycle.open > 0 or not self.missing(cycle))

    def _broken(self, cycle: RunningCycle, label: int) -> int:
        """How many rules of the cycle are broken if the step, and the open ones before it, belong to it. A step that
        may have occurred before those that need it is late, or comes again."""
        needed = any(cycle.done[n] and label in needs for n, needs in enumerate(self.needs))
        wrong = [n for n in cycle.open_steps if self.late(cycle, n) or self.repeated(cycle, n)]
        return (needed or self.contradicts(cycle, label)) + len(wrong)

    def _broken_in_next(self, cycle: RunningCycle, label: int) -> int:
        """How many steps lack before it if it belongs to the next cycle."""
        there = set(cycle.open_steps)
        return sum(
            not (n in there or cycle.doubtful[n] >= GLIMPSED or self.steps[n].optional or self.steps[n].background)
            for n in self.needs[label]
        )
