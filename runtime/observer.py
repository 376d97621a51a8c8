"""What the loop tells others about a run. Recorders, the self-check and the `on_event` callback are observers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.events import Event

from .sources.frame import Frame, Intake
from .stream.clock import Tick
from .stream.pyramid import PyramidStream
from .stream.recognizer import Recognizer
from .stream.resumed import Resumed


@dataclass(frozen=True)
class Checkpoint:
    """The run at stream time `t_ns`, when no tick waits to be stepped: `bundle` and `state` are all that later events
    depend on, `intake` is what the source has counted."""

    t_ns: int
    intake: Intake
    bundle: Bundle
    state: dict[str, Any]


class Observer:
    """Every method does nothing; a kind of observer overrides those it needs.

    The loop calls them in its own thread, in the order in which things happen. So they must return quickly, and an
    exception ends the run.
    """

    def frame_taken(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        """The loop took a frame; `missed` frames before it were superseded. `period_ns`: between frames of the source,
        if known. The clock has not seen the frame yet."""

    def time_passed(self, t_ns: int) -> None:
        """No frame came until `t_ns`, when a tick is due. The clock has not been told yet."""

    def frame_shown(self, tick: Tick) -> None:
        """A tick shows a frame for the first time. The frame is encoded next."""

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        """The ticks with input `vectors` (n, D) were stepped on all levels; the last one is at `t_ns`."""

    def published(self, event: Event) -> None:
        """A durable event was given to the publisher."""

    def resumed(self, found: Resumed) -> None:
        """What was believed before the start, or before a break, is resumed. The event that tells it comes next; at the
        first frame of the run it is resumed without another event."""

    def idle(self, t_ns: int, checkpoint: Callable[[], Checkpoint]) -> None:
        """An epoch runs and no tick waits to be stepped. `checkpoint()` copies the state of the run."""

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        """The next tick is stepped by a recogniser of another bundle."""

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        """The run ended without an error; the event `end` was published."""

    def health(self) -> dict[str, Any]:
        """Entries of its own in the health report of the run, by name."""
        return {}

    def close(self) -> None:
        """Nothing comes after this, however the run ended."""


class EventCallback(Observer):
    """Calls a function with each durable event."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event

    def published(self, event: Event) -> None:
        self._on_event(event)
