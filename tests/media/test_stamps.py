"""Time stamps as numbers: what damage does to them, and what is counted as missing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_hal.media.stamps import Gaps, Missing, TimeBase, newest, steadied
from edge_hal.rate import instant_ns

SECOND, PERIOD = 1000, 40


def steady(stamps: Sequence[int | None]) -> list[int]:
    return [stamp for stamp, _ in steadied([(stamp, None) for stamp in stamps], PERIOD, SECOND)]


steps = st.lists(st.integers(1, 5 * SECOND), min_size=8, max_size=60)


@given(steps, st.integers(-(10**9), 10**9))
def test_stamps_that_can_be_meant_stay(steps: Any, first: int) -> None:
    stamps = [first, *(first + np.cumsum(steps)).tolist()]
    assert steady(stamps) == stamps


@given(st.integers(30, 60), st.data())
@settings(max_examples=200)
def test_single_damaged_stamps_are_replaced(count: int, data: st.DataObject) -> None:
    stamps: list[int | None] = [PERIOD * i for i in range(count)]
    at = data.draw(st.integers(1, count - 2))
    stamps[at] = data.draw(st.one_of(st.none(), st.integers(100 * SECOND, 10**12), st.integers(-(10**12), -5 * SECOND)))
    assert steady(stamps) == [PERIOD * i for i in range(count)]


@given(st.lists(st.integers(100, 300), min_size=2, max_size=4), st.integers(0, 10**6))
def test_recordings_that_were_joined_go_on(lengths: list[int], first: int) -> None:
    joined = [first + PERIOD * i for length in lengths for i in range(length)]
    assert steady(joined) == [first + PERIOD * i for i in range(sum(lengths))]


def test_a_pause_of_the_recording_stays() -> None:
    stamps = [PERIOD * i for i in range(50)] + [3600 * SECOND + PERIOD * i for i in range(50)]
    assert steady(stamps) == stamps


def test_frames_stored_out_of_order_stay() -> None:
    stamps = [i + 3 if i % 4 == 1 else i - 1 if i % 4 else i for i in range(80)]
    assert steady([PERIOD * stamp for stamp in stamps]) == [PERIOD * stamp for stamp in stamps]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(30), Fraction(25), Fraction(15, 2), Fraction(60)])
@pytest.mark.parametrize("unit", [Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 10_240)])
def test_stamps_of_a_constant_rate_give_exact_times(rate: Any, unit: Any) -> None:
    origin = 1234
    base = TimeBase(unit, origin, rate)
    for index in range(0, 200_000, 997):
        stamp = origin + round(index / rate / unit)
        assert base.ns(stamp) == instant_ns(index, rate)


@given(st.integers(0, 10**9), st.sampled_from([10, 24, 30, 50]))
def test_other_stamps_give_their_own_times(stamp: int, rate: int) -> None:
    base = TimeBase(Fraction(1, 90_000), 0, Fraction(rate))
    assert abs(base.ns(stamp) - Fraction(stamp, 90_000) * 10**9) <= Fraction(10**9, 90_000) + 1


@given(st.integers(20, 200), st.integers(10, 60), st.sampled_from([10, 25, 30]), st.integers(0, 50))
def test_gaps_and_early_ends_of_a_constant_rate_are_counted(before: int, gap: int, rate: int, tail: int) -> None:
    assume(0.5 not in (tail / rate, (gap + 1) / rate))  # the limit itself may round either way
    gaps = Gaps(Fraction(rate))
    for index in [*range(before), *range(before + gap, before + gap + 30)]:
        gaps.add(instant_ns(index, Fraction(rate)))
    end_s = (before + gap + 30 + tail) / rate
    long_enough = gap if (gap + 1) / rate > 0.5 else 0
    assert gaps.missing(None) == long_enough
    assert gaps.missing(end_s) == long_enough + (tail if tail / rate > 0.5 else 0)


def test_long_pauses_between_frames_of_a_variable_rate_are_not_missing_frames() -> None:
    gaps = Gaps(Fraction(30))
    for t_ns in np.cumsum(np.random.default_rng(0).integers(10, 3000, 200) * 10**6).tolist():
        gaps.add(t_ns)
    assert gaps.missing(None) == 0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.lists(st.integers(-5, 1005), max_size=40))
def test_newest_is_the_last_that_is_not_later(times: list[int], at: list[int]) -> None:
    times = sorted(times)
    expected = [max([i for i, t in enumerate(times) if t <= moment], default=0) for moment in at]
    assert newest(np.array(times), np.array(at, np.int64)).tolist() == expected


def test_what_is_missing_is_told_with_its_share() -> None:
    assert str(Missing(200, 3, 0)) == "1.5% of 200 frames are missing: 3 could not be decoded"
    assert Missing(100, 5, 20).share == 0.25
