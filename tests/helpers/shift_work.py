"""Made-up days of work, as the events of a journal: cycles whose times are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from edge_hal.events import Cycle, Deviation, End, Event, Gap, Moment, Start, Transition


def utc_ns(text: str) -> int:
    """`2026-03-29T01:30`, in UTC, as nanoseconds since 1970."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()) * 10**9


@dataclass
class Bench:
    """Emits the events of a run that began at `utc_ns`. Decisions come 2 s after boundaries, and so do the events."""

    utc_ns: int
    stream: str = "bench"
    session: str = "s1"
    source: str = "/dev/video0"
    seq: int = 0
    t_ns: int = 0
    current: str | None = None
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        told = {"source": self.source, "labels": ("reach", "turn", "wait"), "model_hz": 10.0, "bundle": "b"}
        self._add(Start, 0, {**told, "decoder": "d"})

    def step(self, action: str, duration_s: float) -> None:
        told = {"from_": self.current, "to": action, "boundary": self._moment(), "decision": self._moment(2.0)}
        self._add(Transition, 2.0, {**told, "confidence": 0.9, "warm": True, "decoder": "d"})
        self.current = action
        self.t_ns += round(duration_s * 1e9)

    def cycle(
        self,
        steps: Sequence[tuple[str, float]],
        *,
        complete: bool = True,
        missing: Sequence[str] = (),
        before: Sequence[str] | None = None,
    ) -> None:
        begin = self._moment()
        for action, duration_s in steps:
            self.step(action, duration_s)
        told = {"deviations": (), "missing": tuple(missing), "complete": complete, "decoder": "d"}
        done = tuple({"action": action, "begin_t_ns": 0, "end_t_ns": 0} for action, _ in steps)
        kept = None if before is None else tuple(before)
        self._add(Cycle, 2.0, {"begin": begin, "end": self._moment(), "steps": done, "before": kept, **told})

    def deviation(self, kind: str, corrects: int | None = None, seen: str | None = "turn") -> int:
        moments = {"boundary": self._moment(), "decision": self._moment(2.0)}
        told = {"kind": kind, "expected": ("reach",), "seen": seen, "evidence": "it was not done", "corrects": corrects}
        self._add(Deviation, 2.0, {**told, **moments, "confidence": 0.8, "decoder": "d"})
        return self.seq - 1

    def gap(self, seconds: float) -> None:
        begin = self._moment()
        self.t_ns += round(seconds * 1e9)
        told = {"reason": "source", "lost_ticks": 1, "reset": True, "bundle": "b", "decoder": "d"}
        self._add(Gap, 0, {**told, "begin": begin, "end": self._moment()})
        self.current = None

    def end(self) -> None:
        self._add(End, 0, {"reason": "eof", "last": self._moment(), "counters": {}})

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def _moment(self, later_s: float = 0.0) -> Moment:
        t_ns = self.t_ns + round(later_s * 1e9)
        return Moment(t_ns // 10**8, t_ns // 10**8, t_ns)

    def _add(self, what: Any, later_s: float, told: dict[str, Any]) -> None:
        utc_ns = self.utc_ns + self.t_ns + round(later_s * 1e9)
        run = {"session": self.session, "journal": "j", "utc_ns": utc_ns}
        self.events.append(what(self.stream, 0, seq=self.seq, **told, run=run))
        self.seq += 1
