"""The frame clock: irregular frames in, regular ticks out; every frame and tick is counted.

It never reads the time of the system. Times are arguments (nanoseconds of stream time), so the same arrivals always
give the same ticks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from edge_hal.events import Moment
from edge_hal.rate import exact_rate, instant_ns
from edge_hal.runtime.sources.frame import Frame

from .counters import Counters
from .source_period import LONGEST_PERIOD_NS, SourcePeriod

SPOILED_PAUSE_NS = 10**9
LONGEST_NS = 1 << 60
"""36 years of stream time, in nanoseconds. Later times are not believed."""


@dataclass(frozen=True, eq=False)
class Tick:
    """Tick `index` of `epoch`, at `t_ns`, shows `frame`: for the first time if `fresh`, otherwise the frame is held."""

    index: int
    epoch: int
    t_ns: int
    frame: Frame
    fresh: bool

    @property
    def moment(self) -> Moment:
        return Moment(self.index, self.frame.index, self.t_ns)


@dataclass(frozen=True)
class Break:
    """No tick took place between the tick `begin` of `epoch` and `end`, the next one.

    `reason`: `source` (no frame within the hold limit), `overload` (the loop did not take the frames in time), `model`
    (a posterior was not finite) or the one given to `interrupt`.
    `lost_ticks`: ticks that never took place. `reset`: `epoch` ended, and `end` is the first tick of the next one;
    otherwise tick indices have no gap, and only the times show the break.
    """

    reason: str
    epoch: int
    begin: Moment
    end: Moment
    lost_ticks: int
    reset: bool = True


class FrameClock:
    """Tick k of an epoch is due at epoch start + k / model_hz and takes the newest frame until then.

    The times of camera frames jitter. With a live source a tick takes place up to `slack_ns` (half a period) before it
    is due, as soon as a frame arrives, and waits up to `slack_ns` for a frame that is late. So with a camera as fast as
    the model every tick shows a new frame, and no frame waits for its tick.

    Args:
        source_period_ns: nanoseconds between frames, None if unknown. The measured period is used if it is longer.
        max_hold_ms: how long one frame may be held; never less than two source periods.
        live: frames arrive in real time.
        cut: if more than `backlog` ticks are due at once, all but the last are cut. Otherwise every tick takes place,
            however late.

    `limit_ns` is the hold limit in force; `backlog` is the number of ticks in half of it.
    """

    def __init__(
        self,
        model_hz: float,
        source_period_ns: int | None,
        max_hold_ms: float,
        *,
        live: bool = False,
        cut: bool = False,
    ) -> None:
        self._rate = exact_rate(model_hz)
        self._max_hold_ns = round(max_hold_ms * 1e6)
        self._period = SourcePeriod(source_period_ns)
        self._period_ns = -1  # the one that the limits were set for
        self._live, self._cut = live, cut
        self._frame: Frame | None = None
        self._start_ns = 0
        self._next = 0
        self._skipped = 0  # ticks of this epoch that were cut: tick k is due at (k + _skipped) / model_hz
        self._begin = Moment(0, 0, 0)
        self._broken: str | None = None
        self._pause_until_ns = 0
        self.running = False
        self.epoch = -1
        self.counters = Counters()
        self._set_limits()

    @property
    def next_ns(self) -> int | None:
        """When the next tick takes place if no frame comes; None between epochs."""
        return self._due_ns(self._next) + self.slack_ns if self.running else None

    def announce(self, source_period_ns: int | None) -> None:
        """Set the period that the source reports; it may change when a camera reconnects."""
        self._period.announced_ns = source_period_ns
        self._set_limits()

    def push(self, frame: Frame, missed: int = 0) -> list[Tick | Break]:
        """Take a frame; `missed` frames before it were superseded. Frames are pushed in order of `t_ns`. Returns the
        ticks that are due now, in order, and the break that ends with this frame."""
        before = frame.t_ns - 1
        if missed and self.running and self._age_ns(before) > self.limit_ns:
            self._stop("overload")
        done = self._run_until(before)
        if self._frame is not None:
            self._period.measure((frame.t_ns - self._frame.t_ns) // (missed + 1))
            self._set_limits()
        if not self.running:
            if frame.t_ns < self._pause_until_ns:
                self._frame = frame
                self.counters.reset += 1
                return done
            done.extend(self._begin_epoch(frame))
        elif self.counters.pending:
            self.counters.decimated += 1
        self._frame, self.counters.pending = frame, 1
        if self._due_ns(self._next) - self.slack_ns <= frame.t_ns:
            done.append(self._tick())
        return done

    def advance(self, now_ns: int) -> list[Tick | Break]:
        """No frame at or before `now_ns` will come any more. Returns the ticks that are due now."""
        return self._run_until(now_ns)

    def finish(self, now_ns: int) -> list[Tick | Break]:
        """The stream ended. Returns the break that is still open, if there is one."""
        self.counters.decimated += self.counters.pending
        self.counters.pending = 0
        if self._broken is None:
            return []
        end = Moment(self._begin.tick, self._begin.frame, max(now_ns, self._begin.t_ns))
        return [self._close_break(end)]

    def interrupt(self, reason: str) -> None:
        """End the epoch. The next frame begins another, and `push` returns the break then."""
        if self.running:
            self._stop(reason)

    def end_spoiled(self, epoch: int, t_ns: int) -> None:
        """The model gave no finite posterior at `t_ns`, in `epoch`. If the epoch still runs, it ends. The first frame
        `SPOILED_PAUSE_NS` later begins another, so a model that always fails causes one gap a second."""
        if self.running and epoch == self.epoch:
            self._stop("model")
            self._pause_until_ns = t_ns + SPOILED_PAUSE_NS

    def state(self) -> dict[str, Any]:
        """All that later ticks depend on, besides the arguments of the constructor and the pixels of the frame."""
        return {
            "_announced_ns": self._period.announced_ns,
            "_start_ns": self._start_ns,
            "_next": self._next,
            "_skipped": self._skipped,
            "_broken": self._broken,
            "_pause_until_ns": self._pause_until_ns,
            "running": self.running,
            "epoch": self.epoch,
            "intervals": self._period.intervals,
            "begin": asdict(self._begin),
            "frame": None if self._frame is None else [self._frame.index, self._frame.t_ns],
            "counters": asdict(self.counters),
        }

    def restore(self, state: dict[str, Any], frame: Frame | None, now_ns: int) -> None:
        """Continue where `state` was taken, at `now_ns`; `frame` is the frame that it names.

        Raises:
            ValueError: the times and numbers do not belong together. Such a state would cause any number of ticks.
        """
        self._period = SourcePeriod(state["_announced_ns"], state["intervals"])
        self._start_ns = state["_start_ns"]
        self._next, self._skipped, self._broken = state["_next"], state["_skipped"], state["_broken"]
        self._pause_until_ns = state["_pause_until_ns"]
        self.running, self.epoch = state["running"], state["epoch"]
        self._begin, self.counters, self._frame = Moment(**state["begin"]), Counters(**state["counters"]), frame
        times = (self._start_ns, self._begin.t_ns, now_ns, 0 if frame is None else frame.t_ns)
        numbers = (self._next, self._skipped, *asdict(self.counters).values())
        longest = (*self._period.intervals, self._period.announced_ns or 0)
        if not (
            all(type(value) is int and 0 <= value <= LONGEST_NS for value in (*times, *numbers, *longest))
            and all(value <= LONGEST_PERIOD_NS for value in longest)
            and -1 <= self.epoch <= LONGEST_NS
            and (self._broken is None or isinstance(self._broken, str))
            and (self.running == (self._broken is None) or (self.epoch < 0 and self._broken is None))
        ):
            raise ValueError("the state of the clock is out of range")
        self._set_limits()
        if frame is not None and frame.t_ns > now_ns + LONGEST_PERIOD_NS:
            raise ValueError("the newest frame lies in the future")
        if self.running and (frame is None or abs(self._due_ns(self._next) - frame.t_ns) > 2 * self.limit_ns):
            raise ValueError("the next tick is not near the newest frame")

    def _set_limits(self) -> None:
        """Slack and hold limit follow the period of the source."""
        if self._period.ns == self._period_ns:
            return
        self._period_ns = self._period.ns
        self.slack_ns = min(self._period_ns, instant_ns(1, self._rate)) // 2 if self._live else 0
        self.limit_ns = max(self._max_hold_ns, 2 * self._period_ns)
        self.backlog = max(2, int(Fraction(self.limit_ns // 2, 10**9) * self._rate))

    def _run_until(self, now_ns: int) -> list[Tick | Break]:
        done: list[Tick | Break] = self._catch_up(now_ns) if self._cut and self.running else []
        while self.running and (due_ns := self._due_ns(self._next)) + self.slack_ns <= now_ns:
            assert self._frame is not None
            if due_ns - self._frame.t_ns > self.limit_ns:
                self._stop("source")
                break
            done.append(self._tick())
        return done

    def _tick(self) -> Tick:
        frame, counters = self._frame, self.counters
        assert frame is not None
        tick = Tick(self._next, self.epoch, self._due_ns(self._next), frame, bool(counters.pending))
        counters.ticks += 1
        if tick.fresh:
            counters.used += 1
            counters.fresh += 1
            counters.pending = 0
        else:
            counters.held += 1
        self._next += 1
        self._begin = tick.moment
        return tick

    def _catch_up(self, now_ns: int) -> list[Tick | Break]:
        """If too many ticks are due at once, cut all but the last."""
        if self._due_ns(self._next + self.backlog) + self.slack_ns > now_ns:
            return []
        late = self._due_before(now_ns - self.slack_ns + 1) - self._next - 1
        end_ns = self._due_ns(self._next + late)
        assert self._frame is not None
        if end_ns - self._frame.t_ns > self.limit_ns:
            self._stop("overload")
            return []
        self._skipped += late
        self.counters.ticks += late
        self.counters.cut += late
        end = Moment(self._next, self._frame.index, end_ns)
        return [Break("overload", self.epoch, self._begin, end, late, reset=False)]

    def _stop(self, reason: str) -> None:
        """End the epoch. The break is returned later, when its length is known."""
        if reason == "overload":
            self.counters.overload += self.counters.pending
        else:
            self.counters.reset += self.counters.pending
        self.counters.pending = 0
        self.running, self._broken = False, reason

    def _begin_epoch(self, frame: Frame) -> list[Tick | Break]:
        done: list[Tick | Break] = []
        start = Moment(0, frame.index, frame.t_ns)
        if self._broken is not None:
            done.append(self._close_break(start))
        self.epoch += 1
        self.running = True
        self._start_ns, self._next, self._skipped, self._begin = frame.t_ns, 0, 0, start
        return done

    def _close_break(self, end: Moment) -> Break:
        assert self._broken is not None
        reason, self._broken = self._broken, None
        lost = max(0, self._due_before(end.t_ns) - self._next)
        if reason == "overload":
            self.counters.ticks += lost
            self.counters.cut += lost
        return Break(reason, self.epoch, self._begin, end, lost)

    def _due_ns(self, index: int) -> int:
        return self._start_ns + instant_ns(index + self._skipped, self._rate)

    def _due_before(self, t_ns: int) -> int:
        """The index of the first tick of this epoch that is due at `t_ns` or later."""
        count = max(0, int(Fraction(t_ns - self._start_ns, 10**9) * self._rate) - self._skipped)
        while self._due_ns(count) < t_ns:
            count += 1
        while count and self._due_ns(count - 1) >= t_ns:
            count -= 1
        return count

    def _age_ns(self, now_ns: int) -> int:
        """How old the current frame is at the last tick due by `now_ns`; 0 if none is due."""
        count = self._due_before(now_ns - self.slack_ns + 1)
        assert self._frame is not None
        return self._due_ns(count - 1) - self._frame.t_ns if count > self._next else 0
