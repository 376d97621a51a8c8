"""What is kept of the running cycle over a pause: what was done counts after it, and doubt makes no deviation."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edge_hal.files.untrusted import parse_json
from edge_hal.procedure.conformance import Conformance, Cycle, Deviation
from edge_hal.procedure.kept_cycle import KeptCycle
from edge_hal.procedure.rules import Procedure
from edge_hal.procedure.running_cycle import LARGEST, MOST_STEPS
from edge_hal.runtime.recording.state_file import check_like
from tests.helpers.followed_procedure import (
    DELAY,
    FOLD,
    HZ,
    IDLE,
    NAMES,
    PRESS,
    TAKE,
    WIPE,
    Stream,
    procedure,
    wiped_at_first,
)

LASTING = 3.0
"""Seconds that a step needs to count: longer than a short pause and two decisions."""


def lasting(rules: Procedure | None = None) -> Procedure:
    steps = (rules or procedure()).steps
    return Procedure({name: replace(each, shortest_s=LASTING) for name, each in steps.items()})


def resumed(
    kept: KeptCycle, pause_s: float = 0.2, rules: Procedure | None = None, *, names: Sequence[str] = NAMES
) -> Stream:
    """A stream that begins with it, of a bundle with the labels in another order if `names` says so."""
    steps = (rules or lasting()).steps
    stream = Stream(Procedure({name: steps[name] for name in names}), mid_cycle=True)
    stream.tracker.resume(KeptCycle.from_dict(parse_json(json.dumps(kept.to_dict()))), pause_s)
    return stream


def after(*labels: int, last_s: float = 4.0) -> KeptCycle:
    """What is kept `last_s` after the last of these steps began. It goes on."""
    stream = Stream(lasting()).play(*((label, 4.0) for label in labels[:-1]), (labels[-1], last_s))
    return stream.tracker.kept()


def long(*labels: int) -> tuple[tuple[int, float], ...]:
    return tuple((label, 4.0) for label in labels)


# --- what counts after the pause -----------------------------------------------------------------


def test_steps_before_the_pause_are_done_and_the_one_that_went_on_is_not_repeated() -> None:
    stream = resumed(after(TAKE, WIPE, FOLD))
    assert stream.tracker.done().tolist() == [0, 1, 1, 0, 1]  # before the first decision
    stream.play((FOLD, 3.0), *long(PRESS, IDLE, TAKE, FOLD, PRESS)).finish()
    assert stream.kinds == []
    first, second = stream.cycles
    assert first.before == (TAKE, WIPE) and second.before is None
    assert [(s.label, s.begin_tick, s.end_tick) for s in first.steps] == [(FOLD, 0, 30), (PRESS, 30, 70)]
    assert (first.begin_tick, first.end_tick, first.missing, first.complete) == (0, 70, (), False)
    assert second.complete


def test_a_step_that_was_done_before_the_pause_is_repeated_after_it() -> None:
    stream = resumed(after(TAKE, FOLD, WIPE)).play(*long(WIPE, FOLD))
    assert stream.kinds == [("repeated", PRESS, FOLD)]
    assert stream.deviations[0].evidence == {"times_before": 1.0}


def test_a_step_that_is_longer_than_the_pause_is_skipped_and_corrected_in_a_third_epoch() -> None:
    stream = resumed(after(TAKE)).play(*long(TAKE, PRESS))
    assert stream.kinds == [("skipped", FOLD, PRESS)]
    kept = stream.tracker.kept()
    assert kept.called == {"fold": 0} and kept.going_on is not None and kept.going_on.label == "press"
    again = resumed(kept).play(*long(PRESS, FOLD, IDLE)).finish()
    assert again.kinds == [("out_of_order", PRESS, FOLD)]  # not called skipped again
    assert (again.deviations[0].number, again.deviations[0].corrects) == (1, 0)
    assert again.cycles[0].before == (TAKE,) and again.cycles[0].deviations == (1,)


def test_a_step_that_was_believed_for_long_before_the_pause_is_not_called_skipped() -> None:
    rules = lasting().steps
    rules = {**rules, "fold": replace(rules["fold"], doubt_s=1.0)}
    for believed_ticks, told in ((9, [("skipped", FOLD, PRESS)]), (10, [])):
        stream = Stream(Procedure(rules)).play(*long(TAKE))
        stream.tracker.passed(stream.tick - 1 + believed_ticks, np.eye(5)[FOLD])
        kept = stream.tracker.kept()
        assert kept.believed_s["fold"] == pytest.approx(believed_ticks / HZ)
        assert resumed(kept, rules=Procedure(rules)).play(*long(TAKE, PRESS)).kinds == told


@pytest.mark.parametrize(("pause_s", "told"), [(1.9, [("skipped", FOLD, PRESS)]), (2.0, [])])
def test_a_step_that_fits_into_the_pause_is_not_called_skipped(pause_s: float, told: Any) -> None:
    """1 s more was not seen: until a decision, on both sides."""
    assert resumed(after(TAKE), pause_s).play(*long(TAKE, PRESS, IDLE)).finish().kinds == told


def test_pauses_without_a_decision_in_between_add_up() -> None:
    kept = after(TAKE)
    for _ in range(2):
        stream = resumed(kept, 0.5)
        stream.tracker.passed(5)
        kept = stream.tracker.kept()
        assert stream.tracker.finish(5) == []  # nothing was seen
    assert kept.going_on is not None and kept.going_on.label == "take"
    assert kept.unseen_s == pytest.approx(0.5 + 2 * (0.5 + 0.5))
    assert resumed(kept, 0.0).play(*long(TAKE, PRESS)).kinds == []


@pytest.mark.parametrize(("pause_s", "told"), [(7.9, [("repeated", PRESS, FOLD)]), (8.0, [])])
def test_after_a_pause_for_the_rest_and_another_begin_it_may_be_another_cycle(pause_s: float, told: Any) -> None:
    """`fold` after `fold`, `wipe`: between them `press`, `idle` and `take` need 6 s."""
    rules = procedure(idle=replace(lasting().steps["idle"], optional=False, background=False))
    rules = Procedure({name: replace(each, shortest_s=LASTING) for name, each in rules.steps.items()})
    kept = Stream(rules).play(*long(TAKE, FOLD, WIPE)).tracker.kept()
    stream = resumed(kept, pause_s, rules).play(*long(WIPE, FOLD))
    assert stream.kinds == told
    if not told:  # from here on it is a cycle of which only this is known
        stream.play(*long(IDLE, PRESS, TAKE)).finish()
        assert stream.kinds == [] and [cycle.complete for cycle in stream.cycles] == [False, False]
        assert [s.label for s in stream.cycles[0].steps] == [FOLD, IDLE, PRESS]
        assert stream.cycles[0].before is None


def test_a_cycle_that_the_epoch_saw_nothing_of_has_an_end_and_no_steps() -> None:
    stream = resumed(after(TAKE, FOLD, PRESS)).play(*long(IDLE))
    [cycle] = stream.cycles
    assert (cycle.steps, cycle.before, cycle.complete) == ((), (TAKE, FOLD, PRESS), False)
    assert cycle.begin_tick == cycle.end_tick == 0
    assert resumed(after(TAKE, FOLD)).finish().cycles == []


def test_a_step_that_had_begun_is_judged_if_it_goes_on_and_else_may_have_occurred() -> None:
    kept = after(TAKE, PRESS, last_s=1.0)
    assert kept.begun == "press" and kept.done["press"] == 0
    assert resumed(kept).play(*long(PRESS)).kinds == [("skipped", FOLD, PRESS)]
    stream = resumed(kept).play(*long(TAKE, FOLD, IDLE, TAKE)).finish()
    assert stream.kinds == [] and stream.cycles[0].missing == ()


@pytest.mark.parametrize(("pause_s", "at", "decided_at"), [(0.2, 0, 5), (30.0, 80, 85)])
def test_a_step_is_overdue_by_its_time_before_a_short_pause(pause_s: float, at: int, decided_at: int) -> None:
    kept = after(TAKE, FOLD, last_s=7.9)
    stream = resumed(kept, pause_s)
    assert [stream.tracker.passed(tick) for tick in range(200)] == [[]] * 200  # nobody knows whether it goes on
    stream = resumed(kept, pause_s).play((FOLD, 12))
    [told] = stream.deviations
    assert (told.kind, told.boundary_tick, told.decision_tick) == ("overdue", at, decided_at)
    assert resumed(stream.tracker.kept()).play((FOLD, 12)).kinds == []  # once


def test_a_begin_that_fits_into_the_pause_may_be_that_of_the_next_cycle() -> None:
    steps = {**wiped_at_first().steps}
    rules = lasting(Procedure({**steps, "wipe": replace(steps["wipe"], not_after={})}))
    kept = Stream(rules).play(*long(TAKE, WIPE, FOLD, PRESS, WIPE)).tracker.kept()
    assert kept.open == 1
    stream = resumed(kept, 4.0, rules).play(*long(FOLD, PRESS, IDLE)).finish()
    assert stream.kinds == [] and [cycle.missing for cycle in stream.cycles] == [(), ()]


def test_what_was_said_at_the_end_of_an_epoch_is_not_said_again() -> None:
    rules = lasting().steps
    rules = {**rules, "wipe": replace(rules["wipe"], optional=False)}
    before = Stream(Procedure(rules)).play(*long(TAKE, FOLD, PRESS)).finish()
    assert before.kinds == [("skipped", WIPE, None)] and len(before.cycles) == 1
    stream = resumed(before.tracker.kept(), rules=Procedure(rules)).play(*long(PRESS, TAKE)).finish()
    assert stream.kinds == [] and stream.cycles[0].missing == (WIPE,)


def test_a_cycle_that_was_given_up_before_the_pause_begins_again_after_it() -> None:
    wipe = replace(lasting().steps["wipe"], ends_cycle=True, optional=False, not_after={}, requires={"press": 0.9})
    rules = Procedure({**lasting().steps, "wipe": wipe, "press": replace(lasting().steps["press"], ends_cycle=False)})
    before = Stream(rules).play(*long(TAKE, FOLD, TAKE))
    assert before.kinds == [("repeated", FOLD, TAKE)]
    stream = resumed(before.tracker.kept(), rules=rules).play(*long(TAKE, FOLD, PRESS, WIPE)).finish()
    assert stream.kinds == []
    given_up, again = stream.cycles
    assert (given_up.before, given_up.steps, given_up.end_tick) == ((TAKE, FOLD), (), 0)
    assert (again.before, [s.label for s in again.steps]) == ((), [TAKE, FOLD, PRESS, WIPE])
    assert not again.complete


def test_it_fits_the_labels_in_another_order_and_another_rate() -> None:
    names = tuple(reversed(NAMES))
    stream = resumed(after(TAKE, FOLD, WIPE), names=names)
    assert stream.tracker.done().tolist() == [1, 0, 1, 1, 0]
    wipe, fold = names.index("wipe"), names.index("fold")
    assert stream.play((wipe, 4.0), (fold, 4.0)).kinds == [("repeated", names.index("press"), fold)]
    tracker = Conformance(lasting(), 2.5 * HZ)
    tracker.resume(after(TAKE, FOLD, last_s=7.0), 0.2)
    kept = tracker.kept()
    assert kept.going_on is not None
    assert kept.going_on.age_s == pytest.approx(7.1, abs=0.1) and kept.unseen_s == pytest.approx(0.7, abs=0.05)


# --- any run, any cut ----------------------------------------------------------------------------

Segments = Sequence[tuple[int, int, float]]
"""Label, ticks and confidence."""


def follow(tracker: Conformance, played: Segments, first: int, end: int) -> list[Deviation | Cycle]:
    """Decisions of an epoch from tick `first` of the segments up to `end`. The first one is taken after `DELAY` ticks
    and says that its label began with the epoch, as that of the decoder does."""
    due: dict[int, tuple[int, int, float]] = {}
    begin = 0
    for label, ticks, confidence in played:
        if begin <= first + DELAY // 2 < begin + ticks:
            due[first + DELAY] = (label, first, confidence)
        elif begin > first + DELAY // 2:
            due[begin + DELAY] = (label, begin, confidence)
        begin += ticks
    found: list[Deviation | Cycle] = []
    for tick in range(first, end):
        if tick in due:
            label, begin, confidence = due[tick]
            found += tracker.decided(label, begin - first, tick - first, confidence)
        else:
            found += tracker.passed(tick - first)
    return found


def total(played: Segments) -> int:
    return sum(ticks for _, ticks, _ in played) + DELAY + 1


def over(kept: KeptCycle, rules: Procedure, played: Segments, first: int, pause: int) -> list[Deviation | Cycle]:
    tracker = Conformance(rules, HZ)
    tracker.reset(mid_cycle=True)
    tracker.resume(kept, pause / HZ)
    return follow(tracker, played, first, total(played))


def without_limit(rules: Procedure) -> Procedure:
    """Nothing is overdue: how long a step has lasted is known only up to when it was decided."""
    return Procedure({name: replace(each, overdue_s=None) for name, each in rules.steps.items()})


def kinds(found: Sequence[Deviation | Cycle]) -> list[tuple[str, int | None, int | None, bool]]:
    return [(d.kind, d.expected, d.seen, d.corrects is not None) for d in found if isinstance(d, Deviation)]


anything = st.lists(
    st.tuples(st.sampled_from(range(5)), st.sampled_from([10, 40, 90]), st.just(0.9)), min_size=2, max_size=12
)


@given(anything, st.floats(0, 1), st.integers(0, 3), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_short_pause_changes_no_deviation(played: Segments, where: float, pause: int, wiped: bool) -> None:
    """Unless it hides a flicker, which would have made a step doubtful, or halves a step that then is too short."""
    cut = round(where * (total(played) - 1))
    begin = 0
    for _, ticks, _ in played:
        hidden = begin < cut + pause + 2 * DELAY and begin + ticks > cut - 2 * DELAY
        assume(not (hidden and ticks < 2 * LASTING * HZ + 2 * DELAY))
        begin += ticks
    rules = without_limit(lasting(wiped_at_first() if wiped else None))
    uncut = Conformance(rules, HZ)
    whole = follow(uncut, played, 0, total(played))
    tracker = Conformance(rules, HZ)
    before = follow(tracker, played, 0, cut)
    kept = tracker.kept()
    assert KeptCycle.from_dict(parse_json(json.dumps(kept.to_dict()))) == kept
    then = over(kept, rules, played, cut + pause, pause)
    assert kinds([*before, *then]) == kinds(whole)
    told, expected = ([d for d in found if isinstance(d, Cycle)] for found in ([*before, *then], whole))
    for one, other in zip(told, expected, strict=True):
        assert one.missing == other.missing
        assert (*(one.before or ()), *(s.label for s in one.steps)) == tuple(s.label for s in other.steps)
        assert one.complete == (other.complete and one.before is None)


legal = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(6, 60),
        st.booleans(),
        st.integers(6, 90),
        st.integers(1, 2),
        st.sampled_from(range(5)),
        st.booleans(),
        st.integers(6, 60),
    ),
    min_size=1,
    max_size=4,
)


# The first decision after the pause is a flicker, and names the step that went on before it.
@example([(False, 6, True, 6, 1, step, True, 6) for step in (0, 3, 0)], 0.3046875, 23, 3)
# The pause hides the second step of the next cycle, whose first one may have belonged to the one before.
@example([(first, 6, False, 6, 1, 0, False, 6) for first in (False, True)], 0.5625, 2, 0)
@given(legal, st.floats(0, 1), st.integers(0, 600), st.integers(0, 10))
@settings(max_examples=400, deadline=None)
def test_no_pause_makes_a_deviation_of_a_procedure_that_was_followed(
    cycles: Sequence[Any], where: float, pause: int, age: int
) -> None:
    """Of any length, also over several cycles, and with what was kept up to a second before."""
    played: list[tuple[int, int, float]] = []
    for wiped_first, take, wiped, fold, flicker, flickered, idle, press in cycles:
        played += [
            *([(WIPE, 10, 0.9)] if wiped_first else []),
            (TAKE, take, 0.9),
            *([(WIPE, 10, 0.9)] if wiped else []),
        ]
        played += [(FOLD, fold // 2 + 3, 0.9)]
        played += [] if flickered == FOLD else [(flickered, flicker, 0.9), (FOLD, fold // 2 + 3, 0.9)]
        played += [(PRESS, press, 0.9), *([(IDLE, 15, 0.9)] if idle else [])]
    rules = without_limit(wiped_at_first() if any(cycle[0] for cycle in cycles) else procedure())
    cut = round(where * (total(played) - 1))
    tracker = Conformance(rules, HZ)
    assert kinds(follow(tracker, played, 0, max(0, cut - age))) == []
    kept = tracker.kept()
    first = min(cut + pause, total(played) - 1)
    assert kinds(over(kept, rules, played, first, first - cut + min(age, cut))) == []


@given(anything, st.integers(0, 30), anything)
@settings(max_examples=40, deadline=None)
def test_a_state_of_an_epoch_that_resumed_continues_as_it_would_have(
    played: Segments, ticks: int, then: Segments
) -> None:
    first, other = Conformance(procedure(), HZ), Conformance(procedure(), HZ)
    follow(first, played, 0, total(played) - DELAY)
    kept = first.kept()
    first.reset(mid_cycle=True)
    first.resume(kept, 1.0)
    follow(first, then, 0, min(ticks, total(then)))
    state = first.state()
    check_like(other.state(), state)
    other.restore(state)
    for tick in range(ticks, 80):
        assert other.decided(tick % 5, tick, tick, 0.9) == first.decided(tick % 5, tick, tick, 0.9)
    np.testing.assert_equal(other.state(), first.state())
    assert other.kept() == first.kept()


# --- its text ------------------------------------------------------------------------------------


def test_its_text_is_bounded() -> None:
    stream = Stream(lasting()).play(*long(TAKE, *[FOLD, WIPE] * MOST_STEPS))
    kept = stream.tracker.kept()
    assert len(kept.steps) == MOST_STEPS and kept.count == 2 * MOST_STEPS + 1
    assert len(json.dumps(kept.to_dict())) < 10_000
    again = resumed(kept).play(*long(WIPE, FOLD, PRESS)).finish()
    assert [d.kind for d in again.deviations] == ["repeated"]


def text(**changes: Any) -> dict[str, Any]:
    return {**after(TAKE, WIPE, PRESS).to_dict(), **changes}


def going_on(**change: Any) -> dict[str, Any]:
    return text(going_on={**GOING_ON, **change})


def take(known: Any) -> dict[str, Any]:
    return text(labels={**text()["labels"], "take": known})


GOING_ON = {"label": "press", "age_s": 1.0, "confidence": 0.9, "told": False}


@pytest.mark.parametrize(
    "data",
    [
        *(None, 7, "text", [], {}, {**text(), "more": 1}, text(labels={}), text(labels=[]), text(labels={"a": [1, 2]})),
        *(text(labels={name: [0, 0.0, 0] for name in NAMES}), text(count=99), text(count=-1), text(count=3.0)),
        *(
            text(steps=["take"]),
            text(steps=["take", "wipe", "idle"]),
            text(steps=["take", "wipe", []]),
            text(steps="abc"),
        ),
        *(text(repeats=4), text(repeats=-1), text(from_begin=1), text(another=None), text(called={"other": 1})),
        *(text(called={"fold": -2}), text(called={"fold": 1 << 61}), text(called=["fold"]), text(begun="other")),
        *(text(begun=[]), text(unseen_s=-1), text(unseen_s=float("nan")), text(unseen_s=1e9), text(unseen_s=True)),
        *(text(going_on="press"), text(going_on=[]), text(going_on={}), going_on(more=1), going_on(age_s=-1)),
        *(going_on(confidence=2), going_on(told=1), going_on(label=[]), going_on(label="other")),
        *map(take, ([1, -1, 0], [1, 0, 4], [1, 0, False], [True, 0, 0], 1)),
        *(text(open=4), text(open=-1), text(open=True)),
    ],
    ids=lambda data: str(data)[-40:],
)
def test_other_data_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"cycle|step that went on"):
        KeptCycle.from_dict(data)
    assert KeptCycle.from_dict(text(going_on=GOING_ON)).going_on is not None


def test_steps_that_are_not_listed_cannot_be_open() -> None:
    """Whoever closes the cycle looks up where its open steps begin."""
    many = Stream(lasting()).play(*long(TAKE, *[FOLD, WIPE] * MOST_STEPS)).tracker.kept().to_dict()
    KeptCycle.from_dict(many)
    with pytest.raises(ValueError, match="the cycle is out of range"):
        KeptCycle.from_dict({**many, "open": 1})
    state = resumed(KeptCycle.from_dict(many)).tracker.state()
    state["cycle"]["counts"][-1] = 1
    with pytest.raises(ValueError, match="the cycle is out of range"):
        Stream(lasting()).tracker.restore(state)


def test_a_count_that_is_accepted_can_grow() -> None:
    """The state of the cycle that goes on has the same limits, and is recorded."""
    accepted = []
    for most in (LARGEST // 2 - 1, LARGEST - 1):
        labels = {**text()["labels"], "wipe": [most - 2, 0.0, 0]}
        kept = text(labels=labels, count=most, steps=["take", "press", *["wipe"] * (MOST_STEPS - 2)])
        with contextlib.suppress(ValueError):
            accepted.append(KeptCycle.from_dict(kept))
    assert accepted
    for each in accepted:
        stream = resumed(each).play(*long(WIPE, FOLD, WIPE))
        Stream(lasting()).tracker.restore(stream.tracker.state())
