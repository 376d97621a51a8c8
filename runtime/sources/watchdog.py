"""Rules for cameras that fail: when one counts as lost, when it is opened again, which timestamps are corrected."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0
SOUND_AFTER_S = 10.0
"""After a camera has delivered for this long, the pauses begin at the first again."""
LONGEST_FREEZE_S = 600.0
MIN_STEP_NS = 50_000_000
"""A smaller error of a timestamp is no clock step: frames are sometimes delayed on their way from the camera."""


@dataclass(frozen=True)
class Limits:
    """After how many seconds a camera counts as lost.

    `open_s`: without a first frame after opening. `stall_s`: without a further frame; at least four frame periods.
    `still_s`: with the same picture, bit by bit; 0 switches this off. `give_up_s`: without any frame, over all
    attempts; then the source ends. None: never.
    """

    open_s: float = 20.0
    stall_s: float = 5.0
    still_s: float = 30.0
    give_up_s: float | None = None


class Backoff:
    """Pauses between attempts. They double, with jitter, so that a hundred devices do not connect at the same moment
    when their network switch is back."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._random = rng or random.Random()
        self._failures = 0

    def next_delay_s(self, delivered_s: float) -> float:
        """Seconds to wait after a connection that delivered frames for `delivered_s`."""
        if delivered_s >= SOUND_AFTER_S:
            self._failures = 0
        delay_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        jittered_s: float = delay_s * self._random.uniform(0.5, 1.5)
        return jittered_s


class FreezeLimit:
    """How long a picture may stay the same. If it still is after the camera was opened again, the scene itself does not
    change: each such attempt doubles the limit, until a picture changes."""

    def __init__(self, still_s: float) -> None:
        self._first_s = self._limit_s = still_s

    def reached(self, unchanged_ns: int) -> bool:
        """Call it for each picture but the first of a connection, with the time for which the picture is the same."""
        if unchanged_ns == 0:
            self._limit_s = self._first_s
        if not self._first_s or unchanged_ns < self._limit_s * 1e9:
            return False
        self._limit_s = min(max(LONGEST_FREEZE_S, self._first_s), 2 * self._limit_s)
        return True


class CaptureClock:
    """Converts capture timestamps to stream time, which never runs backwards and is never ahead of the clock.

    A valid timestamp is at most `MIN_STEP_NS` away from the monotonic clock at the moment when the frame was grabbed.
    Another one means that the camera's clock was stepped, be it during a silence or before the first frame: it and all
    later ones are corrected by that error. `steps` counts the steps.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.first_ns: int | None = None
        self._last_ns = 0
        self._offset_ns = 0

    def stream_ns(self, captured_ns: int, now_ns: int) -> tuple[int, int]:
        """(stream time, the clock step that this frame reveals), both ns; the step is 0 for most frames.

        Args:
            captured_ns: the timestamp.
            now_ns: the monotonic clock when the frame was grabbed. The moment when it reaches the loop would not do:
                that one also moves when this machine is busy.
        """
        corrected_ns, step_ns = captured_ns + self._offset_ns, 0
        if abs(corrected_ns - now_ns) > MIN_STEP_NS:
            step_ns, corrected_ns = corrected_ns - now_ns, now_ns
            self._offset_ns -= step_ns
            self.steps += 1
        if self.first_ns is None:
            self.first_ns = self._last_ns = min(corrected_ns, now_ns)
        self._last_ns = min(max(corrected_ns, self._last_ns), now_ns)
        return self._last_ns - self.first_ns, step_ns
