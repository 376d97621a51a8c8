"""Rules learned from step lists: what is strict is stored, what is chance is not, and cycles are found within lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib.followed import deviations, follow_labels
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.calib.learn_rules import Rules, learn_rules, split_cycles
from edge_hal.procedure.conformance import Conformance, Deviation
from edge_hal.procedure.precedence import Precedence, expected_breaks, strictness
from edge_hal.procedure.rules import Procedure

A, B, C, D, IDLE = range(5)


def test_positions_are_those_of_first_occurrences() -> None:
    order = Precedence([[A, B, A, C], [B, A]], 4)
    assert order.before().tolist() == [[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert order.together()[A].tolist() == [2, 2, 1, 0] and order.occurs().tolist() == [2, 2, 1, 0]
    weighted = order.before(np.array([3.0, 0.5]))
    assert (weighted[A, B], weighted[B, A]) == (3, 0.5)


def test_a_rule_is_surer_with_more_lists_and_where_the_others_are_strict() -> None:
    def sure(count: int, others: float) -> float:
        kept = np.array([count, *[others * count] * 9], np.float64)
        return float(strictness(np.round(kept), np.full(10, float(count)), directions=2)[0])

    assert sure(4, 1.0) < sure(20, 1.0) and sure(8, 0.5) < sure(40, 0.5)
    assert sure(8, 1.0) > 0.9 > 0.5 > sure(8, 0.5)
    broken = strictness(np.array([15.0, 20.0]), np.array([20.0, 20.0]), directions=2)
    assert broken[0] < 0.01
    assert strictness(np.array([0.0]), np.array([20.0]), directions=2)[0] < 1e-9  # its opposite is the rule


def test_identical_lists_give_every_rule() -> None:
    rules = learn_rules([[A, B, C, D]] * 8, 4)
    assert [sorted(needs) for needs in rules.requires] == [[], [A], [A, B], [A, B, C]]
    assert rules.optional == [False] * 4 and rules.repeatable == [False] * 4
    assert (rules.begins, rules.ends) == ({A}, {D})


def test_few_or_free_lists_give_none() -> None:
    assert learn_rules([], 4).requires == [{}] * 4
    one = learn_rules([[A, B, C, D]], 4)
    assert one.optional == [True] * 4 and one.requires == [{}] * 4
    rng = np.random.default_rng(0)
    free = learn_rules([rng.permutation(6).tolist() for _ in range(12)], 6)
    assert sum(map(len, free.requires)) == 0


def test_steps_that_are_left_out_or_repeated_are_optional_and_repeatable() -> None:
    lists = [[A, B, C, D], [A, C, D], [A, B, C, B, D]] * 6
    rules = learn_rules(lists, 4)
    assert rules.optional == [False, True, False, False]
    assert rules.repeatable == [False, True, False, False]
    assert set(rules.not_after[B]) == {D} and A in rules.requires[B]  # B may come after C, never after D
    assert not rules.not_after[A] and not rules.not_after[D]


def test_lists_of_several_cycles_are_split_and_background_is_left_out() -> None:
    lists = [[IDLE, A, B, IDLE, B, C, IDLE, A, B, C, A, B, C], [A, B, C], [A, B, C, IDLE, A, B, C]] * 4
    rules = learn_rules(lists, 5, IDLE)
    assert rules.repeatable[:3] == [False] * 3 and rules.optional[:3] == [False] * 3
    assert [sorted(needs) for needs in rules.requires[:3]] == [[], [A], [A, B]]
    assert rules.requires[IDLE] == {} and (rules.begins, rules.ends) == ({A}, {C})
    assert all(IDLE not in needs for needs in rules.requires)


def test_a_step_at_the_begin_and_after_the_end_of_one_cycle_does_not_split_it() -> None:
    lists = [[D, A, B, C], [A, B, C, D], [A, B, C]] * 8
    cycles, _, _ = split_cycles(lists)
    assert cycles == lists
    assert learn_rules(lists, 4).begins == {A}


def test_a_list_that_ends_with_a_step_that_also_comes_within_cycles_is_one_cycle() -> None:
    """D begins a quarter of the lists, and comes within cycles. After the last step it shows no other cycle."""
    lists = [*[[D, A, B, C], [A, D, B, C], [A, B, D, C], [A, B, C]] * 8, [D, A, B, C, D]]
    cycles, begins, ends = split_cycles(lists)
    assert cycles == lists and (begins, ends) == ({A, D}, {C})
    assert learn_rules(lists, 4).begins == {A, D} and C not in learn_rules(lists, 4).not_after[D]
    # A comes only at the begin: here another cycle has begun. So it has where more follows.
    assert split_cycles([*lists, [A, B, C, A]])[0][-2:] == [[A, B, C], [A]]
    assert split_cycles([*lists, [D, A, B, C, D, A, B]])[0][-2:] == [[D, A, B, C], [D, A, B]]
    # C comes within cycles too, but begins none: the rest is more than the end of a cycle.
    assert split_cycles([*lists, [D, A, B, C, D, C]])[0][-2:] == [[D, A, B, C], [D, C]]


def test_identical_lists_break_no_rule_and_lists_of_free_order_many() -> None:
    kept, count = np.full(10, 6.0), np.full(10, 6.0)
    assert expected_breaks(kept, count, directions=2).sum() < 0.01
    half = np.array([6.0] * 5 + [3.0] * 5)  # half of the orders are free: two in 64 such are kept by chance
    breaks = expected_breaks(half, count, directions=2)
    assert breaks[:5].sum() > 0.2 and breaks[5:] == pytest.approx(3.0, abs=0.1)
    more = expected_breaks(10 * half, 10 * count, directions=2)  # in ten times the work
    assert more[:5].sum() / 10 < 0.2 * breaks[:5].sum()


@pytest.mark.parametrize("most_false", [0.0, 0.2, 1.0, np.inf])
def test_the_rules_that_are_stored_are_the_safest(most_false: float) -> None:
    rng = np.random.default_rng(4)
    lists = [[A, *rng.permutation([B, C]).tolist(), D, *([IDLE] if rng.random() < 0.6 else [])] for _ in range(6)]
    every, stored = learn_rules(lists, 5), learn_rules(lists, 5, most_false=most_false)

    def rules_of(found: Rules) -> set[tuple[str, int, int]]:
        pairs = {("requires", b, a) for b, needs in enumerate(found.requires) for a in needs}
        steps = {("optional", s, 0) for s in range(5) if not found.optional[s]}
        return pairs | steps | {("repeatable", s, 0) for s in range(5) if not found.repeatable[s]}

    assert rules_of(stored) <= rules_of(every)
    assert (rules_of(stored) == rules_of(every)) == (most_false > 0.5) and bool(rules_of(stored)) == (most_false > 0)
    if most_false == 0.2:  # what holds of every step in all lists is safer than one order of many
        assert stored.optional[:4] == [False] * 4 and sum(map(len, stored.requires)) < sum(map(len, every.requires))


def test_rules_of_few_lists_rarely_call_right_work_wrong() -> None:
    """Step lists of a procedure in which half of the orders are free. More lists allow more rules."""
    rng = np.random.default_rng(7)
    names, hz = tuple("abcdef"), 10.0

    def draw() -> np.ndarray:
        middle = rng.permutation([1, 2, 3]).tolist()
        return np.repeat([0, *middle, 4, *([5] if rng.random() < 0.7 else [])], rng.integers(40, 60))

    def false_in_ten_minutes(procedure: Procedure, videos: list[np.ndarray]) -> float:
        found = [one for y in videos for one in deviations(procedure, follow_labels(y, len(names)), hz)]
        return 600 * sum(one.kind != "overdue" for one in found) / (sum(map(len, videos)) / hz)

    normal, false, count = [draw() for _ in range(100)], dict[int, list[float]](), dict[int, int]()
    for lists in (4, 8, 24):
        learned = [learn_procedure([draw() for _ in range(lists)], names, hz) for _ in range(12)]
        false[lists] = [false_in_ten_minutes(one, normal) for one in learned]
        count[lists] = sum(len(step.requires) for one in learned for step in one.steps.values())
    assert max(np.mean(each) for each in false.values()) < 1.0 and count[4] < count[8] < count[24]


def test_orders_of_different_lists_form_no_ring() -> None:
    rules = learn_rules([[D, A, B, 5], [D, B, C, 5], [D, C, A, 5]] * 12, 6)
    inside = {(a, b) for b in (A, B, C) for a in rules.requires[b] if a in (A, B, C)}
    assert len(inside) == 2 and inside < {(A, B), (B, C), (C, A)}


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_is_learned_is_a_valid_procedure_that_the_lists_can_follow(lists: list[list[int]]) -> None:
    names = ("a", "b", "c", "d", "idle")
    videos = [np.repeat(steps, 20) for steps in lists]
    found = learn_procedure(videos, names, 10.0, background=IDLE)
    assert Procedure.from_dict(json.loads(found.to_json())) == found
    tracker = Conformance(found, 10.0)
    for steps in lists:
        tracker.reset()
        for at, label in enumerate(steps):
            if not at or steps[at - 1] != label:
                tracker.decided(label, 20 * at, 20 * at + 5, 0.9)
        tracker.finish(20 * len(steps))


def test_limits_follow_the_durations() -> None:
    videos = [np.repeat([0, 1], [20 + n % 3, 50]) for n in range(10)]
    found = learn_procedure(videos, ("a", "idle"), 10.0, background=1)
    step = found.steps["a"]
    assert step.overdue_s is not None and step.overdue_s > 2.2 * 1.25 and found.steps["idle"].overdue_s is None
    assert 0 < step.shortest_s < 2.0 and found.steps["idle"].background
    few = learn_procedure(videos[:2], ("a", "idle"), 10.0, background=1).steps["a"]
    assert few.overdue_s is not None and few.overdue_s > step.overdue_s


@pytest.mark.parametrize("sure", [0.5, 0.999999])
def test_sure_is_the_limit_of_rules(sure: float) -> None:
    rules = learn_rules([[A, B, C]] * 4, 3, sure=sure)
    assert (rules.requires[C] != {}) == (sure == 0.5)


def test_a_learned_procedure_finds_what_is_changed_in_its_lists() -> None:
    names = ("a", "b", "c", "d")
    found = learn_procedure([np.repeat([A, B, C, D], 20)] * 8, names, 10.0)
    kinds = {}
    for name, steps in {"same": [A, B, C, D], "skipped": [A, C, D], "swapped": [A, C, B, D]}.items():
        tracker = Conformance(found, 10.0)
        told = [one for at, s in enumerate(steps) for one in tracker.decided(s, 20 * at, 20 * at, 1.0)]
        told += tracker.finish(20 * len(steps))
        fixed = {one.corrects for one in told if isinstance(one, Deviation)}
        kinds[name] = [one.kind for one in told if isinstance(one, Deviation) and one.number not in fixed]
    assert kinds == {"same": [], "skipped": ["skipped"], "swapped": ["out_of_order"]}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_recordings_in_a_row_keep_a_rule_that_holds_in_each_by_chance(order: list[int]) -> None:
    """D may come at any place of a recording, also again after the last step. Where it begins the next one, it is not
    late in the one before."""
    lists = [*[[D, A, B, C], [A, D, B, C], [A, B, D, C], [A, B, C]] * 10, [D, A, B, C, D]]
    names = ("a", "b", "c", "d")
    procedure = learn_procedure([np.repeat(one, 20) for one in lists], names, 10.0)
    assert "d" in procedure.steps["c"].requires and not procedure.steps["d"].requires
    stream = np.concatenate([np.repeat(lists[number], 20) for number in order])
    assert deviations(procedure, follow_labels(stream, 4), 10.0) == []
