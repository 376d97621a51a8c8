"""Combines the ticks of several views into the frames of one stream: posteriors in, one frame for each instant out.

Instants are a period of the model apart, from the first tick of any view. A tick belongs to the nearest instant in
capture time, so each view has at most one tick in each instant, whatever the phase of its clock. An instant is closed
when each view has a tick in it or after it, or was absent; a view that is late is waited for `wait_s`, and then not
again until it is back. An instant that no view saw gives no frame, and the clock of the fused stream holds the frame
before it or tells a gap, as for any source.

Views at full pace (`pace: asap`) share the stream time of their files. They wait for each other, so the result does
not depend on threads.

Every tick of a view is counted once: ticks = used + superseded + late + unfit + waiting.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edge_hal.decoding.fusion import Rows, check_fusable, in_order, label_order, pooled
from edge_hal.errors import EdgeHalError
from edge_hal.rate import exact_rate, instant_ns
from edge_hal.runtime import threads
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.spec import PyramidSpec

LONGEST_WAIT_S = 0.5
LONGEST_OPEN_S = 0.5
"""If the loop is later than this, the oldest instant is dropped, and counted as superseded."""
AHEAD = 32
"""Instants that a view at full pace may be ahead of the others."""
STOP_POLL_S = 0.1


@dataclass
class ViewCounts:
    """What became of the ticks of a view in this run. `superseded`: another of this view in the same instant, or the
    instant was dropped. `late`: the instant was closed. `unfit`: its bundle cannot be fused with the others."""

    ticks: int = 0
    used: int = 0
    superseded: int = 0
    late: int = 0
    unfit: int = 0
    waiting: int = 0


@dataclass
class _Instant:
    rows: list[Rows | None]
    taken_ns: int = 0
    """The capture time of the oldest of its ticks."""


class FusedSource(Source):
    """The source of one run of a fused stream. Frames are vectors (H K,): fused log posteriors.

    Args:
        names: of the views.
        spec: of the first view. Labels are in its order.
        weights: of each view, see `fusion.pooled`.
        wait_s: how long an instant waits for a view that is late.
        live: capture times are those of the monotonic clock. Otherwise the views are files at full pace.

    `most_open`: the most instants that wait to be taken.
    """

    def __init__(
        self, names: Sequence[str], spec: PyramidSpec, weights: Sequence[float], wait_s: float, *, live: bool
    ) -> None:
        self._rate = exact_rate(spec.model_hz)
        super().__init__(f"fuse:{','.join(names)}", instant_ns(1, self._rate))
        self.live, self.waits_for_loop = live, not live
        self._names, self._spec, self._weights = tuple(names), spec, tuple(weights)
        self._late_ns = instant_ns(1, self._rate) // 2 + round(wait_s * 1e9)
        self.most_open = math.ceil((LONGEST_OPEN_S + wait_s) * spec.model_hz) + 2
        self._changed = threading.Condition(threading.RLock())  # a signal handler may call `wake`
        self._origin_ns: int | None = None if live else 0
        self._open: dict[int, _Instant] = {}
        self._next = 0  # instants before this one are closed
        self._newest = [-1] * len(names)
        self._absent, self._over = set[int](), set[int]()
        self._orders: dict[int, tuple[PyramidSpec, list[int] | None]] = {}
        self._captured = self._dropped = self._missed = 0
        self._now_ns = 0
        self._woken = self._closed = False
        self.counts = [ViewCounts() for _ in names]
        self.seen_by = [0] * len(names)
        """Frames by the number of views that they were made of, from one on."""

    # --- called by the views ----------------------------------------------------------------------

    def push(self, view: int, spec: PyramidSpec, times_ns: Sequence[int], rows: Rows) -> None:
        """Ticks of a view at these capture times, with log posteriors (n, H K) in the order of the labels of `spec`."""
        with self._changed:
            if self._closed:
                return
            counts, order = self.counts[view], self._order(view, spec)
            counts.ticks += len(times_ns)
            if order is None:
                counts.unfit += len(times_ns)
                return
            if self._origin_ns is None:
                self._origin_ns = times_ns[0]
            self._absent.discard(view)
            for t_ns, row in zip(times_ns, in_order(rows, order), strict=True):
                self._put(view, t_ns, row)
            while self.live and len(self._open) > self.most_open:
                self._drop(min(self._open))
            self._changed.notify_all()

    def wait_for_room(self, view: int, stopped: Callable[[], bool]) -> None:
        """Views at full pace wait for each other, and for the loop."""
        with self._changed:
            while not self.live and not self._closed and self._newest[view] >= self._next + AHEAD and not stopped():
                self._changed.wait(STOP_POLL_S)

    def expect(self, view: int) -> None:
        """A run of the view begins."""
        with self._changed:
            self._over.discard(view)
            if not self.live:
                self._absent.discard(view)

    def miss(self, view: int, *, over: bool = False) -> None:
        """A run of the view ended. `over`: no other follows."""
        with self._changed:
            self._absent.add(view)
            if over:
                self._over.add(view)
            self._changed.notify_all()

    def _put(self, view: int, t_ns: int, row: Rows) -> None:
        assert self._origin_ns is not None
        rate = self._rate
        halves = 2 * (t_ns - self._origin_ns) * rate.numerator + 10**9 * rate.denominator
        index = halves // (2 * 10**9 * rate.denominator)
        counts = self.counts[view]
        if index < self._next:
            counts.late += 1
            return
        if index not in self._open:
            self._open[index] = _Instant([None] * len(self._names), t_ns)
            self._captured += 1
        instant = self._open[index]
        if instant.rows[view] is None:
            counts.waiting += 1
        else:
            counts.superseded += 1
        instant.rows[view] = row
        instant.taken_ns = min(instant.taken_ns, t_ns)
        self._newest[view] = max(self._newest[view], index)

    def _drop(self, index: int) -> None:
        for view, row in enumerate(self._open.pop(index).rows):
            if row is not None:
                self.counts[view].waiting -= 1
                self.counts[view].superseded += 1
        self._next = index + 1
        self._dropped += 1
        self._missed += 1

    def _order(self, view: int, spec: PyramidSpec) -> list[int] | None:
        """Where the labels of the first view stand in the posteriors of this one; None if it cannot be fused."""
        known = self._orders.get(view)
        if known is None or known[0] != spec:
            try:
                check_fusable((self._names[0], self._names[view]), (self._spec, spec))
                known = spec, label_order(self._spec.labels, spec.labels)
            except EdgeHalError as error:
                threads.log.error("%s: %s; it is left out", error.what, error.why)
                known = spec, None
            self._orders[view] = known
        return known[1]

    # --- called by the loop -----------------------------------------------------------------------

    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        end_ns = time.monotonic_ns() + round(LONGEST_WAIT_S * 1e9)
        with self._changed:
            while True:
                now_ns = time.monotonic_ns()
                if (index := self._closable(now_ns)) is not None:
                    return self._frame(index)
                if self.live and self._origin_ns is not None:
                    self._now_ns = max(self._now_ns, now_ns - self._origin_ns - self._late_ns)
                if self._closed or (len(self._over) == len(self._names) and not self._open):
                    self.ended = "eof"
                    return None
                due = until_ns is not None and self._now_ns >= until_ns
                if self._woken or due or now_ns >= end_ns:
                    self._woken = False
                    return None
                wakes_ns = [end_ns]
                if self.live and self._origin_ns is not None:  # when an instant is closed, and when time has passed
                    next_ns = [instant_ns(index, self._rate) for index in sorted(self._open)[:1]]
                    next_ns += [] if until_ns is None else [until_ns]
                    wakes_ns += [t_ns + self._origin_ns + self._late_ns for t_ns in next_ns]
                self._changed.wait(max(0, min(wakes_ns) - now_ns) / 1e9)

    def now_ns(self) -> int:
        return self._now_ns

    def intake(self) -> Intake:
        with self._changed:
            return Intake(captured=self._captured, superseded=self._dropped, waiting=len(self._open))

    def health(self) -> dict[str, Any]:
        """`views`: what became of the ticks of each, its weight, and whether it is absent. `seen_by`: frames by the
        number of views that they were made of, from one on."""
        with self._changed:
            views = {
                name: {**vars(self.counts[view]), "weight": self._weights[view], "absent": view in self._absent}
                for view, name in enumerate(self._names)
            }
            return {"views": views, "seen_by": list(self.seen_by)}

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _closable(self, now_ns: int) -> int | None:
        """The oldest instant, if nothing is waited for any more. Views that were waited for in vain are absent."""
        if not self._open or self._closed:
            return None
        index = min(self._open)
        rows = self._open[index].rows
        missing = {v for v, row in enumerate(rows) if row is None and v not in self._absent and self._newest[v] < index}
        if missing and self.live:
            assert self._origin_ns is not None
            if now_ns >= self._origin_ns + instant_ns(index, self._rate) + self._late_ns:
                self._absent |= missing
                missing = set()
        return None if missing else index

    def _frame(self, index: int) -> tuple[Frame, int]:
        instant, missed = self._open.pop(index), self._missed
        self._next, self._missed = index + 1, 0
        self._now_ns = max(self._now_ns, instant_ns(index, self._rate))
        there = [view for view, row in enumerate(instant.rows) if row is not None]
        for view in there:
            self.counts[view].waiting -= 1
            self.counts[view].used += 1
        self.seen_by[len(there) - 1] += 1
        number = sum(self.seen_by) + self._dropped - 1
        data: NDArray[Any] = pooled(instant.rows, self._weights, len(self._spec.labels))
        self._changed.notify_all()  # there is room
        captured_ns = instant.taken_ns if self.live else time.monotonic_ns()
        return Frame(number, instant_ns(index, self._rate), captured_ns, data), missed
