"""The time between two frames of a source: what the source announces, or what is measured if that is longer.

Cameras may report 30 frames per second and deliver 15 in the dark, or report nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

INTERVALS = 5
"""The measured period is the median of this many intervals between frames."""

LONGEST_PERIOD_NS = 100 * 10**9
"""The longest time between two frames. A longer one is a break."""


class SourcePeriod:
    """Measures the period of one source.

    Args:
        announced_ns: what the source reports, in nanoseconds; None if it reports nothing. It may change.
        intervals: measured before, in nanoseconds; only the newest are kept.
    """

    def __init__(self, announced_ns: int | None, intervals: Iterable[int] = ()) -> None:
        self.announced_ns = announced_ns
        self._intervals: deque[int] = deque(intervals, maxlen=INTERVALS)

    @property
    def intervals(self) -> list[int]:
        """The newest ones, oldest first."""
        return list(self._intervals)

    def measure(self, interval_ns: int) -> None:
        """A frame came `interval_ns` after the one before."""
        self._intervals.append(interval_ns)

    @property
    def ns(self) -> int:
        """The period in nanoseconds; 0 if it is unknown."""
        period_ns = self.announced_ns or 0
        if len(self._intervals) == INTERVALS:
            period_ns = max(period_ns, sorted(self._intervals)[INTERVALS // 2])
        return min(period_ns, LONGEST_PERIOD_NS)  # frames years apart must not cause the ticks of years
