"""The latest-frame slot: one thread puts frames in, the loop takes the newest, the frames in between are counted."""

from __future__ import annotations

import threading

from .frame import Frame, Intake


class LatestFrameSlot:
    """Holds at most one frame, between one reading thread and one loop."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # re-entrant: a signal handler may call `wake`
        self._frame: Frame | None = None
        self._captured = self._superseded = self._undecodable = 0
        self._missed = 0
        self._woken = False
        self.closed = False

    def put(self, frame: Frame, lost: int = 0) -> bool:
        """Replace the frame in the slot.

        Args:
            lost: frames captured just before `frame` that never reached the slot; they count as superseded.

        Returns:
            False, and nothing is counted, once the slot is closed.
        """
        with self._changed:
            if self.closed:
                return False
            self._captured += 1 + lost
            lost += self._frame is not None
            self._superseded += lost
            self._missed += lost
            self._frame = frame
            self._changed.notify_all()
            return True

    def add_undecodable(self, count: int = 1) -> None:
        """Count frames that were captured and could not be decoded."""
        with self._changed:
            if not self.closed:
                self._captured += count
                self._undecodable += count

    def add_superseded(self, count: int) -> None:
        """Count frames that were captured and dropped on the way, when no further frame follows them."""
        with self._changed:
            if not self.closed:
                self._captured += count
                self._superseded += count
                self._missed += count

    def get(self, timeout_s: float | None) -> tuple[Frame, int] | None:
        """The newest frame, and how many were superseded since the last one taken.

        None after `timeout_s`, after `wake`, or when the slot is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self.closed or self._woken, timeout_s)
            self._woken = False
            if self._frame is None:
                return None
            frame, missed = self._frame, self._missed
            self._frame, self._missed = None, 0
            return frame, missed

    def wake(self) -> None:
        """Make a waiting `get` (or the next one) return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more frames. A frame in the slot can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def intake(self) -> Intake:
        with self._changed:
            waiting = int(self._frame is not None)
            return Intake(self._captured, self._superseded, self._undecodable, waiting)
