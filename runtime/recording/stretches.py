"""Which parts of recordings are worth a training: those around deviations, uncertain decisions and gaps.

Stream times are nanoseconds since the first frame of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edge_hal.events import Deviation, Event, Gap, Transition

from .material import UNCERTAIN_S
from .material_reader import Believed, Material, Picture

LONGEST_S = 60.0
"""Longest stretch: a person looks at it as a whole."""
SHORTEST_S = 1.0
HOLE_S = 1.0
"""Pictures further apart do not belong together; three times the usual distance, if that is longer."""
DOUBT_S = 20.0
"""A belief that is uncertain for longer counts as several reasons."""

Interval = tuple[int, int]


@dataclass(frozen=True)
class Reason:
    """Why the time from `begin_ns` to `end_ns` is worth a look. `certainty`: 0..1, the lowest comes first: 0 for a
    deviation, the probability of an uncertain decision or belief, 1 for a gap."""

    begin_ns: int
    end_ns: int
    certainty: float
    text: str


@dataclass(frozen=True)
class StepPart:
    """The run's own segment, as far as it lies in the stretch. `confidence`: of its begin."""

    begin_ns: int
    end_ns: int
    step: str
    confidence: float


@dataclass(frozen=True)
class Stretch:
    """Pictures without a hole, at least `SHORTEST_S` and at most `LONGEST_S` long. It ends at `end_ns`, after its last
    picture."""

    session: str
    bundle: str
    pictures: tuple[Picture, ...]
    end_ns: int
    reasons: tuple[Reason, ...]
    steps: tuple[StepPart, ...]

    @property
    def begin_ns(self) -> int:
        return self.pictures[0].t_ns

    @property
    def certainty(self) -> float:
        return min(reason.certainty for reason in self.reasons)

    @property
    def name(self) -> str:
        """The same for the same stretch of the same run."""
        return f"live-{self.session}-{self.pictures[0].frame:08d}"


@dataclass
class Found:
    """Stretches, the least certain first, and how many reasons gave none, by the cause."""

    stretches: list[Stretch] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def leave(self, cause: str) -> None:
        self.left[cause] = self.left.get(cause, 0) + 1


def find_stretches(
    materials: Sequence[Material], around_s: float, below: float, taken: Mapping[str, Sequence[Interval]]
) -> Found:
    """The stretches of all recordings.

    Args:
        around_s: how much before and after each reason.
        below: decisions and beliefs with a lower probability are uncertain.
        taken: by session, the intervals that are not taken again.
    """
    found = Found()
    for session in sorted({material.session for material in materials}):
        parts = [material for material in materials if material.session == session]
        _of_session(parts, round(around_s * 1e9), below, taken.get(session, ()), found)
    found.stretches.sort(key=lambda stretch: (stretch.certainty, stretch.name))
    return found


@dataclass(frozen=True)
class _Run:
    """Pictures without a hole; the last one lasts until `end_ns`. `goes_on`: the run may add to them."""

    pictures: list[Picture]
    end_ns: int
    goes_on: bool


def _of_session(
    parts: Sequence[Material], around_ns: int, below: float, taken: Sequence[Interval], found: Found
) -> None:
    pictures = sorted({p.frame: p for part in parts for p in part.pictures}.values(), key=lambda p: p.frame)
    events = _in_order(parts)
    believed = sorted((row for part in parts for row in part.believed), key=lambda row: row.t_ns)
    runs = _without_holes(pictures, any(part.being_written for part in parts))
    windows: list[list[tuple[Interval, Reason]]] = [[] for _ in runs]
    for reason in _reasons(events, believed, below):
        if any(reason.begin_ns < end and reason.end_ns >= begin for begin, end in taken):
            found.leave("were taken before")
            continue
        first, last = reason.begin_ns - around_ns, reason.end_ns + around_ns
        place = [n for n, run in enumerate(runs) if run.pictures[0].t_ns <= last and first < run.end_ns]
        if not place:
            found.leave("have no pictures any more")
        elif runs[place[-1]].goes_on and last >= runs[place[-1]].end_ns:
            found.leave("are still being recorded")
        else:
            for n in place:
                clipped = max(first, runs[n].pictures[0].t_ns), min(last, runs[n].end_ns)
                windows[n].append((clipped, reason))
    for run, inside in zip(runs, windows, strict=True):
        steps = _steps(run, events, believed)
        for (begin, end), reasons in _joined(inside, taken):
            chosen = tuple(p for p in run.pictures if begin <= p.t_ns < end)
            if len(chosen) < 2 or min(end, run.end_ns) - chosen[0].t_ns < SHORTEST_S * 1e9:
                for _ in reasons:
                    found.leave("have less than a second of pictures")
                continue
            inner = _inside(steps, chosen[0].t_ns, end)
            bundle = parts[0].bundle
            found.stretches.append(Stretch(parts[0].session, bundle, chosen, end, tuple(reasons), inner))


def _in_order(parts: Sequence[Material]) -> list[Event]:
    """The durable events of a run, each once."""
    by_number = {getattr(event, "seq", -1): event for part in parts for event in part.events}
    return [by_number[number] for number in sorted(by_number)]


