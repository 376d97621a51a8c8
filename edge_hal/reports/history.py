"""What happened, out of the events of journals: steps, cycles and deviations with wall clock and stream time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edge_hal.events import Cycle, Deviation, End, Event, Gap, Lost, Moment, Start, Transition

from .lost_events import LostEvents

LARGEST_NS = 2**62


@dataclass(frozen=True)
class Place:
    """A point of a run, to be found in its recording: `t_s` seconds and `frame` frames after its beginning. `utc_ns` is
    the wall clock then, nanoseconds since 1970, as far as stream time runs as fast as the wall clock."""

    session: str
    source: str
    utc_ns: int
    t_s: float
    frame: int


@dataclass(frozen=True)
class StepRun:
    """A step from its boundary to that of the next. A step that a gap or the end of the run cut off is none."""

    action: str
    begin: Place
    duration_s: float


@dataclass(frozen=True)
class CycleRun:
    """A pass of the procedure. It belongs to the time of its end. One that went on over a gap or a restart is one pass,
    with the pause in it."""

    begin: Place
    end: Place
    duration_s: float
    complete: bool
    missing: tuple[str, ...]
    deviations: int


@dataclass(frozen=True)
class DeviationRun:
    """A deviation that no later one corrects."""

    kind: str
    at: Place
    seen: str | None
    expected: tuple[str, ...]
    evidence: str
    confidence: float


@dataclass
class History:
    """Of one stream. `runs` counts its starts, `cut` the steps that a gap or an end cut off. `first_utc_ns` and
    `last_utc_ns`: of its events; both 0 without any."""

    stream: str
    runs: int = 0
    cut: int = 0
    first_utc_ns: int = 0
    last_utc_ns: int = 0
    lost_events: LostEvents = field(default_factory=LostEvents)
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    """The starts and cut steps that were counted, with session and time: a journal and its copy tell them twice."""
    steps: list[StepRun] = field(default_factory=list)
    cycles: list[CycleRun] = field(default_factory=list)
    deviations: list[DeviationRun] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """The events that cannot be read or are no longer kept in any of its journals."""
        return self.lost_events.count()


class _Reader:
    """Follows the events of one stream of one journal, in the order of `seq`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._session, self._source = "", ""
        self._clock = (0, 0)  # a stream time and the wall clock then, nanoseconds
        self._current: Transition | None = None
        self._deviations: dict[int, DeviationRun] = {}
        self._last_cycle: tuple[Cycle, CycleRun] | None = None
        self._paused = False  # since the last cycle: what followed it was a pause, so its pass may go on

    def take(self, event: Event) -> None:
        utc_ns = event.run.get("utc_ns")
        utc_ns = utc_ns if isinstance(utc_ns, int) and 0 < utc_ns < LARGEST_NS else self._clock[1]
        if utc_ns:
            self._history.first_utc_ns = min(self._history.first_utc_ns or utc_ns, utc_ns)
            self._history.last_utc_ns = max(self._history.last_utc_ns, utc_ns)
        if isinstance(event, Lost):
            self._history.lost_events.miss(self._session, event.from_, event.to)
        elif isinstance(seq := getattr(event, "seq", None), int):  # reports have none; a journal should hold none
            self._history.lost_events.hold(self._session, seq)
        if isinstance(event, Start):
            self._cut()
            self._session, self._source = str(event.run.get("session") or ""), event.source
            self._clock = (0, utc_ns)
            self._history.runs += self._new("start", utc_ns)
        elif isinstance(event, Transition):
            self._clock = (event.decision.t_ns, utc_ns)
            self._end_step(event)
        elif isinstance(event, Deviation):
            self._clock = (event.decision.t_ns, utc_ns)
            self._note(event)
        elif isinstance(event, Cycle):
            self._end_cycle(event)
        elif isinstance(event, (End, Lost)) or (isinstance(event, Gap) and event.reset):
            self._cut()

    def finish(self) -> None:
        self._history.deviations += self._deviations.values()

    def _end_step(self, event: Transition) -> None:
        before = self._current
        self._current = event
        if not self._paused:
            self._last_cycle = None  # its pass is over: the next one is under way
        if before is None or event.from_ is None:
            return
        duration_s = (event.boundary.t_ns - before.boundary.t_ns) / 1e9
        if duration_s > 0:
            self._history.steps.append(StepRun(before.to, self._place(before.boundary), duration_s))

    def _end_cycle(self, event: Cycle) -> None:
        begin, end = self._place(event.begin), self._place(event.end)
        complete, deviations = event.complete, len(event.deviations)
        if self._last_cycle is not None and _goes_on(self._last_cycle[0], event):
            first = self._last_cycle[1]
            if self._history.cycles and self._history.cycles[-1] is first:
                self._history.cycles.pop()
            begin, complete, deviations = first.begin, not event.missing, deviations + first.deviations
        same_clock = begin.session == end.session
        duration_s = end.t_s - begin.t_s if same_clock else (end.utc_ns - begin.utc_ns) / 1e9
        found = CycleRun(begin, end, duration_s, complete, event.missing, deviations)
        self._last_cycle, self._paused = (event, found), False
        if duration_s > 0:
            self._history.cycles.append(found)

    def _note(self, event: Deviation) -> None:
        if event.corrects is not None:
            self._deviations.pop(event.corrects, None)
        place = self._place(event.boundary)
        self._deviations[event.seq] = DeviationRun(
            event.kind, place, event.seen, event.expected, event.evidence, event.confidence
        )

    def _cut(self) -> None:
        if self._current is not None:
            self._history.cut += self._new("cut", self._current.boundary.t_ns)
        self._current, self._paused = None, True

    def _new(self, what: str, time_ns: int) -> bool:
        key = what, self._session, time_ns
        new = key not in self._history.seen
        self._history.seen.add(key)
        return new

    def _place(self, moment: Moment) -> Place:
        t_ns, then_ns = self._clock
        utc_ns = min(LARGEST_NS, max(0, then_ns - (t_ns - moment.t_ns)))
        return Place(self._session, self._source, utc_ns, moment.t_ns / 1e9, moment.frame)


