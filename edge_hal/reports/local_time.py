"""Days, hours and shifts in a time zone. Shifts follow the clocks on the wall: one over a change of the clocks is an
hour shorter or longer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_hal.errors import EdgeHalError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class LocalTime:
    """`zone`: None for that of this machine."""

    zone: tzinfo | None = None

    @classmethod
    def named(cls, name: str | None) -> LocalTime:
        """Raises EdgeHalError (exit code 2) for a name that is no time zone."""
        if name is None:
            return cls()
        try:
            return cls(ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            why = "there is no such time zone, or this machine has no list of them (pip install tzdata)"
            raise EdgeHalError(f"--timezone {name}", why, "write Europe/Berlin", exit_code=2) from error

    def at(self, utc_ns: int) -> datetime:
        """The local date and time of nanoseconds since 1970, to the microsecond."""
        return (EPOCH + timedelta(microseconds=utc_ns // 1000)).astimezone(self.zone)

    def span(self, first_utc_ns: int, last_utc_ns: int) -> str:
        """From when to when there were events, for people. 0 for none."""
        if not last_utc_ns:
            return "no events in this time"
        return " to ".join(f"{self.at(ns):%Y-%m-%d %H:%M}" for ns in (first_utc_ns, last_utc_ns))

    def utc_ns(self, day: datetime, clock: time) -> int:
        """When the clocks show `clock` on this day; the first time if they show it twice, and if they never do, when
        they would have shown it."""
        local = datetime.combine(day.date(), clock)
        local = local.astimezone() if self.zone is None else local.replace(tzinfo=self.zone)
        return (local - EPOCH) // timedelta(microseconds=1) * 1000


@dataclass(frozen=True)
class Shift:
    """From `begin_utc_ns` until `end_utc_ns`, nanoseconds since 1970. `name`: `2026-05-01 22:00`, when it begins."""

    name: str
    begin_utc_ns: int
    end_utc_ns: int


@dataclass(frozen=True)
class ShiftPlan:
    """Shifts begin each day at these times, and each lasts until the next begins."""

    begins: tuple[time, ...]
    local: LocalTime

    @classmethod
    def parse(cls, text: str, local: LocalTime) -> ShiftPlan:
        """`06:00,14:00,22:00`. Raises EdgeHalError (exit code 2) for anything else."""
        begins = []
        for part in text.split(","):
            match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", part.strip())
            if match is None:
                why, todo = f"'{part}' is no time of day", "write --shifts 06:00,14:00,22:00"
                raise EdgeHalError(f"--shifts {text}", why, todo, exit_code=2)
            begins.append(time(int(match[1]), int(match[2])))
        if len({*begins}) < len(begins):
            raise EdgeHalError(f"--shifts {text}", "a time is given twice", exit_code=2)
        return cls(tuple(sorted(begins)), local)

    def at(self, utc_ns: int) -> Shift:
        """The shift at this moment."""
        today = self.local.at(utc_ns)
        days = [today + timedelta(days=offset) for offset in (-1, 0, 1)]
        known = sorted((self.local.utc_ns(day, clock), day, clock) for day in days for clock in self.begins)
        number = max(i for i, (begin_utc_ns, _, _) in enumerate(known) if begin_utc_ns <= utc_ns)
        begin_utc_ns, day, clock = known[number]
        return Shift(f"{day:%Y-%m-%d} {clock:%H:%M}", begin_utc_ns, known[number + 1][0])
