"""What is known of one pass of a procedure while it goes on, and what is reported of it at its end. Bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 256
"""Steps, and deviations, that a cycle lists. What comes after them is judged and counted, but not listed."""
LARGEST = 1 << 60


@dataclass(frozen=True)
class Deviation:
    """The procedure was left. Labels are indices, ticks are of one epoch.

    Attributes:
        kind: `skipped`, `out_of_order`, `repeated` or `overdue`.
        expected: the step that was missing (`skipped`), that should have come after `seen` (`out_of_order`), or that
            mostly follows (`repeated`, `overdue`); None if nothing is known.
        seen: the step that showed it; None for the end of a cycle.
        evidence: why it is believed, in numbers: ticks, counts or chances by name.
        boundary_tick: where `seen` begins, or for `overdue` where its limit was reached.
        decision_tick: when it was decided.
        confidence: of the decision on `seen`, times that of the rule.
        number: counts the deviations of an epoch from 0.
        corrects: the number of the deviation that this one replaces: a step that was called skipped has come after all.
    """

    kind: str
    expected: int | None
    seen: int | None
    evidence: Mapping[str, float]
    boundary_tick: int
    decision_tick: int
    confidence: float
    number: int
    corrects: int | None = None


@dataclass(frozen=True)
class CycleStep:
    """A step of a cycle: `begin_tick` up to but without `end_tick`."""

    label: int
    begin_tick: int
    end_tick: int


@dataclass(frozen=True)
class Cycle:
    """One pass of the procedure.

    Attributes:
        begin_tick, end_tick: of its first and after its last step, background left out.
        decision_tick: when its end was decided.
        steps: what was done, in order; at most `MOST_STEPS`. `omitted`: how many more there were.
        deviations: the numbers of its deviations, at most `MOST_STEPS`.
        missing: the steps that are not optional and did not occur.
        complete: nothing was missing, and both its begin and its end were seen.
    """

    begin_tick: int
    end_tick: int
    decision_tick: int
    steps: tuple[CycleStep, ...]
    omitted: int
    deviations: tuple[int, ...]
    missing: tuple[int, ...]
    complete: bool


@dataclass
class RunningCycle:
    """The cycle that goes on, over K steps.

    Attributes:
        done: (K,) how often each step occurred. `seen`: its last begin, as a tick.
        doubtful: (K,) 1 where a step may have occurred: it was seen too short or with too little confidence to count,
            or it lies before what was seen.
        skipped: (K,) the number of the deviation that called the step skipped, or -1.
        steps: (MOST_STEPS, 3) label, begin and end of the steps; `count` of them were there.
        numbers: (MOST_STEPS,) of deviations; `deviations` were there.
        from_begin: whether the stream saw it from its begin on.
        repeats: repeated steps in a row, up to now. `repeated_from`: the position in `steps` of the first of them.
    """

    done: NDArray[np.int64]
    doubtful: NDArray[np.int64]
    skipped: NDArray[np.int64]
    steps: NDArray[np.int64] = field(default_factory=lambda: np.full((MOST_STEPS, 3), -1, np.int64))
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.full(MOST_STEPS, -1, np.int64))
    count: int = 0
    deviations: int = 0
    from_begin: bool = True
    repeats: int = 0

    @classmethod
    def empty(cls, labels: int, *, from_begin: bool = True) -> RunningCycle:
        """A cycle before its first step. Without `from_begin` every step may have occurred before."""
        zeros = np.zeros(labels, np.int64)
        return cls(zeros, zeros + (not from_begin), zeros - 1, from_begin=from_begin)

    def add(self, label: int, begin_tick: int) -> None:
        """A step begins."""
        self.done[label] += 1
        if self.count < MOST_STEPS:
            self.steps[self.count] = (label, begin_tick, -1)
        self.count += 1

    def end_step(self, tick: int) -> None:
        """The last step ends. Called again it moves the end: background in between belongs to no step."""
        if 0 < self.count <= MOST_STEPS and self.steps[self.count - 1, 2] < 0:
            self.steps[self.count - 1, 2] = tick

    def note(self, number: int) -> None:
        """A deviation belongs to it."""
        if self.deviations < MOST_STEPS:
            self.numbers[self.deviations] = number
        self.deviations += 1

    def closed(self, end_tick: int, decision_tick: int, missing: tuple[int, ...], ended: bool) -> Cycle:
        """The report of it. `ended`: whether its last step was seen."""
        self.end_step(end_tick)
        listed = self.steps[: min(self.count, MOST_STEPS)]
        steps = tuple(CycleStep(int(label), int(begin), int(end)) for label, begin, end in listed)
        last = max((step.end_tick for step in steps), default=end_tick) if self.count <= MOST_STEPS else end_tick
        return Cycle(
            begin_tick=steps[0].begin_tick if steps else end_tick,
            end_tick=last,
            decision_tick=decision_tick,
            steps=steps,
            omitted=max(0, self.count - MOST_STEPS),
            deviations=tuple(self.numbers[: min(self.deviations, MOST_STEPS)].tolist()),
            missing=missing,
            complete=ended and self.from_begin and not missing,
        )

    def state(self) -> dict[str, Any]:
        return {
            "labels": np.stack([self.done, self.doubtful, self.skipped]),
            "steps": self.steps.copy(),
            "numbers": self.numbers.copy(),
            "counts": np.array([self.count, self.deviations, self.from_begin, self.repeats], np.int64),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> RunningCycle:
        """Inverse of `state`. Raises ValueError if a number is out of range."""
        done, doubtful, skipped = np.array(state["labels"])
        count, deviations, from_begin, repeats = state["counts"].tolist()
        steps, numbers = state["steps"].copy(), state["numbers"].copy()
        arrays = (done, doubtful, skipped, steps, numbers)
        if not (
            all(array.min() >= -1 and array.max() < LARGEST for array in arrays)
            and min(done.min(), doubtful.min(), count, deviations, from_begin, repeats) >= 0
            and max(count, deviations, repeats) < LARGEST
            and (steps[: min(count, MOST_STEPS), 0] >= 0).all()
            and steps[:, 0].max() < len(done)
        ):
            raise ValueError("the cycle is out of range")
        return cls(done, doubtful, skipped, steps, numbers, count, deviations, bool(from_begin), repeats)