def _goes_on(earlier: Cycle, event: Cycle) -> bool:
    """Whether the pass of `event` began with that of `earlier`. The last step of that one may have gone on."""
    done = [*(earlier.before or ()), *(str(step.get("action")) for step in earlier.steps)]
    before = event.before
    return before is not None and len(done) - 1 <= len(before) <= len(done) and list(before) == done[: len(before)]


def histories(journals: Iterable[Iterable[Event]]) -> list[History]:
    """The history of each stream, by name.

    Args:
        journals: of each its events, in the order of `seq`; journals of one stream are joined. What two of them
            hold, such as a journal and a copy of it, counts once.
    """
    found: dict[str, History] = {}
    for events in journals:
        readers: dict[str, _Reader] = {}
        for event in events:
            history = found.setdefault(event.stream, History(event.stream))
            readers.setdefault(event.stream, _Reader(history)).take(event)
        for reader in readers.values():
            reader.finish()
    for history in found.values():
        history.steps = sorted(dict.fromkeys(history.steps), key=lambda step: step.begin.utc_ns)
        history.cycles = sorted(dict.fromkeys(history.cycles), key=lambda cycle: cycle.end.utc_ns)
        history.deviations = sorted(dict.fromkeys(history.deviations), key=lambda deviation: deviation.at.utc_ns)
    return [found[name] for name in sorted(found)]


def within(history: History, from_ns: int, until_ns: int) -> History:
    """What began (a cycle: ended) at `from_ns` or later, and before `until_ns`. Runs, lost and cut are those of all."""

    def inside(utc_ns: int) -> bool:
        return from_ns <= utc_ns < until_ns

    first_ns, last_ns = max(history.first_utc_ns, from_ns), min(history.last_utc_ns, until_ns)
    if first_ns > last_ns:
        first_ns = last_ns = 0
    kept: dict[str, Any] = {
        "steps": [step for step in history.steps if inside(step.begin.utc_ns)],
        "cycles": [cycle for cycle in history.cycles if inside(cycle.end.utc_ns)],
        "deviations": [deviation for deviation in history.deviations if inside(deviation.at.utc_ns)],
        "first_utc_ns": first_ns,
        "last_utc_ns": last_ns,
    }
    return History(**{**vars(history), **kept})
