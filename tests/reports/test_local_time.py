"""Days and shifts: changes of the clocks, midnight, wrong names."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.reports.local_time import LocalTime, ShiftPlan
from tests.helpers.shift_work import utc_ns

HOUR_NS = 3600 * 10**9
PLAN = "06:00,14:00,22:00"


@pytest.fixture(scope="module")
def berlin() -> LocalTime:
    return LocalTime.named("Europe/Berlin")


@pytest.mark.parametrize(
    ("at", "name", "hours"),
    [
        ("2026-05-01T10:00", "2026-05-01 06:00", 8),
        ("2026-05-01T22:30", "2026-05-01 22:00", 8),  # half past midnight in Berlin: the shift of the day before
        ("2026-05-01T03:59:59", "2026-04-30 22:00", 8),
        ("2026-05-01T04:00", "2026-05-01 06:00", 8),
        ("2026-03-29T00:30", "2026-03-28 22:00", 7),  # the clocks go forward in this night
        ("2026-03-29T03:59", "2026-03-28 22:00", 7),
        ("2026-10-25T00:30", "2026-10-24 22:00", 9),  # and back in this one: it is half past two, twice
        ("2026-10-25T01:30", "2026-10-24 22:00", 9),
    ],
)
def test_a_shift_follows_the_clocks_on_the_wall(berlin: LocalTime, at: str, name: str, hours: int) -> None:
    shift = ShiftPlan.parse(PLAN, berlin).at(utc_ns(at))
    assert (shift.name, shift.end_utc_ns - shift.begin_utc_ns) == (name, hours * HOUR_NS)


@given(st.integers(0, 2**61), st.sets(st.times(), min_size=1, max_size=5), st.sampled_from(["Europe/Berlin", "UTC"]))
def test_every_moment_lies_in_its_shift_and_shifts_follow_each_other(moment: int, begins: set[time], zone: str) -> None:
    plan = ShiftPlan(tuple(sorted(each.replace(second=0, microsecond=0) for each in begins)), LocalTime.named(zone))
    plan = ShiftPlan(tuple(sorted({*plan.begins})), plan.local)
    shift = plan.at(moment)
    assert shift.begin_utc_ns <= moment < shift.end_utc_ns
    assert plan.at(shift.end_utc_ns).begin_utc_ns == shift.end_utc_ns
    assert shift.end_utc_ns - shift.begin_utc_ns <= 25 * HOUR_NS


def test_a_shift_that_begins_in_the_hour_that_is_left_out_begins_an_hour_later(berlin: LocalTime) -> None:
    plan = ShiftPlan.parse("02:30", berlin)
    shift = plan.at(utc_ns("2026-03-29T12:00"))
    assert shift.begin_utc_ns == utc_ns("2026-03-29T01:30") and berlin.at(shift.begin_utc_ns).hour == 3


def test_without_a_name_it_is_the_time_zone_of_the_machine() -> None:
    moment = utc_ns("2026-05-01T10:00")
    here = LocalTime.named(None)
    assert here.at(moment).utcoffset() == datetime.fromtimestamp(moment / 1e9).astimezone().utcoffset()
    shift = ShiftPlan.parse(PLAN, here).at(moment)
    assert shift.begin_utc_ns <= moment < shift.end_utc_ns
    assert here.at(2**62).tzinfo is not None and here.at(0) - here.at(10**9) == timedelta(seconds=-1)


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../../etc/passwd", "x\x00y", "Europe"])
def test_a_name_that_is_no_time_zone_is_one_error(name: str) -> None:
    with pytest.raises(EdgeHalError, match="--timezone") as refused:
        LocalTime.named(name)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "6", "24:00", "06:00,06:00", "06:00;14:00", "06:60"])
def test_a_text_that_is_no_plan_is_one_error(text: str) -> None:
    with pytest.raises(EdgeHalError, match="--shifts") as refused:
        ShiftPlan.parse(text, LocalTime())
    assert refused.value.exit_code == 2
