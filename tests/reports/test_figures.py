"""Figures against days of work whose durations are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.events import Lost, Unknown
from edge_hal.reports.figures import StreamReport, Times, report_of, trend_s
from edge_hal.reports.history import History, histories, within
from edge_hal.reports.local_time import LocalTime, ShiftPlan
from tests.helpers.shift_work import Bench, utc_ns

BERLIN = LocalTime.named("Europe/Berlin")
PLAN = ShiftPlan.parse("06:00,14:00,22:00", BERLIN)


def figures(*benches: Bench, waiting: tuple[str, ...] = ()) -> StreamReport:
    [history] = histories(benches)
    return report_of(history, PLAN, waiting)


def test_steps_and_cycles_last_from_boundary_to_boundary() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    for _ in range(10):
        bench.cycle([("reach", 10), ("wait", 5), ("turn", 20)])
    bench.cycle([("reach", 10), ("turn", 1)], complete=False, missing=["wait"])
    bench.end()
    report = figures(bench, waiting=("wait",))
    assert report.cycles == Times(10, 35.0, 35.0, 35.0) and report.incomplete == 1
    assert report.waiting_share == pytest.approx(5 / 35)
    found = {step.action: (step.times.count, step.times.median_s, step.waiting) for step in report.steps}
    # The last `turn` has no end: what followed it was never decided.
    assert found == {"turn": (10, 20.0, False), "reach": (11, 10.0, False), "wait": (10, 5.0, True)}
    assert [step.action for step in report.steps] == ["turn", "reach", "wait"]  # by their time
    assert sum(step.share for step in report.steps) == pytest.approx(1)
    assert report.history.cut == 1
    assert report.trend_s == 0.0


def test_times_of_day_are_those_of_boundaries_and_not_of_decisions() -> None:
    bench = Bench(utc_ns("2026-05-01T03:59:59"))  # one second before a shift begins
    bench.cycle([("reach", 0.5), ("turn", 0.4)])  # decided in the next shift
    bench.cycle([("reach", 30), ("turn", 30)])
    report = figures(bench)
    assert [(shift.name, shift.cycles) for shift in report.shifts] == [("2026-04-30 22:00", 1), ("2026-05-01 06:00", 1)]
    assert report.history.steps[0].begin.utc_ns == utc_ns("2026-05-01T03:59:59")


def test_a_pass_that_goes_on_over_a_gap_is_one_pass() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    bench.cycle([("reach", 10), ("wait", 5), ("turn", 20)])
    bench.cycle([("reach", 10), ("wait", 4)], complete=False, missing=["turn"])
    bench.gap(3)
    bench.cycle([("wait", 2), ("turn", 20)], complete=False, before=["reach"])  # the wait went on
    bench.cycle([("reach", 10), ("wait", 5)], complete=False, missing=["turn"])
    bench.gap(3)
    bench.cycle([], complete=False, missing=["turn"], before=["reach", "wait"])
    bench.gap(3)
    bench.cycle([("turn", 20)], complete=False, before=["reach", "wait"])
    report = figures(bench)
    assert report.cycles.count == 3 and report.incomplete == 0
    assert [cycle.duration_s for cycle in report.history.cycles] == [35.0, 39.0, 41.0]


def test_a_pass_after_one_that_was_left_is_another_pass() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    bench.cycle([("reach", 10), ("wait", 5), ("turn", 2)], complete=False, missing=["turn"])
    bench.cycle([("wait", 5), ("turn", 20)], complete=False, before=["reach"])  # it was killed after its first step
    assert [cycle.duration_s for cycle in figures(bench).history.cycles] == [17.0, 25.0]


def test_a_pass_that_was_killed_does_not_go_on_from_the_finished_one_before_it() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    bench.cycle([("reach", 20), ("wait", 20), ("turn", 20)])
    for action in ("reach", "wait", "turn"):  # killed in the last step: this pass has no cycle in its run
        bench.step(action, 15)
    later = Bench(utc_ns("2026-05-01T05:02"), session="s2", seq=bench.seq)
    later.cycle([("turn", 10)], complete=False, before=["reach", "wait"])
    [history] = histories([[*bench, *later]])
    assert [(cycle.duration_s, cycle.complete) for cycle in history.cycles] == [(60.0, True), (10.0, False)]


def test_a_pass_that_goes_on_in_another_run_is_one_pass() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    bench.cycle([("reach", 10), ("wait", 5)], complete=False, missing=["turn"])
    bench.end()
    later = Bench(utc_ns("2026-05-01T05:00:17"), session="s2", seq=bench.seq)
    later.cycle([("turn", 20)], complete=False, before=["reach", "wait"])
    later.cycle([("reach", 10), ("turn", 20)], complete=False, before=["wait"])  # of a pass that was killed
    [history] = histories([[*bench, *later]])
    report = report_of(history, PLAN, ("wait",))
    assert [(cycle.duration_s, cycle.complete) for cycle in history.cycles] == [(37.0, True), (30.0, False)]
    assert report.incomplete == 1 and report.waiting_share is None


def test_a_cycle_over_midnight_belongs_to_the_shift_of_its_end() -> None:
    bench = Bench(utc_ns("2026-05-01T19:50"))  # ten to ten in Berlin
    bench.cycle([("reach", 300), ("turn", 240)])
    bench.cycle([("reach", 300), ("turn", 900)])  # over the change of shifts
    bench.cycle([("reach", 3600), ("turn", 4000)])  # over midnight
    [before, night] = figures(bench).shifts
    assert (before.name, before.complete, night.name, night.complete) == ("2026-05-01 14:00", 1, "2026-05-01 22:00", 2)
    assert before.hours == pytest.approx(10 / 60)
    assert before.per_hour == pytest.approx(6.0)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 7), ("2026-10-24", 9)])
def test_a_night_in_which_the_clocks_change_has_its_true_hours(day: str, hours: int) -> None:
    begin = PLAN.at(utc_ns(f"{day}T23:00")).begin_utc_ns
    bench = Bench(begin - 60 * 10**9)
    for _ in range(60 * (hours + 2)):
        bench.cycle([("reach", 20), ("turn", 40)])
    night = next(shift for shift in figures(bench).shifts if shift.name == f"{day} 22:00")
    assert night.hours == pytest.approx(hours) and night.complete == 60 * hours
    assert night.per_hour == pytest.approx(60.0)


def test_a_gap_an_end_and_a_kill_cut_a_step_off() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    bench.step("reach", 10)
    bench.step("turn", 3)
    bench.gap(100)
    bench.step("turn", 7)
    bench.step("reach", 5)
    bench.end()
    killed = Bench(utc_ns("2026-05-01T06:00"), session="s2")
    killed.step("reach", 4)
    killed.step("turn", 900)
    after = Bench(utc_ns("2026-05-01T07:00"), session="s3")
    after.step("reach", 1)
    bench.events += killed.events + after.events  # one journal
    report = figures(bench)
    durations = [(step.action, step.duration_s) for step in report.history.steps]
    assert durations == [("reach", 10.0), ("turn", 7.0), ("reach", 4.0)]
    assert (report.history.runs, report.history.cut) == (3, 3)


def test_lost_events_end_the_step_that_went_on() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    for action in ("reach", "turn", "reach", "turn"):
        bench.step(action, 10)
    bench.events[2:3] = [Lost("bench", 0, 2, 2)]
    bench.events.append(Unknown("bench", 0, type="news", seq=99, body={}))
    report = figures(bench)
    assert report.history.lost == 1 and [step.duration_s for step in report.history.steps] == [10.0]


def test_a_deviation_that_was_corrected_is_not_counted() -> None:
    bench = Bench(utc_ns("2026-05-01T21:30"))  # half past eleven at night
    first = bench.deviation("skipped")
    bench.deviation("overdue")
    bench.t_ns += 3600 * 10**9
    bench.deviation("out_of_order", corrects=first)
    bench.deviation("overdue", seen=None)
    report = figures(bench)
    assert {kind: sum(counts) for kind, counts in report.deviations_by_hour.items()} == {
        "overdue": 2,
        "out_of_order": 1,
    }
    overdue = report.deviations_by_hour["overdue"]
    assert (overdue[23], overdue[0]) == (1, 1) and list(report.deviations_by_hour) == ["overdue", "out_of_order"]
    assert [(shift.name, shift.deviations) for shift in report.shifts] == [("2026-05-01 22:00", 3)]


def test_the_longest_steps_say_where_they_are() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"), source="/videos/left.mp4")
    for extra_s in (0, 0, 0, 40, 0, 7, 0):
        bench.cycle([("reach", 10 + extra_s), ("wait", 5 + 3 * extra_s), ("turn", 20)])
    [(first, excess_s), (second, _)] = figures(bench, waiting=("wait",)).longest
    assert (first.action, first.duration_s, excess_s) == ("reach", 50.0, 40.0)
    assert (first.begin.source, first.begin.t_s, first.begin.frame) == ("/videos/left.mp4", 105.0, 1050)
    assert second.duration_s == 17.0


def test_streams_are_apart_and_journals_of_one_are_joined() -> None:
    later, earlier = (Bench(utc_ns(f"2026-05-0{day}T05:00"), session=f"s{day}") for day in (2, 1))
    other = Bench(utc_ns("2026-05-03T05:00"), stream="left")
    for bench in (later, earlier, other):
        bench.cycle([("reach", 10), ("turn", 20)])
    [joined, left] = histories([later, earlier, other])
    assert (joined.stream, left.stream, joined.runs, left.runs) == ("bench", "left", 2, 1)
    assert [cycle.begin.session for cycle in joined.cycles] == ["s1", "s2"]


def test_what_is_outside_the_time_asked_for_is_left_out() -> None:
    bench = Bench(utc_ns("2026-05-01T05:00"))
    for _ in range(20):
        bench.cycle([("reach", 30), ("turn", 30)])
    [history] = histories([bench])
    cut = within(history, utc_ns("2026-05-01T05:05"), utc_ns("2026-05-01T05:10"))
    assert len(cut.cycles) == 5 and len(cut.steps) == 10 and len(history.cycles) == 20


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=60))
def test_quantiles_are_those_of_numpy(durations: list[float]) -> None:
    times = Times.of(durations)
    assert times.median_s == pytest.approx(np.median(durations)) and times.count == len(durations)
    assert times.p10_s is not None and times.p90_s is not None and times.p10_s <= times.median_s <= times.p90_s  # type: ignore[operator]


@pytest.mark.parametrize("count", [8, 100, 4000])
def test_the_trend_is_the_slope_and_long_breaks_do_not_move_it(count: int) -> None:
    rng = np.random.default_rng(count)
    durations = 40 + 0.05 * np.arange(count) + rng.normal(0, 0.01, count)
    durations[:: max(6, count // 9)] += 500  # breaks
    slope = trend_s(durations.tolist())
    assert slope == pytest.approx(5.0, abs=0.5)
    assert trend_s([40.0] * 7) is None and trend_s([]) is None


def test_a_stream_without_anything_has_a_report() -> None:
    report = report_of(History("empty"), PLAN, ("wait",))
    assert report.cycles == Times(0) and report.steps == [] and report.shifts == [] and report.waiting_share is None
