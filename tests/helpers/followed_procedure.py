"""A small procedure with rules, and decisions about it: what a decoder would decide, with a constant delay."""

from __future__ import annotations

from typing import Any

from edge_hal.procedure.conformance import Conformance, Cycle, Deviation
from edge_hal.procedure.rules import Procedure, Step

HZ = 10.0
NAMES = ("idle", "take", "fold", "press", "wipe")
IDLE, TAKE, FOLD, PRESS, WIPE = range(5)


def step(**rules: Any) -> Step:
    given_rules = {"optional": False, "repeatable": False, "shortest_s": 0.5, "least_confidence": 0.4, **rules}
    return Step(first=0.0, share=0.2, median_s=2.0, spread=1.5, **{"then": {}, **given_rules})


def procedure(**changed: Step) -> Procedure:
    """take, fold and press, once in each cycle and in this order; wipe at any time before press; idle is no step."""
    steps = {
        "idle": step(background=True, optional=True, repeatable=True),
        "take": step(begins_cycle=True, then={"fold": 1.0}),
        "fold": step(requires={"take": 0.9}, then={"press": 0.8, "wipe": 0.2}, overdue_s=8.0),
        "press": step(requires={"take": 0.8, "fold": 0.95}, ends_cycle=True, then={"idle": 1.0}),
        "wipe": step(optional=True, repeatable=True, not_after={"press": 0.9}),
    }
    return Procedure({**steps, **changed})


def wiped_at_first() -> Procedure:
    """As `procedure`, but a cycle may begin with wipe, which may come within one too."""
    return procedure(wipe=step(optional=True, repeatable=True, begins_cycle=True, not_after={"press": 0.9}))


DELAY = 5
"""Ticks from the begin of a segment to its decision."""


class Stream:
    """Decisions with a constant delay, and time that passes tick by tick."""

    def __init__(self, rules: Procedure | None = None, *, mid_cycle: bool = False) -> None:
        self.tracker = Conformance(rules or procedure(), HZ)
        self.tracker.reset(mid_cycle=mid_cycle)
        self.tick, self.end = 0, 0
        self.due: list[tuple[int, int, float]] = []
        self.found: list[Deviation | Cycle] = []

    def play(self, *segments: tuple[int, float] | tuple[int, float, float]) -> Stream:
        """(label, seconds) or (label, seconds, confidence)"""
        for label, seconds, *confidence in segments:
            self.due.append((label, self.end, confidence[0] if confidence else 1.0))
            self.end += round(seconds * HZ)
            self._until(self.end)
        return self

    def _until(self, end: int) -> None:
        for tick in range(self.tick, end):
            if self.due and tick == self.due[0][1] + DELAY:
                label, begin, confidence = self.due.pop(0)
                self.found += self.tracker.decided(label, begin, tick, confidence)
            else:
                self.found += self.tracker.passed(tick)
        self.tick = end

    def steps(self, *labels: int) -> Stream:
        return self.play(*((label, 2.0) for label in labels))

    def finish(self) -> Stream:
        self._until(self.end + DELAY + 1 if self.due else self.end)
        self.found += self.tracker.finish(self.tick)
        return self

    @property
    def kinds(self) -> list[tuple[str, int | None, int | None]]:
        return [(one.kind, one.expected, one.seen) for one in self.deviations]

    @property
    def deviations(self) -> list[Deviation]:
        return [one for one in self.found if isinstance(one, Deviation)]

    @property
    def cycles(self) -> list[Cycle]:
        return [one for one in self.found if isinstance(one, Cycle)]
