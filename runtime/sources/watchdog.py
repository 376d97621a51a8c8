"""When a camera is given up and when it is tried again, and whose stamps are believed."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
SETTLED_S = 10.0
"""A camera that has delivered for so long is sound: the next failure is a first one again."""
LONGEST_STILL_S = 600.0
STEP_NS = 50_000_000
"""Stamps may be so far off for other reasons: the way from the camera here takes longer now and then."""


@dataclass(frozen=True)
class Limits:
    """`open_s`: opening and the first picture. `stall_s`: between frames, and never less than four of
    the camera's periods. `still_s`: the same picture, bit by bit; 0 does not look. `give_up_s`: without
    any frame before the source ends, None for never."""

    open_s: float = 20.0
    stall_s: float = 5.0
    still_s: float = 30.0
    give_up_s: float | None = None


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter, so that a hundred devices do
    not come back at once when their switch does."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._random = rng or random.Random()
        self._failures = 0

    def failed(self, delivered_s: float) -> float:
        """Seconds to wait, after a camera that delivered for `delivered_s`."""
        if delivered_s >= SETTLED_S:
            self._failures = 0
        delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        return delay_s * self._random.uniform(0.5, 1.5)


class StillLimit:
    """How long a picture may stay the same. Where opening the camera again changes nothing, the scene
    is that still: each vain attempt doubles the limit, until a picture changes."""

    def __init__(self, still_s: float) -> None:
        self._first_s = self._limit_s = still_s

    def frozen(self, still_ns: int) -> bool:
        """Told of each picture but the first of a connection."""
        if still_ns == 0:
            self._limit_s = self._first_s
        if not self._first_s or still_ns < self._limit_s * 1e9:
            return False
        self._limit_s = min(max(LONGEST_STILL_S, self._first_s), 2 * self._limit_s)
        return True


class Stamps:
    """Capture stamps as stream time that never runs backwards and never ahead of the clock.

    A stamp lies between the last one and now. One far outside says that the camera's clock was stepped:
    what follows is moved by as much as it is wrong. `steps` counts that.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.first_ns: int | None = None
        self._last_ns = 0
        self._moved_ns = 0

    def stream_ns(self, captured_ns: int, now_ns: int) -> tuple[int, int]:
        """(stream time, how far the clock was found to have stepped just now), both ns.

        Args:
            captured_ns: the stamp.
            now_ns: the monotonic clock where the frame arrives.
        """
        if self.first_ns is None:
            self.first_ns = self._last_ns = min(captured_ns, now_ns)
        told_ns, step_ns = captured_ns + self._moved_ns, 0
        stamp_ns = min(max(told_ns, self._last_ns), now_ns)
        if abs(told_ns - stamp_ns) > STEP_NS:
            step_ns, stamp_ns = told_ns - now_ns, now_ns
            self._moved_ns -= step_ns
            self.steps += 1
        self._last_ns = stamp_ns
        return stamp_ns - self.first_ns, step_ns
