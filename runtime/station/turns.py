"""Which streams of a station compute now. While the machine is fast enough, none waits.

If it is too slow for all, the streams with the highest priority come first, and of these the one that has waited
longest. The others get late, and the clock of each cuts its own ticks and tells it (`stream/clock.py`).
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_TURN_S = 1.0
"""A turn that lasts longer does not count any more: a stream that hangs keeps nobody waiting."""


class Turns:
    """Lets at most `most` streams compute at once. For any threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, threading.Event]] = []  # a heap: highest priority first, then the oldest
        self._began_s: dict[int, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, priority: int) -> Iterator[None]:
        """Wait for a turn, and give it back."""
        with self._lock:
            number, admitted = next(self._numbers), threading.Event()
            heapq.heappush(self._waiting, (-priority, number, admitted))
            self._admit()
        while not admitted.wait(LONGEST_TURN_S):
            with self._lock:
                self._admit()
        try:
            yield
        finally:
            with self._lock:
                del self._began_s[number]
                self._admit()

    def _admit(self) -> None:
        now_s = time.monotonic()
        free = self._most - sum(now_s - began_s < LONGEST_TURN_S for began_s in self._began_s.values())
        while self._waiting and free > 0:
            _, number, admitted = heapq.heappop(self._waiting)
            self._began_s[number] = now_s
            admitted.set()
            free -= 1
