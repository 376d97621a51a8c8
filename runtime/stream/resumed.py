"""The belief and the running cycle that are kept over a pause: as the journal keeps them, as a recording keeps them,
and as an event tells them."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.decoding.belief import Belief
from edge_hal.decoding.kept_belief import KeptBelief
from edge_hal.files.untrusted import parse_json
from edge_hal.procedure.kept_cycle import KeptCycle

SCHEMA = 1
LONGEST_RESUME_S = 600.0
"""The filter steps once for each tick of the pause, while frames wait."""
LARGEST_NS = 1 << 62
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Instant:
    """A moment on two clocks: nanoseconds since 1970, and since the system started. `boot` identifies that start; it is
    empty where the system tells neither."""

    utc_ns: int
    boot: str
    boot_ns: int

    @classmethod
    def now(cls) -> Instant:
        boot = _boot()
        return cls(time.time_ns(), boot, time.clock_gettime_ns(time.CLOCK_BOOTTIME) if boot else 0)


@functools.cache
def _boot() -> str:
    try:
        return BOOT.read_text().strip() if hasattr(time, "CLOCK_BOOTTIME") else ""
    except OSError:
        return ""


@dataclass(frozen=True)
class Noted:
    """The newest belief of a run, at stream time `t_ns`. `cycle`: what is known of the running cycle; None if the
    procedure is not followed."""

    belief: Belief
    labels: tuple[str, ...]
    model_hz: float
    at: Instant
    t_ns: int
    cycle: KeptCycle | None = None

    @property
    def newest_seq(self) -> int:
        """Of the events that it names; -1 without any."""
        return -1 if self.cycle is None else self.cycle.newest_seq

    def kept(self) -> KeptBelief:
        return KeptBelief.of(self.belief, self.labels, self.model_hz)

    def row(self) -> bytes:
        """As the journal keeps it."""
        cycle = None if self.cycle is None else self.cycle.to_dict()
        return json.dumps({"schema": SCHEMA, **vars(self.at), "belief": self.kept().to_dict(), "cycle": cycle}).encode()


def read_row(row: bytes) -> tuple[Instant, KeptBelief, KeptCycle | None]:
    """Inverse of `Noted.row`. Rows of 0.4 and before have no cycle. Raises ValueError for other data."""
    data = parse_json(row)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError("it has another schema")
    boot = data.get("boot")
    if not isinstance(boot, str):
        raise ValueError("it names no start of the system")
    at = Instant(_nanoseconds(data.get("utc_ns")), boot, _nanoseconds(data.get("boot_ns")))
    return at, *_read(data)


def _read(data: dict[str, Any]) -> tuple[KeptBelief, KeptCycle | None]:
    belief, cycle = KeptBelief.from_dict(data.get("belief")), data.get("cycle")
    kept = None if cycle is None else KeptCycle.from_dict(cycle)
    if kept is not None and not belief.fits(tuple(kept.done)):
        raise ValueError("the cycle has other labels than the belief")
    return belief, kept


def _nanoseconds(value: Any, most: float = LARGEST_NS) -> int:
    if type(value) is int and 0 <= value <= most:
        return value
    raise ValueError("a time is out of range")


@dataclass(frozen=True)
class Resumed:
    """A belief of `utc_ns` (nanoseconds since 1970) is resumed `pause_ns` later, and with it the running cycle."""

    utc_ns: int
    belief: KeptBelief
    pause_ns: int
    cycle: KeptCycle | None = None

    def told(self) -> dict[str, Any]:
        """The field `resumed` of an event."""
        since_ns = self.utc_ns - round(self.belief.action_s * 1e9)
        done = {} if self.cycle is None else {"done": list(self.cycle.steps)}
        return {"action": self.belief.action, "since_utc_ns": since_ns, "age_s": round(self.pause_ns / 1e9, 3), **done}

    def entry(self) -> dict[str, Any]:
        """As a recording keeps it."""
        cycle = {} if self.cycle is None else {"cycle": self.cycle.to_dict()}
        kept = {"utc_ns": self.utc_ns, "belief": self.belief.to_dict(), **cycle}
        return {"resumed": kept, "pause_ns": self.pause_ns}

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> Resumed:
        """Inverse of `entry`. Raises ValueError for other data."""
        kept, passed_ns = entry["resumed"], _nanoseconds(entry["pause_ns"], LONGEST_RESUME_S * 1e9)
        if not isinstance(kept, dict):
            raise ValueError("a belief is no object")
        belief, cycle = _read(kept)
        return cls(_nanoseconds(kept.get("utc_ns")), belief, passed_ns, cycle)
