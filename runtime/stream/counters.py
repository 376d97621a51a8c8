"""The counters of a stream: how many frames came and ticks were due, by what happened to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_hal.runtime.sources.frame import Intake


@dataclass
class Counters:
    """How many frames were pushed and ticks were due, by what happened to them. `pending`: frames not shown yet."""

    used: int = 0
    decimated: int = 0
    overload: int = 0
    reset: int = 0
    pending: int = 0
    ticks: int = 0
    fresh: int = 0
    held: int = 0
    cut: int = 0

    def tally(self, intake: Intake) -> dict[str, Any]:
        """The counters of events, with those of the source: captured = used + sum(dropped) + in_flight, and
        ticks = fresh + held + cut."""
        return {
            "captured": intake.captured,
            "used": self.used,
            "dropped": {
                "superseded": intake.superseded,
                "decimated": self.decimated,
                "overload": self.overload,
                "undecodable": intake.undecodable,
                "reset": self.reset,
            },
            "in_flight": intake.waiting + self.pending,
            "ticks": self.ticks,
            "fresh": self.fresh,
            "held": self.held,
            "cut": self.cut,
        }
