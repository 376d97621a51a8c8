"""What is known of one pass of a procedure while it goes on. Bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cycle_reports import Cycle, CycleStep

MOST_STEPS = 256
"""Steps, and deviations, that a cycle lists. What comes after them is judged and counted, but not listed."""
LARGEST = 1 << 60
OPEN = -1
"""Stands for a tick that has not come yet."""
BEFORE = -2
"""Stands for a tick before the epoch, whose clock does not reach there."""
GLIMPSED, BEGUN = 2, 3
"""In `doubtful`: the step was seen, too short or too uncertain to count, since the last step that counted; or it begins
cycles, and was seen so after this one had ended. If a cycle begins now, it may belong to that one."""


@dataclass
class Segment:
    """A segment of decided labels. `delay_ticks`: from its begin to its decision. The next segment will be decided with
    the same delay, so at a tick this one is known to have lasted until `delay_ticks` before. `watched_from`: since when
    nothing else may have occurred. `confidence`: the mean over `samples` of what was believed since the decision.
    `told`: it was called overdue."""

    label: int
    begin_tick: int
    confidence: float
    delay_ticks: int = 0
    told: bool = False
    watched_from: int = -LARGEST
    samples: int = 1

    def __post_init__(self) -> None:
        self.watched_from = max(self.watched_from, self.begin_tick)

    def believe(self, confidence: float, ticks: int) -> None:
        """`confidence`: the mean of the next `ticks`."""
        self.samples += ticks
        self.confidence += (confidence - self.confidence) * ticks / self.samples


@dataclass
class RunningCycle:
    """The cycle that goes on, over K steps.

    Attributes:
        done: (K,) how often each step occurred. `seen`: its last begin, as a tick.
        doubtful: (K,) not 0 where a step may have occurred: it was seen too short or with too little confidence to
            count (see `GLIMPSED`), or it lies before what was seen.
        skipped: (K,) the number of the deviation that called the step skipped, or -1.
        steps: (MOST_STEPS, 3) label, begin and end of the steps; `count` of them were there, `before` of them began
            before the epoch.
        numbers: (MOST_STEPS,) of deviations; `deviations` were there.
        believed: (K,) for how many ticks each step was believed, in sum of its probability.
        from_begin: whether the stream saw it from its begin on.
        repeats: repeated steps in a row, up to now.
        another: in a pause, which nothing was seen of, this cycle may have ended and another begun.
        open: the number of its last steps that may belong to the next cycle. They are judged when the next step shows
            to which cycle they belong.
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
    open: int = 0

    @classmethod
    def empty(cls, labels: int, *, from_begin: bool = True) -> RunningCycle:
        """A cycle before its first step. Without `from_begin` every step may have occurred before."""
        zeros = np.zeros(labels, np.int64)
        return cls(zeros, zeros + (not from_begin), zeros - 1, from_begin=from_begin, believed=np.zeros(labels))

    def next(self, steps: int = 0) -> RunningCycle:
        """The cycle that begins now, with the last `steps` steps of this one, which loses them. What was seen since
        the last step that counted may belong to it."""
        other, first = RunningCycle.empty(len(self.done)), self.count - steps
        for label, begin, end in self.steps[first : self.count].tolist():
            other.add(label, begin)
            other.end_step(end)
        other.doubtful[self.doubtful >= GLIMPSED] = GLIMPSED
        other.before = max(0, self.before - first) if steps else 0
        self.steps[first : self.count] = -1
        self.count, self.open = first, 0
        return other

    def add(self, label: int, begin_tick: int, *, open: bool = False, ends: bool = False) -> None:
        """A step begins. `open`: it may belong to the next cycle. `ends`: it ends this one."""
        self.done[label] += 1
        if self.count < MOST_STEPS:
            self.steps[self.count] = (label, begin_tick, OPEN)
        self.count += 1
        self.open = self.open + 1 if open else 0
        if not open:
            self.doubtful[(self.doubtful == GLIMPSED) | (ends & (self.doubtful == BEGUN))] = 1

    @property
    def open_steps(self) -> list[int]:
        """Labels of the steps that may belong to the next cycle."""
        labels: list[int] = self.steps[self.count - self.open : self.count, 0].tolist()
        return labels

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
                [
                    *(self.count, self.deviations, self.from_begin, self.repeats, self.before, self.another),
                    self.open,
                ],
                np.int64,
            ),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> RunningCycle:
        """Inverse of `state`. Raises ValueError if a number is out of range."""
        done, doubtful, skipped = np.array(state["labels"])
        count, deviations, from_begin, repeats, seen_before, another, open_steps = state["counts"].tolist()
        steps, numbers, believed = state["steps"].copy(), state["numbers"].copy(), state["believed"].copy()
        arrays = (done, doubtful, skipped, steps[:, 0], numbers)
        if not (
            all(array.min() >= -1 and array.max() < LARGEST for array in arrays)
            and BEFORE <= steps.min() <= steps.max() < LARGEST
            and min(done.min(), doubtful.min(), count, deviations, from_begin, repeats, seen_before, another) >= 0
            and 0 <= open_steps <= count
            and (count <= MOST_STEPS or not open_steps)  # only listed steps are open
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
            open=open_steps,
        )
