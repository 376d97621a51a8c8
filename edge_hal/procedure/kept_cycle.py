"""What is kept of the running cycle over a pause: by the names of the labels, in seconds.

Ticks are of one epoch, and mean another time at another rate. This fits any bundle with the same labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .running_cycle import BEFORE, BEGUN, LARGEST, MOST_STEPS, RunningCycle

LONGEST_AGE_S = 1e6
MOST_LABELS = 1 << 16
NOT_KNOWN = -1
"""Stands for the number of a deviation that is not known."""


@dataclass(frozen=True)
class KeptStep:
    """The step that went on. `age_s`: since when nothing else may have occurred. `told`: it was called overdue."""

    label: str
    age_s: float
    confidence: float
    told: bool


@dataclass(frozen=True)
class KeptCycle:
    """What is known of a cycle.

    Attributes:
        done: how often each label occurred. All labels are in it.
        believed_s: for how long each label was believed, in sum of its probability.
        doubtful: the labels that may have occurred, and how, as in `RunningCycle`.
        called: the labels that were called skipped, each with the number of that deviation.
        steps: the steps in their order, at most `MOST_STEPS`. `count`: how many there were.
        from_begin, repeats, another, open: as in `RunningCycle`.
        going_on: the step that went on, also background; None before the first.
        begun: a step that had begun, but for too short a time to count.
        unseen_s: the last time before the pause, whose step was not decided yet.
    """

    done: Mapping[str, int]
    believed_s: Mapping[str, float]
    doubtful: Mapping[str, int]
    called: Mapping[str, int]
    steps: tuple[str, ...]
    count: int
    from_begin: bool
    repeats: int
    another: bool
    open: int
    going_on: KeptStep | None
    begun: str | None
    unseen_s: float

    @classmethod
    def of(
        cls,
        cycle: RunningCycle,
        names: Sequence[str],
        model_hz: float,
        going_on: KeptStep | None,
        begun: str | None,
        unseen_s: float,
    ) -> KeptCycle:
        listed = cycle.steps[: min(cycle.count, MOST_STEPS), 0].tolist()
        believed_s = np.minimum(cycle.believed / model_hz, LONGEST_AGE_S)
        return cls(
            done=dict(zip(names, cycle.done.tolist(), strict=True)),
            believed_s=dict(zip(names, believed_s.tolist(), strict=True)),
            doubtful={name: how for name, how in zip(names, cycle.doubtful.tolist(), strict=True) if how},
            called={names[label]: number for label, number in enumerate(cycle.skipped.tolist()) if number >= 0},
            steps=tuple(names[label] for label in listed),
            count=cycle.count,
            from_begin=cycle.from_begin,
            repeats=cycle.repeats,
            another=cycle.another,
            open=cycle.open,
            going_on=going_on,
            begun=begun,
            unseen_s=min(unseen_s, LONGEST_AGE_S),
        )

    @property
    def newest_seq(self) -> int:
        """Of the events that it names; -1 without any."""
        return max(self.called.values(), default=NOT_KNOWN)

    def running(self, names: Sequence[str], model_hz: float) -> RunningCycle:
        """The cycle goes on in a new epoch. The deviations in `called` get the numbers 0, 1, ... of it, in their
        order."""
        index = {name: label for label, name in enumerate(names)}
        cycle = RunningCycle.empty(len(names), from_begin=self.from_begin)
        cycle.done[:] = [self.done[name] for name in names]
        cycle.believed[:] = [self.believed_s[name] * model_hz for name in names]
        cycle.doubtful[:] = [self.doubtful.get(name, 0) for name in names]
        for number, name in enumerate(self.called):
            cycle.skipped[index[name]] = number
        cycle.steps[: len(self.steps), 0] = [index[name] for name in self.steps]
        cycle.steps[: len(self.steps), 1:] = BEFORE
        cycle.count = cycle.before = self.count
        cycle.repeats, cycle.another, cycle.open = self.repeats, self.another, self.open
        return cycle

    def to_dict(self) -> dict[str, Any]:
        labels = {name: [self.done[name], self.believed_s[name], self.doubtful.get(name, 0)] for name in self.done}
        own = {name: value for name, value in vars(self).items() if name not in ("done", "believed_s", "doubtful")}
        going_on = None if self.going_on is None else asdict(self.going_on)
        return {**own, "labels": labels, "steps": list(self.steps), "called": dict(self.called), "going_on": going_on}

    @classmethod
    def from_dict(cls, data: object) -> KeptCycle:
        """Inverse of `to_dict`. Raises ValueError for other data, whoever wrote it."""
        if not isinstance(data, Mapping) or data.keys() != KEYS:
            raise ValueError("the cycle has other fields")
        labels = data["labels"]
        if not isinstance(labels, Mapping) or not 0 < len(labels) <= MOST_LABELS:
            raise ValueError("the cycle has no labels")
        for name, known in labels.items():
            if not (
                isinstance(known, Sequence)
                and len(known) == 3
                and _whole(known[0], 0)
                and _seconds(known[1])
                and _whole(known[2], 0)
                and known[2] <= BEGUN
            ):
                raise ValueError(f"what the cycle has of '{name:.40}' is out of range")
        steps, called, going_on, count = (data[name] for name in ("steps", "called", "going_on", "count"))
        if not (
            type(data["from_begin"]) is type(data["another"]) is bool
            and _whole(count, 0)
            and count == sum(done for done, _, _ in labels.values())
            and isinstance(steps, list)
            and len(steps) == min(count, MOST_STEPS)
            and all(isinstance(name, str) and name in labels and labels[name][0] > 0 for name in steps)
            and _whole(data["repeats"], 0)
            and data["repeats"] <= count
            and _whole(data["open"], 0)
            and data["open"] <= count
            and (count <= MOST_STEPS or not data["open"])  # only listed steps are open
            and isinstance(called, Mapping)
            and all(name in labels and _whole(number, NOT_KNOWN) for name, number in called.items())
            and (data["begun"] is None or (isinstance(data["begun"], str) and data["begun"] in labels))
            and _seconds(data["unseen_s"])
        ):
            raise ValueError("the cycle is out of range")
        return cls(
            done={name: done for name, (done, _, _) in labels.items()},
            believed_s={name: float(believed_s) for name, (_, believed_s, _) in labels.items()},
            doubtful={name: how for name, (_, _, how) in labels.items() if how},
            called=dict(called),
            steps=tuple(steps),
            count=count,
            from_begin=data["from_begin"],
            repeats=data["repeats"],
            another=data["another"],
            open=data["open"],
            going_on=None if going_on is None else _step(going_on, labels),
            begun=data["begun"],
            unseen_s=float(data["unseen_s"]),
        )


KEYS = {name for name in KeptCycle.__dataclass_fields__ if name not in ("done", "believed_s", "doubtful")} | {"labels"}


def _step(data: object, labels: Mapping[str, Any]) -> KeptStep:
    if not (
        isinstance(data, Mapping)
        and data.keys() == set(KeptStep.__dataclass_fields__)
        and isinstance(data["label"], str)
        and data["label"] in labels
        and _seconds(data["age_s"])
        and _number(data["confidence"])
        and 0 <= data["confidence"] <= 1
        and type(data["told"]) is bool
    ):
        raise ValueError("the step that went on is out of range")
    return KeptStep(data["label"], float(data["age_s"]), float(data["confidence"]), data["told"])


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < LARGEST // 2  # counting goes on from there


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _seconds(value: Any) -> bool:
    return _number(value) and 0 <= value <= LONGEST_AGE_S
