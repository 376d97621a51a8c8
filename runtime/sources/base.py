"""The interface of every source: frames in order, and counts of the frames that the loop never saw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .frame import Frame, Intake


class Source(ABC):
    """Delivers frames in the order of their times.

    `name`: may be logged; it holds no credentials.
    `period_ns`: nanoseconds between frames, None where unknown.
    `live`: stream time passes whether frames come or not.
    `waits_for_loop`: no frame is dropped; the next one is read when the loop takes it (back-pressure).
    `ended`: None, or why there are no more frames: `eof`, or `source` (a camera was lost for good).
    """

    live = False
    waits_for_loop = False

    def __init__(self, name: str, period_ns: int | None) -> None:
        self.name = name
        self.period_ns = period_ns
        self.ended: str | None = None

    def start(self) -> None:  # noqa: B027 - a source that waits for the loop has nothing to start
        """Begin to capture. Nothing is read before."""

    @abstractmethod
    def take(self, until_ns: int | None) -> tuple[Frame, int] | None:
        """The next frame, and how many were superseded before it.

        None when stream time reaches `until_ns` before a frame comes, after half a second without one, after `wake`,
        and at the end; then `ended` says why.
        """

    @abstractmethod
    def now_ns(self) -> int:
        """Stream time up to which no further frame can come."""

    @abstractmethod
    def intake(self) -> Intake:
        """The counts so far."""

    def health(self) -> dict[str, Any]:
        """What a heartbeat reports about the source. Empty for files."""
        return {}

    def wake(self) -> None:  # noqa: B027 - a source that never blocks has nothing to wake
        """Make a waiting `take` return."""

    @abstractmethod
    def close(self) -> None:
        """Stop to capture and release everything. May be called twice."""

    def __enter__(self) -> Source:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
