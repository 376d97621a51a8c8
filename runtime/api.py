"""The Python API: frames in, events out, without a camera or a socket.

model = open_model("bundle/")
with open_stream(model, stream="left") as left, open_stream(model, stream="right") as right:
    events = left.push(frame, t_ns)
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Now
from edge_hal.files.feature_file import coarse_note, spread_of
from edge_hal.rate import exact_rate, instant_ns

from .model import Model, open_model
from .sources.frame import Frame, Intake
from .stream.clock import Break, FrameClock, Tick
from .stream.recognizer import Recognizer

log = logging.getLogger("edge_hal.api")

LEAST_INTERVAL_NS, MOST_INTERVAL_NS = 10**6, 3600 * 10**9
"""Limits of the time between two frames. No source is faster than 1000 frames per second, and none is as slow as one
frame per hour."""
SHORT_INTERVALS, LONG_INTERVALS = 10, 3
"""Intervals in a row outside these limits that give a warning. Frames may come in bursts, so many short ones are
needed. After five long ones the clock would hold each frame for hours of ticks."""
LARGEST_NS = 2**62
FIRST_VECTORS = 100
"""Vectors that are kept to see whether their offset is too large."""

__all__ = ["EventStream", "Model", "open_model", "open_stream"]


class EventStream:
    """One stream. `push` frames as they arrive; leave the `with` block, or `close`, to end it.

    One thread at a time may use a stream. Several streams may be used in several threads.
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
        self._first_vectors: list[NDArray[Any]] = []
        self._odd_intervals = 0
        self._warned = False

    @property
    def action(self) -> str | None:
        """The current action; None until the first decision."""
        return self.recognizer.action

    @property
    def now(self) -> Now | None:
        """What most likely goes on at the newest decision tick; None before the first, and without a procedure."""
        return self.recognizer.now()

    @property
    def counters(self) -> dict[str, Any]:
        """How many frames and ticks there were, by what happened to them; see `docs/events.md`."""
        return self._clock.counters.tally(Intake(captured=self._captured))

    def push(self, frame: NDArray[Any], t_ns: int) -> list[Event]:
        """Take one frame and return the events that follow from it: usually none, `Start` with the first frame.

        Frames that come faster than the model's rate are decimated, slower ones held; only their times count.

        Args:
            frame: a uint8 BGR picture (H, W, 3) of any size, or a vector (D,).
            t_ns: when it was taken, in nanoseconds of any clock that never runs backwards: an int, or an integer of
                numpy.

        Raises:
            EdgeHalError: not such a frame, `t_ns` is no integer, time ran backwards, or the stream is closed.
        """
        if self._closed:
            raise EdgeHalError("the stream is closed", "", "open another with edge_hal.open_stream")
        t_ns = _nanoseconds(t_ns)
        if self._captured and t_ns < self._newest_ns:
            raise EdgeHalError(
                f"a frame is dated {t_ns} ns",
                f"the one before it is dated {self._newest_ns} ns",
                "leave out frames that are not in order",
            )
        data = np.array(frame)  # a copy: a later tick may hold it, and callers reuse buffers
        self.recognizer.check(data)
        if data.ndim == 1:
            self._check_offset(data)
        events: list[Event] = []
        if self._captured:
            self._check_interval(t_ns - self._newest_ns)
        else:
            self._began_ns = t_ns
            events.append(self.recognizer.start("api"))
        taken = Frame(self._captured, t_ns - self._began_ns, t_ns, data)
        self._captured += 1
        self._newest_ns = t_ns
        return [*events, *self._process(self._clock.push(taken))]

    def close(self, reason: str = "eof") -> list[Event]:
        """End the stream and return its last events: the gap if one is open, then `End`. None without a frame, and
        none at a second call."""
        if self._closed:
            return []
        self._closed = True
        try:
            if not self._captured:
                return []
            events = self._process(self._clock.finish(self._newest_ns - self._began_ns))
            events += self.recognizer.close_cycle()
            return [*events, self.recognizer.end(reason, self.counters)]
        finally:
            self.recognizer.engines.close()

    def _check_offset(self, vector: NDArray[Any]) -> None:
        """Warn once if the offset of the first vectors leaves too few digits for what changes."""
        if len(self._first_vectors) == FIRST_VECTORS:
            return
        self._first_vectors.append(vector)
        if len(self._first_vectors) == FIRST_VECTORS:
            note = coarse_note(spread_of([np.stack(self._first_vectors)]), vector.dtype)
            if note is not None:
                log.warning("the vectors of '%s': %s", self.recognizer.stream, note)

    def _check_interval(self, interval_ns: int) -> None:
        """Warn once if the times cannot be nanoseconds: too many intervals in a row that no camera has."""
        self._odd_intervals = 0 if LEAST_INTERVAL_NS <= interval_ns <= MOST_INTERVAL_NS else self._odd_intervals + 1
        many = LONG_INTERVALS if interval_ns > MOST_INTERVAL_NS else SHORT_INTERVALS
        if self._odd_intervals >= many and not self._warned:
            self._warned = True
            log.warning(
                "the last %d frames of '%s' are %d ns apart: t_ns is in nanoseconds, not in seconds, milliseconds or "
                "microseconds",
                self._odd_intervals,
                self.recognizer.stream,
                interval_ns,
            )

    def _process(self, items: list[Tick | Break]) -> list[Event]:
        events: list[Event] = []
        for item in items:
            if isinstance(item, Break):
                events += self.recognizer.close_cycle() if item.reset else []
                events.append(self.recognizer.gap(item))
                continue
            if self.recognizer.spoiled:  # the rest of the epoch that the model spoiled
                continue
            if item.fresh or self._vector is None:
                self._vector = self.recognizer.encode(item.frame.data)
            events += self.recognizer.follow(self._vector[None, :], (item.moment,))
            if self.recognizer.spoiled:
                self._clock.end_spoiled(self.recognizer.epoch, item.t_ns)
        return events

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("eof" if error is None else "error")


