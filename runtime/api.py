"""Recognition inside somebody else's program: frames in, events out, no camera and no socket."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event

from .sources.frame import Frame, Intake
from .sources.rate import exact_rate, instant_ns
from .stream.clock import Break, FrameClock, Tick
from .stream.recognizer import Recognizer


class EventStream:
    """One stream. `push` frames as they come; leave the `with` block, or `close`, to end it.

    Not for several threads at once; several streams in several threads are fine.
    """

    def __init__(self, recognizer: Recognizer, *, max_hold_ms: float, source_hz: float | None = None) -> None:
        self.recognizer = recognizer
        period_ns = None if source_hz is None else instant_ns(1, exact_rate(source_hz))
        self._clock = FrameClock(recognizer.spec.model_hz, period_ns, max_hold_ms)
        self._vector: NDArray[np.float32] | None = None
        self._captured = 0
        self._began_ns = 0
        self._newest_ns = 0
        self._closed = False

    @property
    def action(self) -> str | None:
        """What goes on now; None until the first decision."""
        return self.recognizer.action

    @property
    def counters(self) -> dict[str, Any]:
        """What became of every frame and every tick; see `docs/events.md`."""
        return self._clock.counters.tally(Intake(captured=self._captured))

    def push(self, frame: NDArray[Any], t_ns: int) -> list[Event]:
        """Take one frame, return what it made known: usually nothing, a `Start` first of all.

        Frames faster than the model's rate are thinned, slower ones held, by their times alone.

        Args:
            frame: a uint8 BGR picture (H, W, 3) of any size, or a vector (D,).
            t_ns: when it was taken, in nanoseconds of any clock that never runs backwards.

        Raises:
            EdgeHalError: not such a frame, time ran backwards, or the stream is closed.
        """
        if self._closed:
            raise EdgeHalError("the stream is closed", "", "open another with edge_hal.open_stream")
        if self._captured and t_ns < self._newest_ns:
            raise EdgeHalError(
                f"a frame is dated {t_ns} ns",
                f"the one before it is dated {self._newest_ns} ns",
                "leave frames out of order out",
            )
        data = np.array(frame)  # a copy: a later tick may show it, and callers reuse buffers
        self.recognizer.check(data)
        events: list[Event] = []
        if not self._captured:
            self._began_ns = t_ns
            events.append(self.recognizer.start("api"))
        taken = Frame(self._captured, t_ns - self._began_ns, t_ns, data)
        self._captured += 1
        self._newest_ns = t_ns
        return [*events, *self._follow_all(self._clock.push(taken))]

    def close(self, reason: str = "eof") -> list[Event]:
        """End the stream: a gap still open, then `End`. Nothing where no frame came, or twice. What the engines hold
        of a GPU is given back."""
        done, self._closed = self._closed or not self._captured, True
        try:
            if done:
                return []
            events = self._follow_all(self._clock.finish(self._newest_ns - self._began_ns))
            return [*events, self.recognizer.end(reason, self.counters)]
        finally:
            self.recognizer.engines.close()

    def _follow_all(self, dues: list[Tick | Break]) -> list[Event]:
        return [event for due in dues if (event := self._follow(due)) is not None]

    def _follow(self, due: Tick | Break) -> Event | None:
        if isinstance(due, Break):
            return self.recognizer.gap(due)
        if due.fresh or self._vector is None:
            self._vector = self.recognizer.encode(due.frame.data)
        transitions = self.recognizer.follow(self._vector[None, :], (due.moment,))
        return transitions[0] if transitions else None

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("eof" if error is None else "error")


def open_stream(
    bundle: str | Path,
    *,
    stream: str = "default",
    threads: int = 1,
    allow_uncertified: bool = False,
    max_hold_ms: float = 500.0,
    source_hz: float | None = None,
) -> EventStream:
    """Open a bundle for recognition in this process.

    Args:
        bundle: the directory that `edge-hal export` wrote.
        stream: the name that events carry.
        threads: threads of ONNX Runtime.
        max_hold_ms: how long one frame may be shown, never less than two periods of the source;
            then a `Gap` and a fresh start.
        source_hz: frames per second that will be pushed. Without it a source slower than
            `max_hold_ms` is recognised as such from its first frames.

    Raises:
        EdgeHalError: the bundle is damaged, uncertified or of another version, or no such rate.
    """
    if source_hz is not None and not 0 < source_hz <= 1000:
        raise EdgeHalError(f"source_hz = {source_hz}", "it must lie in 0..1000", exit_code=2)
    opened = load_bundle(Path(bundle), allow_uncertified=allow_uncertified)
    recognizer = Recognizer(opened, stream=stream, threads=threads)
    return EventStream(recognizer, max_hold_ms=max_hold_ms, source_hz=source_hz)
