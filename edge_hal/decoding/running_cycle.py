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
OPEN = -1
"""Instead of a tick: not yet."""
BEFORE = -2
"""Instead of a tick: before the epoch, whose clock does not reach there."""


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
        complete: nothing was missing, and both its begin and its end were seen in this epoch.
        before: the steps that were over before the epoch, in order; None for a cycle that began in it.
    """

    begin_tick: int
    end_tick: int
    decision_tick: int
    steps: tuple[CycleStep, ...]
    omitted: int
    deviations: tuple[int, ...]
    missing: tuple[int, ...]
    complete: bool
    before: tuple[int, ...] | None = None


@dataclass
class RunningCycle:
    """The cycle that goes on, over K steps.

    Attributes:
        done: (K,) how often each step occurred. `seen`: its last begin, as a tick.
        doubtful: (K,) 1 where a step may have occurred: it was seen too short or with too little confidence to count,
            or it lies before what was seen.
        skipped: (K,) the number of the deviation that called the step skipped, or -1.
        steps: (MOST_STEPS, 3) label, begin and end of the steps; `count` of them were there, `before` of them began
            before the epoch.
        numbers: (MOST_STEPS,) of deviations; `deviations` were there.
        believed: (K,) for how many ticks each step was believed, in sum of its probability.
        from_begin: whether the stream saw it from its begin on.
        repeats: repeated steps in a row, up to now.
        another: in a pause, which nothing was seen of, this cycle may have ended and another begun.
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
    believed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    before: int = 0
    another: bool = False

    @classmethod
    def empty(cls, labels: int, *, from_begin: bool = True) -> RunningCycle:
        """A cycle before its first step. Without `from_begin` every step may have occurred before."""
        zeros = np.zeros(labels, np.int64)
        return cls(zeros, zeros + (not from_begin), zeros - 1, from_begin=from_begin, believed=np.zeros(labels))

    def add(self, label: int, begin_tick: int) -> None:
        """A step begins."""
        self.done[label] += 1
        if self.count < MOST_STEPS:
            self.steps[self.count] = (label, begin_tick, OPEN)
        self.count += 1

    def end_step(self, tick: int) -> None:
        """The last step ends. Called again it moves the end: background in between belongs to no step."""
        if 0 < self.count <= MOST_STEPS and self.steps[self.count - 1, 2] == OPEN:
            self.steps[self.count - 1, 2] = tick

    def go_on(self, label: int, tick: int) -> None:
        """If the last step is this one and began before the epoch, it is seen again from `tick` on."""
        if 0 < self.count == self.before <= MOST_STEPS and self.steps[self.count - 1, 0] == label:
            self.steps[self.count - 1, 1:] = tick, OPEN

    @property
    def shown(self) -> bool:
        """Whether a step of it was seen in this epoch."""
        return self.count > self.before or bool((self.steps[: self.count, 1] > BEFORE).any())

    def seen(self) -> RunningCycle:
        """As if nothing were known of it from before the epoch. A step that went on may be of the cycle before."""
        other = RunningCycle.empty(len(self.done), from_begin=False)
        for label, begin, end in self.steps[self.before : min(self.count, MOST_STEPS)].tolist():
            other.add(label, begin)
            other.end_step(end)
        other.skipped[:], other.numbers[:], other.deviations = self.skipped, self.numbers, self.deviations
        return other

    def note(self, number: int) -> None:
        """A deviation belongs to it."""
        if self.deviations < MOST_STEPS:
            self.numbers[self.deviations] = number
        self.deviations += 1

    def closed(self, end_tick: int, decision_tick: int, missing: tuple[int, ...], ended: bool) -> Cycle:
        """The report of it. `ended`: whether its last step was seen."""
        self.end_step(end_tick)
        listed = self.steps[: min(self.count, MOST_STEPS)].tolist()
        steps = tuple(CycleStep(*row) for row in listed if row[1] != BEFORE)
        last = max((step.end_tick for step in steps), default=end_tick) if self.count <= MOST_STEPS else end_tick
        return Cycle(
            begin_tick=steps[0].begin_tick if steps else end_tick,
            end_tick=last,
            decision_tick=decision_tick,
            steps=steps,
            omitted=max(0, self.count - MOST_STEPS),
            deviations=tuple(self.numbers[: min(self.deviations, MOST_STEPS)].tolist()),
            missing=missing,
            complete=ended and self.from_begin and not missing and not self.before,
            before=tuple(label for label, begin, _ in listed if begin == BEFORE) if self.before else None,
        )

    def state(self) -> dict[str, Any]:
        return {
            "labels": np.stack([self.done, self.doubtful, self.skipped]),
            "steps": self.steps.copy(),
            "numbers": self.numbers.copy(),
            "believed": self.believed.copy(),
            "counts": np.array(
                [self.count, self.deviations, self.from_begin, self.repeats, self.before, self.another], np.int64
            ),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> RunningCycle:
        """Inverse of `state`. Raises ValueError if a number is out of range."""
        done, doubtful, skipped = np.array(state["labels"])
        count, deviations, from_begin, repeats, seen_before, another = state["counts"].tolist()
        steps, numbers, believed = state["steps"].copy(), state["numbers"].copy(), state["believed"].copy()
        arrays = (done, doubtful, skipped, steps[:, 0], numbers)
        if not (
            all(array.min() >= -1 and array.max() < LARGEST for array in arrays)
            and BEFORE <= steps.min() <= steps.max() < LARGEST
            and min(done.min(), doubtful.min(), count, deviations, from_begin, repeats, seen_before, another) >= 0
            and max(count, deviations, repeats) < LARGEST
            and seen_before <= count
            and (steps[: min(count, MOST_STEPS), 0] >= 0).all()
            and steps[:, 0].max() < len(done)
            and (believed >= 0).all()
            and (believed < LARGEST).all()
        ):
            raise ValueError("the cycle is out of range")
        return cls(
            *(done, doubtful, skipped, steps, numbers, count, deviations, bool(from_begin), repeats, believed),
            before=seen_before,
            another=bool(another),
        )
