"""Between the streams of a station and a fused stream: each can begin, fail and end without the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.fusion import Rows
from edge_hal.runtime.sources.frame import Frame
from edge_hal.spec import PyramidSpec

from .fused_source import STOP_POLL_S, FusedSource


@dataclass
class Views:
    """The views of one fused stream, for as long as the station has them, and the source of its present run."""

    names: tuple[str, ...]
    source: FusedSource | None = None
    awaited: bool = True
    """The first run is about to begin: views at full pace wait for it."""
    over: set[str] = field(default_factory=set)
    views: dict[str, View] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.views = {name: View(self, name) for name in self.names}

    def begin(self, source: FusedSource | None) -> None:
        """A run of the fused stream begins; None: it ended, or cannot begin."""
        with self._changed:
            self.source, self.awaited = source, False
            if source is not None:
                for name in self.over:
                    source.miss(self.names.index(name), over=True)
            self._changed.notify_all()

    @property
    def all_over(self) -> bool:
        """Whether no further run of any view follows: the fused stream ends, if it has not ended yet."""
        return len(self.over) == len(self.names)

    def wait(self, stopped: Callable[[], bool]) -> None:
        with self._changed:
            while self.awaited and not stopped():
                self._changed.wait(STOP_POLL_S)

    def tell_over(self, name: str, over: bool) -> None:
        with self._changed:
            (self.over.add if over else self.over.discard)(name)
            if self.source is not None:
                number = self.names.index(name)
                self.source.miss(number, over=True) if over else self.source.expect(number)


class View:
    """One of the views. The thread of its stream calls it.

    `asap`: its file is read at full pace.
    """

    def __init__(self, views: Views, name: str) -> None:
        self._views, self._number = views, views.names.index(name)
        self.name = name
        self._zero_ns: int | None = None  # monotonic clock at stream time 0

    def began(self) -> None:
        """A run of the stream begins."""
        self._zero_ns = None
        if (source := self._views.source) is not None:
            source.expect(self._number)

    def frame_taken(self, frame: Frame, *, asap: bool, stopped: Callable[[], bool]) -> None:
        if self._zero_ns is None:
            self._zero_ns = 0 if asap else frame.captured_ns - frame.t_ns
        if asap:
            self._views.wait(stopped)
            if (source := self._views.source) is not None:
                source.wait_for_room(self._number, stopped)

    def stepped(self, spec: PyramidSpec, times_ns: NDArray[np.int64], rows: Rows) -> None:
        """Log posteriors (n, H K) of ticks at these stream times."""
        if (source := self._views.source) is not None and self._zero_ns is not None:
            source.push(self._number, spec, [int(t_ns) + self._zero_ns for t_ns in times_ns], rows)

    def ended(self) -> None:
        """A run of the stream ended."""
        if (source := self._views.source) is not None:
            source.miss(self._number)

    def over(self, over: bool) -> None:
        """Whether no further run of the stream follows."""
        self._views.tell_over(self.name, over)