def _without_holes(pictures: Sequence[Picture], being_written: bool) -> list[_Run]:
    if len(pictures) < 2:
        return []
    steps = sorted(b.t_ns - a.t_ns for a, b in pairwise(pictures))
    period = steps[len(steps) // 2]
    hole = max(HOLE_S * 1e9, 3 * period)
    runs: list[list[Picture]] = [[pictures[0]]]
    for before, picture in pairwise(pictures):
        if picture.t_ns - before.t_ns > hole or picture.size != before.size:
            runs.append([])
        runs[-1].append(picture)
    last = len(runs) - 1
    return [_Run(run, run[-1].t_ns + period, being_written and n == last) for n, run in enumerate(runs)]


def _reasons(events: Sequence[Event], believed: Sequence[Believed], below: float) -> list[Reason]:
    """In the order of time."""
    found = list(_doubts(believed, below))
    for event in events:
        if isinstance(event, Transition) and event.confidence < below:
            text = f"uncertain: {event.from_ or '(start)'} -> {event.to}, {event.confidence:.2f}"
            found.append(Reason(event.boundary.t_ns, event.decision.t_ns, event.confidence, text))
        elif isinstance(event, Deviation):
            text = f"deviation: {event.kind}" + (f", {event.seen}" if event.seen else "")
            begin = max(event.boundary.t_ns, event.decision.t_ns - round(DOUBT_S * 1e9))  # `overdue` began long ago
            found.append(Reason(begin, event.decision.t_ns, 0.0, text))
        elif isinstance(event, Gap):
            text = f"gap: {event.reason}, {(event.end.t_ns - event.begin.t_ns) / 1e9:.1f} s"
            found.append(Reason(event.begin.t_ns, event.end.t_ns, 1.0, text))
    return sorted(found, key=lambda reason: (reason.begin_ns, reason.end_ns))


def _doubts(believed: Sequence[Believed], below: float) -> Iterator[Reason]:
    """Times of at least `UNCERTAIN_S` in which no action had the probability `below`, in parts of at most `DOUBT_S`."""
    doubt: list[tuple[int, float, str]] = []

    def reason() -> Iterator[Reason]:
        if doubt and doubt[-1][0] - doubt[0][0] >= UNCERTAIN_S * 1e9:
            _, probability, likely = min(doubt, key=lambda each: each[1])
            seconds = (doubt[-1][0] - doubt[0][0]) / 1e9
            text = f"uncertain for {seconds:.1f} s, at worst {likely}, {probability:.2f}"
            yield Reason(doubt[0][0], doubt[-1][0], probability, text)
        doubt.clear()

    for row in believed:
        uncertain = row.probability is not None and row.probability < below
        if not uncertain or (doubt and row.t_ns - doubt[0][0] > DOUBT_S * 1e9):
            yield from reason()
        if uncertain and row.probability is not None:
            doubt.append((row.t_ns, row.probability, row.likely or ""))
    yield from reason()


def _joined(
    windows: Sequence[tuple[Interval, Reason]], taken: Sequence[Interval]
) -> list[tuple[Interval, list[Reason]]]:
    """Windows that overlap become one, of at most `LONGEST_S`. None overlaps another, or what was taken."""
    joined: list[tuple[Interval, list[Reason]]] = []
    for (begin, end), reason in sorted(windows, key=lambda each: each[0]):
        for first, last in taken:
            if first <= begin < last:
                begin = last
            if first < end <= last:
                end = first
            if begin < first and last < end:  # it lies inside: keep the side of the reason
                begin, end = (begin, first) if reason.end_ns < first else (last, end)
        if joined and begin < joined[-1][0][1]:
            before, reasons = joined[-1]
            whole = before[0], max(before[1], end)
            if whole[1] - whole[0] <= LONGEST_S * 1e9:
                joined[-1] = whole, [*reasons, reason]
                continue
            begin = before[1]
            if reason.end_ns < begin:
                reasons.append(reason)
                continue
        if begin < end:
            joined.append(((begin, min(end, begin + round(LONGEST_S * 1e9))), [reason]))
    return joined


def _steps(run: _Run, events: Sequence[Event], believed: Sequence[Believed]) -> list[StepPart]:
    """The run's segments over pictures without a hole; none where no action was decided."""
    begin, end = run.pictures[0].t_ns, run.end_ns
    at_begin = next((row.action for row in believed if begin <= row.t_ns < end), None)
    changes: list[tuple[int, str | None, float]] = [(begin, at_begin, 1.0)]
    for event in events:
        if isinstance(event, Transition) and begin <= event.decision.t_ns and event.boundary.t_ns < end:
            if len(changes) == 1 and changes[0][1] is None and event.from_ is not None:
                changes[0] = (begin, event.from_, 1.0)
            changes.append((max(begin, event.boundary.t_ns), event.to, event.confidence))
        elif isinstance(event, Gap) and event.reset and begin <= event.begin.t_ns < end:
            changes.append((event.begin.t_ns, None, 1.0))
    parts = []
    for (at, step, confidence), (until, _, _) in pairwise([*changes, (end, None, 1.0)]):
        if step is not None and at < until:
            parts.append(StepPart(at, until, step, confidence))
    return parts


def _inside(steps: Sequence[StepPart], begin: int, end: int) -> tuple[StepPart, ...]:
    found = []
    for step in steps:
        at, until = max(step.begin_ns, begin), min(step.end_ns, end)
        if at < until:
            found.append(StepPart(at, until, step.step, step.confidence))
    return tuple(found)