def _nanoseconds(t_ns: object) -> int:
    if isinstance(t_ns, (int, np.integer)) and not isinstance(t_ns, (bool, np.timedelta64)):
        if abs(int(t_ns)) < LARGEST_NS:
            return int(t_ns)
        raise EdgeHalError(f"t_ns = {t_ns}", "it exceeds 2**62 nanoseconds, 146 years", "count from a later moment")
    raise EdgeHalError(
        f"t_ns = {t_ns!r} is no integer",
        f"a {type(t_ns).__name__} cannot count nanoseconds exactly, or has another unit",
        "give integer nanoseconds, for example time.monotonic_ns()",
    )


def open_stream(
    bundle: str | Path | Model,
    *,
    stream: str = "default",
    decide: str | None = None,
    threads: int = 1,
    allow_uncertified: bool = False,
    max_hold_ms: float = 500.0,
    source_hz: float | None = None,
) -> EventStream:
    """Open a stream of a bundle for recognition in this process.

    Args:
        bundle: the directory that `edge-hal export` wrote, or a model from `open_model`, which any number of streams
            share.
        stream: the name that events carry.
        decide: how sure a transition must be: `fast`, `balanced` or `sure`; None is the bundle's default, `balanced`.
        threads: threads of ONNX Runtime; given to `open_model` if `bundle` is a model, as is `allow_uncertified`.
        max_hold_ms: how long one frame may be held, never less than two periods of the source; then a `Gap`, and a new
            epoch.
        source_hz: frames per second that will be pushed. Without it the rate of a source slower than `max_hold_ms` is
            learned from its first frames.

    Raises:
        EdgeHalError: the bundle is damaged, uncertified or of another version, or no such rate.
    """
    if source_hz is not None and not 0 < source_hz <= 1000:
        raise EdgeHalError(f"source_hz = {source_hz}", "it must lie in 0..1000", exit_code=2)
    if isinstance(bundle, Model):
        if threads != 1 or allow_uncertified:
            why, todo = "the model is already open", "give them to open_model"
            raise EdgeHalError("threads and allow_uncertified do not apply", why, todo, exit_code=2)
        recognizer = bundle.stream(stream, decoder=bundle.bundle.decoder.with_decide(decide))
    else:
        model = open_model(bundle, threads=threads, allow_uncertified=allow_uncertified)
        with ExitStack() as undo:
            undo.callback(model.close)
            recognizer = model.stream(stream, decoder=model.bundle.decoder.with_decide(decide), on_close=model.close)
            undo.pop_all()
    return EventStream(recognizer, max_hold_ms=max_hold_ms, source_hz=source_hz)
