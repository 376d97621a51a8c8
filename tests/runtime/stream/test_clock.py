from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.events import Moment
from edge_hal.rate import exact_rate, instant_ns
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.clock import Break, FrameClock, Tick

MS = 1_000_000


def frame(index: int, t_ns: int) -> Frame:
    return Frame(index, t_ns, t_ns, np.zeros(1, np.float32))


@dataclass(frozen=True)
class Arrival:
    """A frame `gap_ns` after the one before, `missed` superseded ones between; before it, time was
    told to have passed up to `told` of the gap."""

    gap_ns: int
    missed: int
    told: float | None


arrivals = st.lists(
    st.builds(
        Arrival,
        st.one_of(st.integers(0, 60 * MS), st.integers(0, 3000 * MS)),
        st.one_of(st.just(0), st.integers(0, 40)),
        st.one_of(st.none(), st.floats(0, 1)),
    ),
    min_size=1,
    max_size=60,
)
rates = st.sampled_from([0.5, 5.0, 10.0, 15.0, 29.97, 30.0, 30000 / 1001, 100.0])
periods = st.one_of(st.none(), st.integers(MS, 400 * MS))
holds = st.floats(1, 1000)
live = st.booleans()


def play(clock: FrameClock, pattern: list[Arrival], *, tell: bool) -> tuple[list[Frame], list[Tick | Break]]:
    frames: list[Frame] = []
    out: list[Tick | Break] = []
    now = index = 0
    for arrival in pattern:
        if tell and arrival.told is not None and arrival.gap_ns and frames:
            out += clock.advance(now + int(arrival.told * (arrival.gap_ns - 1)))
        index += arrival.missed
        now += arrival.gap_ns
        frames.append(frame(index, now))
        out += clock.push(frames[-1], arrival.missed)
        index += 1
    return frames, out


@settings(max_examples=300, deadline=None)
@given(arrivals, rates, periods, holds, live, st.booleans())
def test_every_arrival_pattern_keeps_both_laws(
    pattern: Any, hz: Any, period: Any, hold: Any, jittery: Any, cut: bool
) -> None:
    clock = FrameClock(hz, period, hold, live=jittery, cut=cut)
    frames, out = play(clock, pattern, tell=True)

    def check(in_flight: bool) -> None:
        ticks = [item for item in out if isinstance(item, Tick)]
        shown = {tick.frame.index for tick in ticks}
        superseded = sum(arrival.missed for arrival in pattern)
        tally = clock.counters.tally(Intake(captured=len(frames) + superseded, superseded=superseded))
        assert tally["captured"] == tally["used"] + sum(tally["dropped"].values()) + tally["in_flight"]
        assert tally["in_flight"] == 0 or in_flight
        assert tally["ticks"] == tally["fresh"] + tally["held"] + tally["cut"]
        # each of them against what was seen from outside
        assert tally["used"] == len(shown) == tally["fresh"]
        assert tally["fresh"] == sum(tick.fresh for tick in ticks)
        assert tally["held"] == sum(not tick.fresh for tick in ticks)
        breaks = [item for item in out if isinstance(item, Break)]
        assert tally["cut"] == sum(item.lost_ticks for item in breaks if item.reason == "overload")
        assert cut or all(item.reset for item in breaks)

    check(in_flight=True)
    out += clock.finish(frames[-1].t_ns)
    check(in_flight=False)
    assert clock.finish(frames[-1].t_ns) == []


