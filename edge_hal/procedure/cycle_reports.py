"""What is reported of a procedure: deviations from it, and its passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
        steps: what was done, in order; at most 256. `omitted`: how many more there were.
        deviations: the numbers of its deviations, at most 256.
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
