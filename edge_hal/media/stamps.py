"""Time stamps of a video file as numbers: damaged ones replaced, times in nanoseconds, and what is missing.

Stamps are integers in units of the file's time base.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_hal.rate import instant_ns

REORDER_S = 2
"""Frames are stored in the order of decoding: a stamp may be this much earlier than the one stored before it."""
JUMP_S = 10
"""A step further than this, forwards or beyond `REORDER_S` back, is checked against the stamps that follow."""
FOLLOWING = 4
"""Following stamps that are looked at."""
GAP_S = 0.5
"""Shorter gaps are not counted as missing: cameras drop single frames."""

Item = TypeVar("Item")


def steadied(items: Iterable[tuple[int | None, Item]], period: int, second: int) -> Iterator[tuple[int, Item]]:
    """The items in their order, with stamps that can be meant.

    - No stamp: one `period` after the latest.
    - A single stamp far from those around it is damaged: it becomes one `period` after the latest.
    - All following stamps jump back, as in recordings that were joined: they go on after the latest.
    - All following stamps jump forward: the recording paused, and they stay.

    Args:
        items: pairs of a stamp and anything, in the order of the file.
        period, second: lengths in units of the stamps.
    """
    latest: int | None = None
    shift = 0

    def fits(stamp: int | None) -> bool:
        if latest is None or stamp is None:
            return True
        return latest - REORDER_S * second <= stamp + shift <= latest + JUMP_S * second

    for (stamp, item), following in _with_following(items):
        if stamp is None:
            found = 0 if latest is None else latest + period
        elif fits(stamp):
            found = stamp + shift
        else:
            assert latest is not None
            found = stamp + shift
            if any(after is not None and fits(after) for after in following):
                found = latest + period
            elif found < latest:
                shift, found = latest + period - stamp, latest + period
        latest = found if latest is None else max(latest, found)
        yield found, item


def _with_following(
    items: Iterable[tuple[int | None, Item]],
) -> Iterator[tuple[tuple[int | None, Item], list[int | None]]]:
    waiting: deque[tuple[int | None, Item]] = deque()
    for pair in items:
        waiting.append(pair)
        if len(waiting) > FOLLOWING:
            first = waiting.popleft()
            yield first, [stamp for stamp, _ in waiting]
    while waiting:
        first = waiting.popleft()
        yield first, [stamp for stamp, _ in waiting]


@dataclass(frozen=True)
class TimeBase:
    """`unit`: seconds of one unit of a stamp. `origin`: stamp of time 0. `rate`: frames per second, as announced."""

    unit: Fraction
    origin: int
    rate: Fraction

    def ns(self, stamp: int) -> int:
        """Nanoseconds since `origin`.

        A stamp within one unit of a multiple of the period is that multiple: containers round the times of a constant
        rate to their unit, for example to milliseconds.
        """
        seconds = (stamp - self.origin) * self.unit
        index = round(seconds * self.rate)
        if abs(seconds - index / self.rate) <= self.unit:
            return instant_ns(index, self.rate)
        return round(seconds * 10**9)


@dataclass(frozen=True)
class Missing:
    """Frames that a video file announces and does not give.

    Attributes:
        announced: frames that stamps or duration announce.
        undecodable: frames that the file holds and that cannot be decoded.
        undelivered: frames that are not in the file: gaps in the stamps of a constant rate, and an end before the
            announced duration.
    """

    announced: int
    undecodable: int
    undelivered: int

    @property
    def share(self) -> float:
        return (self.undecodable + self.undelivered) / max(1, self.announced)

    def __str__(self) -> str:
        parts = {"could not be decoded": self.undecodable, "are not in the file": self.undelivered}
        text = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        return f"{self.share:.1%} of {self.announced} frames are missing: {text}"


class Gaps:
    """Counts the frames that are missing between the times given to `add`, if the rate is constant."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = rate
        self._period_s = float(1 / rate)
        self._last_ns: int | None = None
        self._regular = self._irregular = self._missing = 0

    def add(self, t_ns: int) -> None:
        """Times in increasing order."""
        if self._last_ns is not None:
            step_s = (t_ns - self._last_ns) / 1e9
            if step_s > max(GAP_S, 1.5 * self._period_s):
                self._missing += round(step_s / self._period_s) - 1
            elif abs(step_s - self._period_s) <= 0.1 * self._period_s + 0.001:
                self._regular += 1
            else:
                self._irregular += 1
        self._last_ns = t_ns

    @property
    def constant(self) -> bool:
        """Whether nine of ten steps are a period."""
        return self._regular >= 9 * self._irregular

    def missing(self, announced_s: float | None) -> int:
        """Frames missing between the times, and after the last one until `announced_s`."""
        found = self._missing if self.constant else 0
        if self._last_ns is not None and announced_s is not None:
            tail_s = announced_s - self._last_ns / 1e9 - self._period_s
            found += round(tail_s / self._period_s) if tail_s > max(GAP_S, self._period_s) else 0
        return found


def newest(times_ns: NDArray[np.int64], at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `at_ns`, the index of the newest of the sorted `times_ns` that is not later; 0 before the first."""
    return np.maximum(np.searchsorted(times_ns, at_ns, "right") - 1, 0)
