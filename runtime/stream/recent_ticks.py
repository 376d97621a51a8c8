"""Which frame the recent ticks of an epoch saw, and when. Boundaries lie at such ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_hal.events import Moment

from .restored import restored_moment
from .ring import TIME, PyramidRing


class RecentTicks:
    """The moments of the ticks that the ring of the pyramid holds, of the first tick and of the last one.

    Args:
        ring: holds the times.
        memory_ticks: at the newest decision, moments of this many ticks before it are given. The ring may hold older
            ones, but which depends on how many ticks were stepped at once.
    """

    def __init__(self, ring: PyramidRing, memory_ticks: int) -> None:
        self._ring, self._memory_ticks = ring, memory_ticks
        self._frames = np.zeros(ring.capacity[0], np.int64)
        self.first = Moment(0, 0, 0)
        self.last = Moment(0, 0, 0)
        self.newest_due = 0
        """Ticks up to the newest decision that was due."""

    def __len__(self) -> int:
        """How many ticks can be held."""
        return len(self._frames)

    def add(self, moments: Sequence[Moment]) -> None:
        for moment in moments:
            self._frames[moment.tick % len(self)] = moment.frame
        if moments[0].tick == 0:
            self.first = moments[0]
        self.last = moments[-1]

    def reset(self) -> None:
        """Begin a new epoch. `last` stays."""
        self.newest_due = 0

    def at(self, tick: int) -> Moment:
        """The moment of a tick that the ring holds."""
        if tick == 0:  # the first label of an epoch may be decided after tick 0 has left the ring
            return self.first
        return Moment(tick, int(self._frames[tick % len(self)]), int(self._ring.at(0, TIME, tick)))

    def find(self, tick: int) -> Moment | None:
        """The moment of a tick; None if it is too old, or not there yet."""
        return self.at(tick) if tick == 0 or self._oldest <= tick < self._ring.count(0) else None

    def nearest(self, tick: int) -> Moment:
        """The moment of a tick, or of the nearest one that `find` gives."""
        return self.at(tick if tick == 0 else min(max(tick, self._oldest), self._ring.count(0) - 1))

    @property
    def _oldest(self) -> int:
        return max(0, self.newest_due - self._memory_ticks, self._ring.count(0) - len(self))

    def state(self) -> dict[str, Any]:
        return {"shown": self._frames.copy(), "_first": asdict(self.first), "_last": asdict(self.last)}

    def restore(self, state: dict[str, Any], newest_due: int) -> None:
        """Raises ValueError if a number is out of range."""
        self._frames[:] = state["shown"]
        self.first, self.last = restored_moment(state["_first"]), restored_moment(state["_last"])
        self.newest_due = newest_due
