"""The figures of a report, out of the history of a stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .history import CycleRun, DeviationRun, History, StepRun
from .local_time import LocalTime, Shift, ShiftPlan

FEWEST_FOR_TREND = 8
MOST_FOR_TREND = 1000
LONGEST = 10


@dataclass(frozen=True)
class Times:
    """Durations in seconds: how many, and their quantiles. Without any, the quantiles are None."""

    count: int
    p10_s: float | None = None
    median_s: float | None = None
    p90_s: float | None = None

    @classmethod
    def of(cls, durations_s: Sequence[float]) -> Times:
        if not durations_s:
            return cls(0)
        return cls(len(durations_s), *(float(q) for q in np.percentile(durations_s, (10, 50, 90))))


@dataclass(frozen=True)
class StepFigures:
    """`share`: of the time of all steps, 0..1. `waiting`: whether it counts as waiting."""

    action: str
    waiting: bool
    times: Times
    share: float


@dataclass(frozen=True)
class ShiftFigures:
    """`hours` of the shift lie between the first and the last event. `times` are those of its complete cycles."""

    name: str
    hours: float
    cycles: int
    complete: int
    deviations: int
    times: Times

    @property
    def per_hour(self) -> float | None:
        """Complete cycles an hour; None under three minutes."""
        return self.complete / self.hours if self.hours >= 0.05 else None


@dataclass(frozen=True)
class StreamReport:
    """Figures of one stream.

    Attributes:
        cycles: the complete ones. incomplete: how many were not.
        trend_s: by how many seconds cycle times grow over 100 complete cycles; None for few cycles.
        waiting_share: of the time of the complete cycles, 0..1; None if no step counts as waiting.
        deviations_by_hour: kind -> 24 counts, by the hour of the day.
        longest: the steps that exceed the median of their action most, in seconds, with this excess.
    """

    history: History
    cycles: Times
    incomplete: int
    trend_s: float | None
    waiting_share: float | None
    steps: list[StepFigures]
    deviations_by_hour: dict[str, list[int]]
    shifts: list[ShiftFigures]
    longest: list[tuple[StepRun, float]]


def report_of(history: History, plan: ShiftPlan, waiting: Collection[str] = ()) -> StreamReport:
    """
    Args:
        waiting: the actions that count as waiting.
    """
    complete = [cycle for cycle in history.cycles if cycle.complete]
    durations: dict[str, list[float]] = defaultdict(list)
    for step in history.steps:
        durations[step.action].append(step.duration_s)
    total_s = sum(map(sum, durations.values()))
    steps = [
        StepFigures(action, action in waiting, Times.of(found), sum(found) / total_s)
        for action, found in sorted(durations.items(), key=lambda pair: -sum(pair[1]))
    ]
    medians = {step.action: step.times.median_s or 0.0 for step in steps}
    excess = [(step, step.duration_s - medians[step.action]) for step in history.steps if step.action not in waiting]
    return StreamReport(
        history,
        Times.of([cycle.duration_s for cycle in complete]),
        len(history.cycles) - len(complete),
        trend_s([cycle.duration_s for cycle in complete]),
        waiting_share(complete, history.steps, waiting) if waiting else None,
        steps,
        by_hour(history.deviations, plan.local),
        shifts(history, plan),
        sorted((pair for pair in excess if pair[1] > 0), key=lambda pair: -pair[1])[:LONGEST],
    )


def trend_s(durations_s: Sequence[float]) -> float | None:
    """Seconds by which durations grow over 100 of them: the median of the slopes of all pairs (Theil 1950, Sen 1968),
    which a few long ones do not move. Of many durations, evenly chosen ones. None for fewer than eight."""
    if len(durations_s) < FEWEST_FOR_TREND:
        return None
    index = np.unique(np.linspace(0, len(durations_s) - 1, min(len(durations_s), MOST_FOR_TREND)).round().astype(int))
    y = np.asarray(durations_s)[index]
    i, j = np.triu_indices(len(index), 1)
    return float(100 * np.median((y[j] - y[i]) / (index[j] - index[i])))


def waiting_share(cycles: Sequence[CycleRun], steps: Sequence[StepRun], waiting: Collection[str]) -> float | None:
    """Share of the time of the cycles in which a waiting step went on, by stream time within each run. Cycles that went
    on in another run are left out."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for step in steps:
        if step.action in waiting:
            found[step.begin.session].append((step.begin.t_s, step.begin.t_s + step.duration_s))
    intervals = {session: np.array(sorted(pairs)).reshape(-1, 2) for session, pairs in found.items()}
    total_s = waited_s = 0.0
    for cycle in (each for each in cycles if each.begin.session == each.end.session):
        total_s += cycle.duration_s
        begins, ends = intervals.get(cycle.begin.session, np.empty((0, 2))).T
        first, last = np.searchsorted(begins, (cycle.begin.t_s, cycle.end.t_s))
        near = slice(max(0, first - 1), last)  # they do not overlap each other
        overlaps = np.minimum(ends[near], cycle.end.t_s) - np.maximum(begins[near], cycle.begin.t_s)
        waited_s += float(np.maximum(0.0, overlaps).sum())
    return waited_s / total_s if total_s else None


def by_hour(deviations: Sequence[DeviationRun], local: LocalTime) -> dict[str, list[int]]:
    """kind -> counts by the hour of the local day, the most frequent kind first."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * 24)
    for deviation in deviations:
        counts[deviation.kind][local.at(deviation.at.utc_ns).hour] += 1
    return dict(sorted(counts.items(), key=lambda pair: (-sum(pair[1]), pair[0])))


def shifts(history: History, plan: ShiftPlan) -> list[ShiftFigures]:
    """Every shift in which a cycle ended or a deviation happened, in order. A cycle over the change of shifts belongs
    to the second one."""
    found: dict[int, tuple[Shift, list[CycleRun], list[DeviationRun]]] = {}

    def entry(utc_ns: int) -> tuple[Shift, list[CycleRun], list[DeviationRun]]:
        shift = plan.at(utc_ns)
        return found.setdefault(shift.begin_utc_ns, (shift, [], []))

    for cycle in history.cycles:
        entry(cycle.end.utc_ns)[1].append(cycle)
    for deviation in history.deviations:
        entry(deviation.at.utc_ns)[2].append(deviation)
    figures = []
    for _, (shift, cycles, deviations) in sorted(found.items()):
        seen_ns = min(shift.end_utc_ns, history.last_utc_ns) - max(shift.begin_utc_ns, history.first_utc_ns)
        complete = [cycle.duration_s for cycle in cycles if cycle.complete]
        hours, times = max(0.0, seen_ns / 3.6e12), Times.of(complete)
        figures.append(ShiftFigures(shift.name, hours, len(cycles), len(complete), len(deviations), times))
    return figures
