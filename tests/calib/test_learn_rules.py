"""Rules learned from step lists: what is strict is stored, what is chance is not, and cycles are found within lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.calib.learn_rules import learn_rules, split_cycles
from edge_hal.procedure.conformance import Conformance, Deviation
from edge_hal.procedure.precedence import Precedence, strictness
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
