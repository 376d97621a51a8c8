"""What lists with a mistake say of rules that all other lists keep."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib.learn_rules import learn_rules
from edge_hal.calib.rule_candidates import Candidate, judged_by_mistakes

A, B, C, D, E, F, IDLE = range(7)
ORDER = [A, B, C, D]
ALL_RULES = learn_rules([ORDER] * 12, 4)


def test_a_cycle_breaks_the_rules_that_it_does_not_keep() -> None:
    def broken(cycle: list[int]) -> set[tuple[str, int, int]]:
        rules = [Candidate(0.1, 0.9, "optional", A), Candidate(0.1, 0.9, "repeatable", A)]
        rules += [Candidate(0.1, 0.9, "requires", C, B), Candidate(0.1, 0.9, "not_after", A, B)]
        return {(rule.field, rule.step, rule.other) for rule in rules if rule.broken_by(cycle)}

    assert broken([A, B, C]) == set() and broken([A, C]) == set()  # a pair needs both
    assert broken([B, C]) == {("optional", A, -1)}
    assert broken([A, C, B]) == {("requires", C, B)}
    assert broken([A, B, A, C]) == {("repeatable", A, -1), ("not_after", A, B)}


@given(st.lists(st.lists(st.sampled_from(ORDER), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_a_rule_that_every_list_keeps_is_broken_by_none(lists: list[list[int]], seed: int) -> None:
    """`broken_by` and the counts of the learner mean the same."""
    lists = [[label for label, _ in itertools.groupby(one)] for one in lists]
    rules = learn_rules(lists, 4, sure=0.0)
    single = [one for one in lists if len(set(one)) == len(one)]
    if len(single) < len(lists):
        return  # a list with repeated steps may hold several cycles
    for step in range(4):
        for other in rules.requires[step]:
            always = all(one.index(other) < one.index(step) for one in lists if {step, other} <= set(one))
            broken = [Candidate(0.1, 0.9, "requires", step, other).broken_by(one) for one in lists]
            assert always is not any(broken)
    np.random.default_rng(seed).shuffle(lists)
    assert learn_rules(lists, 4, sure=0.0) == rules


def test_a_mistake_beside_another_broken_rule_shows_that_one_of_them_holds_by_chance() -> None:
    """E comes before C in all lists, by chance; F comes at any place."""
    rng = np.random.default_rng(0)

    def insert(steps: list[int], step: int) -> list[int]:
        place = int(rng.integers(len(steps) + 1))
        return [*steps[:place], step, *steps[place:]]

    lists = [insert([A, B, E, C, D] if n % 2 else ORDER, F) if n % 3 else ORDER for n in range(40)]
    assert E in learn_rules(lists, 6).requires[C]
    swapped = [B, A, C, E, D]  # two rules are broken: A before B, and E before C
    told = learn_rules(lists, 6, mistakes=[[B, A, C, D], swapped])
    assert E not in told.requires[C] and C not in told.not_after[E] and A in told.requires[B]
    kept = learn_rules(lists, 6, mistakes=[[A, B, C, E, D], [B, A, C, E, D]])  # this one breaks E before C alone
    assert E in kept.requires[C]
    assert learn_rules(lists, 6, mistakes=[ORDER, [F, *ORDER]]) == learn_rules(lists, 6)  # no mistake in them


@given(
    st.lists(
        st.one_of(
            st.sampled_from(ORDER).map(lambda step: [one for one in ORDER if one != step]),
            st.tuples(st.sampled_from(ORDER), st.integers(0, 4)).map(
                lambda more: [*ORDER[: more[1]], more[0], *ORDER[more[1] :]]
            ),
            st.permutations(ORDER),
        ),
        max_size=6,
    ),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_one_mistake_in_each_list_leaves_the_rules_of_a_strict_order(mistakes: list[list[int]], idle: bool) -> None:
    mistakes = [[label for label, _ in itertools.groupby(one)] for one in mistakes]
    if idle:
        mistakes = [[IDLE, *itertools.chain.from_iterable((label, IDLE) for label in one)] for one in mistakes]
    learned = learn_rules([ORDER] * 12, 7, IDLE, mistakes=mistakes)
    assert learned.requires[:4] == ALL_RULES.requires and learned.optional[:4] == ALL_RULES.optional
    assert learned.repeatable[:4] == ALL_RULES.repeatable


def test_right_work_breaks_no_rule_that_a_mistake_breaks_alone() -> None:
    rules = [Candidate(0.2, 0.9, "optional", A), Candidate(0.3, 0.9, "optional", B)]
    assert judged_by_mistakes(rules, [[B, C], [A, B, C]]) == [Candidate(0.0, 0.9, "optional", A), rules[1]]
    assert judged_by_mistakes(rules, [[C]]) == [rules[0]]  # the safest is taken for the mistake
    assert judged_by_mistakes(rules, [[C], [A]]) == [Candidate(0.0, 0.9, "optional", B)]
    assert [rule.breaks for rule in judged_by_mistakes(rules, [[B], [A], [C]])] == [0, 0]  # the third has two mistakes


def test_few_lists_store_more_rules_with_lists_of_mistakes() -> None:
    lists = [[A, B, C, D], [A, C, B, D]] * 4
    few = learn_rules(lists, 4, most_false=0.0)
    more = learn_rules(lists, 4, most_false=0.0, mistakes=[[A, B, D], [A, C, B]])
    assert few.optional == [True] * 4 and more.optional == [True, True, False, False]


def test_lists_of_several_cycles_are_not_judged_by_mistakes() -> None:
    lists = [[A, B, C, D, A, B, C, D]] * 12
    assert learn_rules(lists, 4, mistakes=[[B, A, D, C], [A, B]]) == learn_rules(lists, 4)
