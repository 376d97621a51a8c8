"""Deviations and cycles: the rules of a procedure against decided steps, with the faults of recognition in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.procedure.conformance import Conformance
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.procedure.running_cycle import MOST_STEPS
from edge_hal.runtime.recording.state_file import check_like
from tests.helpers.followed_procedure import (
    FOLD,
    HZ,
    IDLE,
    NAMES,
    PRESS,
    TAKE,
    WIPE,
    Stream,
    procedure,
    step,
    wiped_at_first,
)


def test_a_procedure_that_is_followed_gives_cycles_and_no_deviation() -> None:
    stream = Stream().steps(IDLE, TAKE, WIPE, FOLD, WIPE, PRESS, IDLE, TAKE, FOLD, PRESS, TAKE, FOLD, PRESS).finish()
    assert stream.kinds == []
    assert [cycle.complete for cycle in stream.cycles] == [True] * 3
    first = stream.cycles[0]
    assert (first.begin_tick, first.end_tick, first.missing, first.omitted) == (20, 120, (), 0)
    listed = [(TAKE, 20, 40), (WIPE, 40, 60), (FOLD, 60, 80), (WIPE, 80, 100), (PRESS, 100, 120)]
    assert [(s.label, s.begin_tick, s.end_tick) for s in first.steps] == listed
    assert first.decision_tick == 129  # idle follows press: nothing else of the cycle can come


def test_background_within_a_cycle_belongs_to_no_step() -> None:
    [cycle] = Stream().steps(TAKE, IDLE, FOLD, IDLE, PRESS).finish().cycles
    assert [(s.begin_tick, s.end_tick) for s in cycle.steps] == [(0, 20), (40, 60), (80, 100)] and cycle.complete


def test_a_step_that_is_missing_where_it_is_needed_was_skipped() -> None:
    stream = Stream().steps(TAKE, PRESS, IDLE)
    [told] = stream.deviations
    assert (told.kind, told.expected, told.seen, told.corrects) == ("skipped", FOLD, PRESS, None)
    assert (told.boundary_tick, told.decision_tick, told.number) == (20, 29, 0)
    assert told.confidence == pytest.approx(0.95) and told.evidence == {"sure": 0.95}
    [cycle] = stream.cycles
    assert cycle.missing == (FOLD,) and not cycle.complete and cycle.deviations == (0,)


def test_a_step_that_nothing_requires_is_missing_at_the_end_of_the_cycle() -> None:
    stream = Stream(procedure(wipe=step(repeatable=True))).steps(TAKE, FOLD, PRESS, IDLE)
    assert stream.kinds == [("skipped", WIPE, None)]
    again = Stream(procedure(wipe=step(repeatable=True))).steps(TAKE, FOLD, PRESS, TAKE)
    assert again.kinds == [("skipped", WIPE, TAKE)]


def test_swapped_steps_are_skipped_and_then_corrected_to_out_of_order() -> None:
    stream = Stream().steps(TAKE, PRESS, FOLD, IDLE)
    assert stream.kinds == [("skipped", FOLD, PRESS), ("out_of_order", PRESS, FOLD)]
    assert [told.corrects for told in stream.deviations] == [None, 0]
    assert stream.finish().cycles[0].deviations == (0, 1)


def test_an_optional_step_may_be_missing_but_not_come_late() -> None:
    rules = procedure(press=step(requires={"fold": 0.9, "wipe": 0.8}, ends_cycle=True))
    assert Stream(rules).steps(TAKE, FOLD, PRESS).finish().kinds == []
    assert Stream(rules).steps(TAKE, FOLD, PRESS, WIPE).finish().kinds == [("out_of_order", PRESS, WIPE)]


def test_a_repeatable_step_comes_again_but_not_after_what_closes_it() -> None:
    assert Stream().steps(TAKE, WIPE, FOLD, WIPE, PRESS, WIPE).kinds == [("out_of_order", PRESS, WIPE)]


def test_a_repeated_step_is_told_once_for_each_time() -> None:
    stream = Stream().steps(TAKE, FOLD, WIPE, FOLD, PRESS).finish()
    assert stream.kinds == [("repeated", PRESS, FOLD)] and stream.deviations[0].evidence == {"times_before": 1.0}
    assert stream.cycles[0].complete


def test_a_cycle_begins_again_where_the_end_of_the_last_was_left_out() -> None:
    stream = Stream().steps(TAKE, FOLD, TAKE, FOLD, PRESS).finish()
    assert stream.kinds == [("skipped", PRESS, TAKE)]
    assert [cycle.missing for cycle in stream.cycles] == [(PRESS,), ()]


def test_the_next_step_shows_whether_a_begin_is_repeated_or_the_end_was_left_out() -> None:
    open_still = Stream().steps(TAKE, FOLD, TAKE)
    assert open_still.kinds == [] and open_still.cycles == []
    repeated = Stream().steps(TAKE, FOLD, TAKE, PRESS, IDLE)
    assert repeated.kinds == [("repeated", FOLD, TAKE)]
    [told], [cycle] = repeated.deviations, repeated.cycles
    assert (told.boundary_tick, told.decision_tick) == (40, 69) and told.evidence == {"times_before": 1.0}
    assert cycle.complete and [s.label for s in cycle.steps] == [TAKE, FOLD, TAKE, PRESS]
    left_out = Stream().steps(TAKE, FOLD, TAKE, FOLD)
    assert left_out.kinds == [("skipped", PRESS, TAKE)]
    assert (left_out.deviations[0].boundary_tick, left_out.deviations[0].decision_tick) == (40, 69)
    both = Stream().steps(TAKE, FOLD, TAKE, WIPE)  # wipe may come at any time
    assert both.kinds == [("skipped", PRESS, TAKE)]
    assert Stream().steps(TAKE, FOLD, TAKE, IDLE).cycles == []  # idle shows nothing
    third = Stream().steps(TAKE, FOLD, TAKE, IDLE, TAKE)  # a begin after a begin: the second one is that of a cycle
    assert third.kinds == [("skipped", PRESS, TAKE), ("repeated", FOLD, TAKE)] and len(third.cycles) == 1
    for last, kind in ((FOLD, ("skipped", PRESS, TAKE)), (PRESS, ("repeated", FOLD, TAKE))):
        assert Stream(wiped_at_first()).steps(TAKE, FOLD, TAKE, WIPE, last).kinds == [kind]
    thrice = Stream().steps(TAKE, FOLD, TAKE, FOLD, TAKE, IDLE, FOLD, PRESS, IDLE)
    assert thrice.kinds == [("skipped", PRESS, TAKE)] * 2
    assert [cycle.complete for cycle in thrice.cycles] == [False, False, True]


def test_a_begin_shows_a_new_cycle_at_once_if_nothing_is_missing() -> None:
    rules = procedure(press=step(optional=True, requires={"fold": 0.9}, ends_cycle=True))
    stream = Stream(rules).steps(TAKE, FOLD, TAKE)
    assert stream.kinds == [] and [cycle.missing for cycle in stream.cycles] == [()]
    late = Stream(rules).steps(FOLD, TAKE)  # it did not occur before: it is late, which is known at once
    assert late.kinds == [("skipped", TAKE, FOLD), ("out_of_order", FOLD, TAKE)]


@pytest.mark.parametrize("length_s, after_all", [(0.2, False), (0.4, True)])
def test_a_step_that_was_called_skipped_may_be_shorter(length_s: float, after_all: bool) -> None:
    late = Stream().play((TAKE, 2), (PRESS, 2), (FOLD, length_s), (IDLE, 2))
    assert late.kinds == [("skipped", FOLD, PRESS), ("out_of_order", PRESS, FOLD)][: 1 + after_all]
    never = Stream().play((TAKE, 2), (FOLD, 2), (PRESS, 2), (WIPE, length_s), (IDLE, 2))
    assert never.kinds == []
    begin = Stream().play((FOLD, 2), (PRESS, 2), (TAKE, length_s), (PRESS, 2))  # it would begin another cycle
    assert begin.kinds == [("skipped", TAKE, FOLD)] and begin.cycles == []


def test_a_cycle_that_is_given_up_and_begun_again_is_two_cycles() -> None:
    rules = procedure(wipe=step(requires={"press": 0.9}), press=step(requires={"fold": 0.9}))
    steps = {**rules.steps, "wipe": replace(rules.steps["wipe"], ends_cycle=True)}
    stream = Stream(Procedure(steps)).steps(TAKE, FOLD, TAKE, FOLD, PRESS, WIPE).finish()
    assert stream.kinds == [("repeated", FOLD, TAKE)]
    assert [[s.label for s in cycle.steps] for cycle in stream.cycles] == [[TAKE, FOLD], [TAKE, FOLD, PRESS, WIPE]]
    assert [cycle.complete for cycle in stream.cycles] == [False, True]


def test_overdue_is_told_once_when_the_limit_is_reached() -> None:
    stream = Stream().play((TAKE, 2), (FOLD, 12), (PRESS, 2)).finish()
    [told] = stream.deviations
    assert (told.kind, told.expected, told.seen) == ("overdue", PRESS, FOLD)
    assert (told.boundary_tick, told.decision_tick) == (100, 105)
    assert Stream().play((TAKE, 20), (FOLD, 7.9), (PRESS, 2)).finish().kinds == []


@pytest.mark.parametrize("flicker", [(PRESS, 0.4), (PRESS, 3.0, 0.3), (WIPE, 0.2), (TAKE, 0.4), (IDLE, 0.3)])
def test_a_short_or_uncertain_segment_makes_no_deviation(flicker: Any) -> None:
    stream = Stream().play((TAKE, 2), (FOLD, 2), flicker, (FOLD, 2), (PRESS, 2)).finish()
    assert stream.kinds == []
    assert [s.label for s in stream.cycles[0].steps] == [TAKE, FOLD, PRESS]


@pytest.mark.parametrize("ticks", [1, 2, 5])
def test_what_is_believed_weighs_by_how_long(ticks: int) -> None:
    """The fit of the limits looks once in some ticks, a stream at each: both must find the same confidence."""
    believed = np.random.default_rng(ticks).dirichlet(np.ones(len(NAMES)), 20)
    streams = [Conformance(procedure(fold=step(shortest_s=60.0)), HZ) for _ in range(2)]
    for stream in streams:
        stream.decided(FOLD, 0, 3, 0.6)
    for tick, row in enumerate(believed, 4):
        streams[0].passed(tick, row)
    for last in range(ticks, len(believed) + 1, ticks):
        streams[1].passed(3 + last, believed[last - ticks : last].mean(axis=0))
    expected, found = (stream.state() for stream in streams)
    np.testing.assert_allclose(found["confidence"], expected["confidence"])
    np.testing.assert_allclose(expected["confidence"][1], np.append(believed[:, FOLD], 0.6).mean())
    np.testing.assert_array_equal(found["segments"], expected["segments"])


def test_a_step_that_was_doubtful_is_neither_missing_nor_late() -> None:
    assert Stream().play((TAKE, 2), (FOLD, 0.4), (PRESS, 2)).finish().kinds == []
    assert Stream().play((TAKE, 2), (FOLD, 0.4), (WIPE, 2), (FOLD, 2), (PRESS, 2)).finish().kinds == []


def test_a_step_goes_on_over_a_flicker_and_is_overdue_from_its_begin() -> None:
    stream = Stream().play((TAKE, 2), (FOLD, 5), (WIPE, 0.3), (FOLD, 5), (PRESS, 2)).finish()
    assert stream.kinds == [("overdue", PRESS, FOLD)] and stream.deviations[0].boundary_tick == 100


def test_a_stream_that_begins_within_a_cycle_lacks_nothing() -> None:
    stream = Stream(mid_cycle=True).steps(PRESS, IDLE, TAKE, FOLD, PRESS).finish()
    assert stream.kinds == [] and [cycle.complete for cycle in stream.cycles] == [False, True]
    from_begin = Stream(mid_cycle=True).steps(TAKE, PRESS)
    assert from_begin.kinds == [("skipped", FOLD, PRESS)]  # it began where a cycle does


def test_the_end_of_the_stream_is_no_deviation_of_a_cycle_under_way() -> None:
    stream = Stream().steps(TAKE, FOLD).finish()
    assert stream.kinds == [] and stream.cycles[0].missing == (PRESS,) and not stream.cycles[0].complete


@pytest.mark.parametrize(
    "played",
    [
        [(TAKE, 2), (PRESS, 0.3), (TAKE, 2)],  # too short to count: the cycle may go on
        [(TAKE, 2), (FOLD, 2), (WIPE, 2), (PRESS, 0.3), (TAKE, 2)],  # of the cycle before
    ],
)
def test_a_stream_that_ends_after_a_doubtful_end_of_a_cycle_calls_nothing_skipped(
    played: list[tuple[int, float]],
) -> None:
    stream = Stream().play(*played).finish()
    assert stream.kinds == [] and FOLD in stream.cycles[-1].missing and not stream.cycles[-1].complete


def test_a_procedure_of_an_earlier_version_gives_no_deviation() -> None:
    old = Procedure({name: Step(0.2, 0.2, 2.0, 1.5, {}) for name in NAMES})
    stream = Stream(old).steps(PRESS, FOLD, PRESS, TAKE, WIPE, TAKE).finish()
    assert stream.kinds == [] and [len(cycle.steps) for cycle in stream.cycles] == [6]


def test_memory_is_bounded_and_what_is_left_out_is_counted() -> None:
    stream = Stream().play((TAKE, 2))
    size = len(json.dumps(stream.tracker.state(), default=lambda array: array.tolist()))
    stream.steps(*[FOLD, WIPE] * MOST_STEPS)
    assert len(json.dumps(stream.tracker.state(), default=lambda array: array.tolist())) < 3 * size
    [cycle] = stream.finish().cycles
    assert len(cycle.steps) == MOST_STEPS and cycle.omitted == MOST_STEPS + 1
    assert len(cycle.deviations) == MOST_STEPS - 1 == len(stream.deviations)


segments = st.lists(
    st.tuples(st.sampled_from(range(5)), st.sampled_from([0.3, 1.0, 2.0, 9.0]), st.sampled_from([0.3, 0.9])),
    min_size=1,
    max_size=14,
)


@given(segments, segments)
@settings(max_examples=60, deadline=None)
def test_a_state_continues_as_the_stream_would_have(first: Sequence[Any], then: Sequence[Any]) -> None:
    stream, other = Stream().play(*first), Stream()
    state = stream.tracker.state()
    check_like(other.tracker.state(), state)
    other.tracker.restore(state)
    other.tick, other.end, other.due = stream.tick, stream.end, list(stream.due)
    stream.found = []
    assert other.play(*then).finish().found == stream.play(*then).finish().found
    np.testing.assert_equal(state, Stream().play(*first).tracker.state())  # it was a copy


@given(segments)
@settings(max_examples=100, deadline=None)
def test_every_report_is_in_time_and_numbered_and_names_what_was_there(played: Sequence[Any]) -> None:
    stream = Stream().play(*played).finish()
    assert [told.number for told in stream.deviations] == list(range(len(stream.deviations)))
    named = {number for cycle in stream.cycles for number in cycle.deviations}
    assert named == set(range(len(stream.deviations)))
    for told in stream.deviations:
        assert told.boundary_tick <= told.decision_tick <= stream.tick and 0 < told.confidence <= 1
        if told.corrects is not None:
            earlier = stream.deviations[told.corrects]
            assert (earlier.kind, earlier.expected) == ("skipped", told.seen) and told.corrects < told.number
    for cycle in stream.cycles:
        ticks = [tick for one in cycle.steps for tick in (one.begin_tick, one.end_tick)]
        assert ticks == sorted(ticks) and cycle.begin_tick <= cycle.end_tick <= cycle.decision_tick
        assert not cycle.complete or not cycle.missing


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["cycle"]["labels"].__setitem__((0, 1), -5),
        lambda state: state["cycle"]["labels"].__setitem__((2, 1), 99),
        lambda state: state["cycle"]["steps"].__setitem__((0, 0), 5),
        lambda state: state["cycle"]["counts"].__setitem__(0, 7),
        lambda state: state["cycle"]["counts"].__setitem__(3, -1),
        lambda state: state["segments"].__setitem__((0, 0), 5),
        lambda state: state["confidence"].__setitem__(0, 2.0),
        lambda state: state["counts"].__setitem__(0, -1),
        lambda state: state["counts"].__setitem__(1, 1 << 61),
    ],
)
def test_a_damaged_state_is_refused(change: Any) -> None:
    tracker = Stream().steps(TAKE, PRESS, FOLD).tracker
    state = tracker.state()
    change(state)
    with pytest.raises(ValueError, match="out of range"):
        Conformance(procedure(), HZ).restore(state)


COUNTS, SHORT, UNCERTAIN = (2.0,), (0.4,), (2.0, 0.3)
length = st.sampled_from([COUNTS, COUNTS, SHORT, UNCERTAIN])
one_cycle = st.tuples(*(st.booleans() for _ in range(4)), *(length for _ in range(7)))


@given(st.lists(one_cycle, min_size=1, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_doubt_makes_no_deviation_of_cycles_that_are_right(cycles: Sequence[Any], wiped: bool, mid_cycle: bool) -> None:
    stream = Stream(wiped_at_first() if wiped else None, mid_cycle=mid_cycle)
    labels = (WIPE, TAKE, WIPE, FOLD, WIPE, PRESS, IDLE)
    for first, second, third, rest, *lengths in cycles:
        there = (first and wiped, True, second, True, third, True, rest)
        played = zip(labels, there, lengths, strict=True)
        stream.play(*((label, *length) for label, occurs, length in played if occurs))
    # A step that goes on after all that was too short may be overdue: nothing else has occurred for certain.
    assert [told for told in stream.finish().kinds if told[0] != "overdue"] == []


def test_a_step_that_begins_cycles_may_come_again_within_one() -> None:
    stream = Stream(wiped_at_first()).play(
        (WIPE, 2), (TAKE, 2), (FOLD, 2), (PRESS, 0.4), (WIPE, 2), (PRESS, 2), (TAKE, 2)
    )
    assert [cycle.missing for cycle in stream.cycles] == [()]


def test_a_step_that_may_begin_another_cycle_belongs_where_the_next_one_does() -> None:
    after = Stream(wiped_at_first()).steps(TAKE, FOLD, PRESS, WIPE)
    assert after.kinds == [] and after.cycles == []  # nothing shows yet where the wipe belongs
    another = Stream(wiped_at_first()).steps(TAKE, FOLD, PRESS, WIPE, TAKE, FOLD, PRESS, IDLE)
    assert another.kinds == [] and [cycle.complete for cycle in another.cycles] == [True, True]
    assert [[s.label for s in cycle.steps] for cycle in another.cycles] == [
        [TAKE, FOLD, PRESS],
        [WIPE, TAKE, FOLD, PRESS],
    ]
    assert [(cycle.begin_tick, cycle.end_tick) for cycle in another.cycles] == [(0, 60), (60, 140)]
    seal = step(optional=True, ends_cycle=True, requires={"press": 0.9})
    rules = Procedure({**wiped_at_first().steps, "seal": seal})
    this = Stream(rules).steps(TAKE, FOLD, PRESS, WIPE, 5, IDLE)
    assert this.kinds == [("out_of_order", PRESS, WIPE)]
    assert [[s.label for s in cycle.steps] for cycle in this.cycles] == [[TAKE, FOLD, PRESS, WIPE, 5]]
    [told] = this.deviations
    assert (told.boundary_tick, told.decision_tick) == (60, 89)


def test_a_stream_that_ends_on_a_step_that_may_begin_another_cycle() -> None:
    stream = Stream(wiped_at_first()).steps(TAKE, FOLD, PRESS, WIPE).finish()
    assert stream.kinds == [] and [cycle.complete for cycle in stream.cycles] == [True, False]
    assert [[s.label for s in cycle.steps] for cycle in stream.cycles] == [[TAKE, FOLD, PRESS], [WIPE]]


def test_only_a_certain_begin_shows_where_a_stream_stands() -> None:
    assert Stream(wiped_at_first(), mid_cycle=True).steps(WIPE, PRESS, IDLE, TAKE, FOLD, PRESS).finish().kinds == []


def test_repeated_steps_are_no_new_cycle_without_a_certain_begin() -> None:
    again = Stream(wiped_at_first()).steps(WIPE, TAKE, FOLD, WIPE, FOLD, PRESS).finish()
    assert again.kinds == [("repeated", PRESS, FOLD)] and len(again.cycles) == 1


def test_a_begin_that_was_glimpsed_before_the_end_begins_nothing() -> None:
    stream = Stream().steps(TAKE, FOLD).play((PRESS, 0.4), (TAKE, 0.4)).steps(PRESS, FOLD)
    assert stream.kinds == [("repeated", PRESS, FOLD)]


def test_a_cycle_whose_begin_was_only_glimpsed_lacks_nothing() -> None:
    wiped = procedure(
        wipe=step(repeatable=True), press=step(requires={"fold": 0.9, "wipe": 0.9}, ends_cycle=True, then={"idle": 1.0})
    )
    stream = Stream(wiped).steps(TAKE, WIPE, FOLD, PRESS).play((TAKE, 0.4)).steps(FOLD, PRESS, IDLE)
    assert stream.kinds == [] and len(stream.cycles) == 2


def test_a_step_that_was_glimpsed_before_the_begin_counts_for_the_cycle() -> None:
    rules = procedure(
        take=step(begins_cycle=True, repeatable=True),
        wipe=step(begins_cycle=True, repeatable=True),
        press=step(requires={"fold": 0.9, "wipe": 0.9}, ends_cycle=True),
    )
    assert Stream(rules).play((WIPE, 0.4)).steps(TAKE, FOLD, PRESS, IDLE).kinds == []


def test_a_step_that_may_come_within_a_cycle_ends_none_of_which_the_begin_is_not_known() -> None:
    assert len(Stream(wiped_at_first(), mid_cycle=True).steps(FOLD, WIPE, PRESS, IDLE).cycles) == 1