@settings(max_examples=300, deadline=None)
@given(arrivals, rates, periods, holds, live, st.booleans())
def test_ticks_are_dense_and_regular_and_never_show_their_future(
    pattern: Any, hz: Any, period: Any, hold: Any, jittery: Any, cut: bool
) -> None:
    clock = FrameClock(hz, period, hold, live=jittery, cut=cut)
    frames, out = play(clock, pattern, tell=True)
    assert isinstance(out[0], Tick) and out[0].t_ns == frames[0].t_ns
    slack_ns = instant_ns(1, exact_rate(hz)) // 2 if jittery else 0
    intervals = [(b.t_ns - a.t_ns) // (b.index - a.index) for a, b in pairwise(frames)]
    limit_ns = max(round(hold * 1e6), 2 * (period or 0), 2 * max(intervals, default=0))
    rate = exact_rate(hz)
    epoch = index = skipped = 0
    first = next((item for item in out if isinstance(item, Tick)), None)
    start_ns = None if first is None else first.t_ns
    told_ns = 0
    for item in out:
        assert start_ns is not None
        if isinstance(item, Break):
            assert item.epoch == epoch and item.lost_ticks >= 0
            assert item.begin.t_ns < item.end.t_ns and told_ns in (0, item.begin.t_ns)
            if item.reset:
                epoch, index, skipped, start_ns = epoch + 1, 0, 0, item.end.t_ns
                assert start_ns == next(entry for entry in frames if entry.index == item.end.frame).t_ns
            else:
                skipped += item.lost_ticks
                assert item.end.t_ns == start_ns + instant_ns(index + skipped, rate)
                assert item.lost_ticks >= clock.backlog or clock.limit_ns > round(hold * 1e6)
            continue
        assert (item.epoch, item.index) == (epoch, index)
        assert item.t_ns == start_ns + instant_ns(index + skipped, rate)
        assert not any(shown.index > item.frame.index and shown.t_ns < item.t_ns - slack_ns for shown in frames)
        assert -slack_ns <= item.t_ns - item.frame.t_ns <= limit_ns
        index, told_ns = index + 1, item.t_ns
    ticks = [item for item in out if isinstance(item, Tick)]
    assert all(a.t_ns < b.t_ns for a, b in pairwise(ticks))


@settings(max_examples=100, deadline=None)
@given(arrivals, rates, periods, holds, live)
def test_telling_time_changes_when_ticks_come_but_not_which(
    pattern: Any, hz: Any, period: Any, hold: Any, jittery: Any
) -> None:
    calm = [Arrival(a.gap_ns, 0, a.told) for a in pattern]
    told, silent = (FrameClock(hz, period, hold, live=jittery) for _ in range(2))
    _, early = play(told, calm, tell=True)
    _, late = play(silent, calm, tell=False)

    def seen(items: list[Tick | Break]) -> list[object]:
        return [(i.moment, i.fresh) if isinstance(i, Tick) else i for i in items]

    assert seen(early) == seen(late)
    assert told.counters == silent.counters


@pytest.mark.parametrize("fps", [5.0, 10.0, 23.976, 24000 / 1001, 25.0, 29.97, 30000 / 1001, 30.0, 59.94])
def test_a_file_as_fast_as_the_model_is_used_frame_by_frame(fps: float) -> None:
    clock, rate = FrameClock(fps, round(1e9 / fps), 500), exact_rate(fps)
    out = [clock.push(frame(i, instant_ns(i, rate))) for i in range(5000)]
    assert [len(items) for items in out] == [1] * 5000
    assert all(items[0].fresh and items[0].index == i for i, items in enumerate(out))


@pytest.mark.parametrize(("fps", "hz"), [(30, 10), (30, 15), (60, 20)])
def test_a_faster_file_is_decimated_evenly(fps: int, hz: int) -> None:
    clock, rate = FrameClock(hz, round(1e9 / fps), 500), exact_rate(fps)
    ticks = [t for i in range(600) for t in clock.push(frame(i, instant_ns(i, rate)))]
    assert [tick.frame.index for tick in ticks] == list(range(0, 600, fps // hz))
    clock.finish(instant_ns(599, rate))
    assert clock.counters.decimated == 600 - len(ticks)


def test_a_slow_camera_is_held_by_design_up_to_two_of_its_periods() -> None:
    clock = FrameClock(10, 1000 * MS, max_hold_ms=50)  # one frame a second
    out = clock.push(frame(0, 0)) + clock.push(frame(1, 1000 * MS)) + clock.push(frame(2, 2900 * MS))
    assert all(isinstance(item, Tick) for item in out) and len(out) == 30
    bridged = clock.push(frame(3, 5000 * MS))
    assert [item.t_ns for item in bridged] == [t * MS for t in range(3000, 5001, 100)]
    assert all(isinstance(item, Tick) and item.epoch == 0 for item in bridged)
    *_, broken, first = clock.push(frame(4, 7300 * MS))
    assert isinstance(broken, Break) and broken.reason == "source" and broken.lost_ticks == 2
    assert isinstance(first, Tick) and first.epoch == 1


def test_silence_ends_the_epoch_and_is_told_when_it_is_over() -> None:
    clock = FrameClock(10, 33 * MS, max_hold_ms=500)
    assert len(clock.push(frame(0, 0))) == 1
    held = clock.advance(10_000 * MS)
    assert [tick.t_ns for tick in held] == [t * MS for t in range(100, 501, 100)]
    assert not clock.running and clock.next_ns is None
    broken, tick = clock.push(frame(1, 2050 * MS))
    assert isinstance(broken, Break) and isinstance(tick, Tick)
    assert (broken.reason, broken.epoch, broken.begin.tick, broken.begin.t_ns) == (
        "source",
        0,
        5,
        500 * MS,
    )
    assert (broken.end.tick, broken.end.frame, broken.end.t_ns) == (0, 1, 2050 * MS)
    assert broken.lost_ticks == 15  # 600 .. 2000 ms
    assert (tick.epoch, tick.index, tick.t_ns, tick.fresh) == (1, 0, 2050 * MS, True)
    assert clock.counters.cut == 0 and clock.counters.ticks == 7


def test_a_loop_that_lags_cuts_counts_and_starts_afresh() -> None:
    clock = FrameClock(10, 33 * MS, max_hold_ms=500)
    clock.push(frame(0, 0))
    broken, tick = clock.push(frame(60, 2000 * MS), missed=59)
    assert isinstance(broken, Break) and isinstance(tick, Tick)
    assert (broken.reason, broken.lost_ticks) == ("overload", 19)
    counters = clock.counters
    assert (counters.ticks, counters.fresh, counters.held, counters.cut) == (21, 2, 0, 19)
    # a short lag is bridged by holding
    *held, fresh = clock.push(frame(70, 2300 * MS), missed=9)
    assert [t.fresh for t in held] == [False, False] and fresh.fresh and clock.counters.cut == 19


def test_a_loop_that_comes_late_catches_up_cuts_or_starts_afresh_by_how_late_it_is() -> None:
    """500 ms of hold limit at 100 Hz: 25 ticks at once are caught up with, more are cut, 50 are too many."""
    for late, expected in [(20, "held"), (26, "held"), (27, "cut"), (45, "cut"), (60, "reset")]:
        clock = FrameClock(100, 10 * MS, max_hold_ms=500, cut=True)
        clock.push(frame(0, 0))
        out = clock.push(frame(late, 10 * late * MS), missed=late - 1)
        breaks, ticks = ([i for i in out if isinstance(i, kind)] for kind in (Break, Tick))
        counters = clock.counters
        assert counters.ticks == late + 1 == counters.fresh + counters.held + counters.cut
        assert ticks[-1].t_ns == 10 * late * MS and ticks[-1].frame.index == late and ticks[-1].fresh
        if expected == "held":
            assert not breaks and [tick.index for tick in ticks] == list(range(1, late + 1))
        elif expected == "cut":
            [broken] = breaks
            assert broken == Break(
                "overload",
                0,
                Moment(0, 0, 0),
                Moment(1, 0, 10 * (late - 1) * MS),
                late - 2,
                reset=False,
            )
            assert [(tick.index, tick.epoch) for tick in ticks] == [(1, 0), (2, 0)]
            assert counters.cut == late - 2 and clock.next_ns == 10 * (late + 1) * MS
        else:
            [broken] = breaks
            assert broken.reset and broken.lost_ticks == late - 1 == counters.cut
            assert [(tick.index, tick.epoch) for tick in ticks] == [(0, 1)]


def test_a_loop_that_comes_late_to_a_silent_source_cuts_as_well() -> None:
    clock = FrameClock(100, 10 * MS, max_hold_ms=500, cut=True)
    clock.push(frame(0, 0))
    broken, tick = clock.advance(400 * MS)
    assert isinstance(broken, Break) and isinstance(tick, Tick) and not tick.fresh
    assert (broken.lost_ticks, broken.reset, tick.index, tick.t_ns) == (39, False, 1, 400 * MS)
    assert clock.advance(2000 * MS) == [] and not clock.running
    broken, _ = clock.push(frame(1, 3000 * MS))
    assert isinstance(broken, Break) and broken.reset and broken.reason == "overload"


def test_a_source_slower_than_it_says_is_believed_after_five_frames() -> None:
    """One frame a second where 30 were announced, or nothing: held by design, no gap each time."""
    for announced in (None, 33 * MS):
        clock = FrameClock(10, announced, max_hold_ms=500)
        out = [item for index in range(20) for item in clock.push(frame(index, index * 1000 * MS))]
        breaks = [item for item in out if isinstance(item, Break)]
        assert len(breaks) == 5 and all(item.begin.t_ns <= 4500 * MS for item in breaks)
        assert clock.epoch == 5 and clock.limit_ns == 2000 * MS
        clock.announce(3000 * MS)
        assert clock.limit_ns == 6000 * MS


def test_a_break_nothing_ended_is_told_at_the_end() -> None:
    clock = FrameClock(10, None, max_hold_ms=300)
    clock.push(frame(0, 0))
    clock.advance(5000 * MS)
    [broken] = clock.finish(5000 * MS)
    assert isinstance(broken, Break) and broken.end.t_ns == 5000 * MS and broken.lost_ticks == 46


def test_half_a_period_of_slack_keeps_jitter_from_holding_and_dropping() -> None:
    rng = np.random.default_rng(5)
    period = instant_ns(1, exact_rate(30))
    times = np.arange(3000) * period + rng.integers(-5 * MS, 5 * MS, 3000)
    times -= times[0]
    plain, slack = FrameClock(30, period, 500), FrameClock(30, period, 500, live=True)
    for clock in (plain, slack):
        for index, t_ns in enumerate(times):
            clock.push(frame(index, int(t_ns)))
    assert slack.counters.held == 0 and slack.counters.decimated == 0
    assert slack.counters.fresh == 3000  # each at once, when its frame came
    assert plain.counters.held > 300 and plain.counters.decimated > 300
