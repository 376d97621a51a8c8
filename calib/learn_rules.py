"""The rules of a procedure, learned from lists of steps: cycles, and what each step requires, in all lists.

A list may hold several cycles. A cycle begins with a step with which lists begin, right after one with which lists end.
That step must mostly have occurred before in the list, or it only belongs to the end of the one cycle. A list that ends
with such steps ends the cycle with them, if they also come within cycles: nothing shows that another one began.

Rules of few lists may hold by chance, and would be broken by work that is right. So each rule has an expectation of how
often that happens, and only as many rules are stored as all of them together may be broken. Lists with mistakes say
more of them (`rule_candidates.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_hal.procedure.check import find_ring
from edge_hal.procedure.precedence import Precedence, expected_breaks, strictness

from .rule_candidates import Candidate, judged_by_mistakes

SURE = 0.85
"""A rule is stored only if it is strict with at least this probability."""
ENDS = 0.2
"""A step begins, or ends, cycles if at least this share of the lists begins, or ends, with it."""
RETURNS = 0.8
"""Where a step begins another cycle, it has occurred before in the list in at least this share of the cases."""


@dataclass
class Rules:
    """Of K steps. `requires`, `not_after`: for each step, the others and how sure that is. All as in `Step`."""

    requires: list[dict[int, float]]
    not_after: list[dict[int, float]]
    optional: list[bool]
    repeatable: list[bool]
    begins: set[int] = field(default_factory=set)
    ends: set[int] = field(default_factory=set)


def learn_rules(
    lists: Sequence[Sequence[int]],
    steps: int,
    background: int | None = None,
    sure: float = SURE,
    most_false: float = math.inf,
    mistakes: Sequence[Sequence[int]] = (),
) -> Rules:
    """The rules that lists of steps keep.

    Args:
        lists: the steps of each recording in order, as labels 0 .. steps - 1.
        background: a label that is no step.
        sure: see `SURE`. A higher value gives fewer false deviations, and misses more.
        most_false: how often right work of the same amount may break the stored rules, all together, by expectation.
        mistakes: the steps of recordings in which the procedure was not followed, with one mistake each. They are not
            used if a list holds several cycles, because a mistake hides where one ends.
    """
    rules = Rules([{} for _ in range(steps)], [{} for _ in range(steps)], [True] * steps, [True] * steps)
    kept = [_without(one, background) for one in lists]
    kept = [one for one in kept if one]
    if not kept:
        return rules
    cycles, begins, rules.ends = split_cycles(kept)
    # A recording may begin or end within a cycle, if it holds several; otherwise it is one.
    split = len(cycles) > len(kept)
    whole = np.array([not split or (one[0] in begins and one[-1] in rules.ends) for one in cycles])

    found = [rule for rule in _candidates(cycles, whole, steps) if rule.chance >= sure]
    if not split:
        found = judged_by_mistakes(found, [_without(one, background) for one in mistakes])
    needed = {rule.step for rule in found if rule.field == "optional"}
    once = {rule.step for rule in found if rule.field == "repeatable"}
    certain = {step for step in begins if not any(_after(cycle, rules.ends, step) for cycle in cycles)}
    for rule in sorted(found):
        if rule.field == "requires" and rule.step in certain and rule.other in needed:
            continue
        if rule.field == "not_after" and rule.step in once:  # `requires` says the same
            continue
        most_false -= rule.breaks
        if most_false < 0:
            break
        if rule.field == "requires":
            rules.requires[rule.step][rule.other] = round(rule.chance, 4)
        elif rule.field == "not_after":
            rules.not_after[rule.step][rule.other] = round(rule.chance, 4)
        else:
            (rules.optional if rule.field == "optional" else rules.repeatable)[rule.step] = False
    # A step that also occurs after the last one of a cycle does not show that another begins. If it is optional or
    # repeatable, the step that comes next shows to which cycle it belongs (`cycle_rules.py`).
    rules.begins = {step for step in begins if step in certain or rules.optional[step] or rules.repeatable[step]}
    _break_rings(rules.requires)
    return rules


def _candidates(cycles: Sequence[Sequence[int]], whole: NDArray[np.bool_], steps: int) -> list[Candidate]:
    """The rules of all steps and pairs of steps that occur. `whole`: (cycles,)"""
    order = Precedence(cycles, steps)
    known = np.flatnonzero(order.present.any(axis=0))
    held = order.present[whole][:, known].sum(axis=0).astype(np.float64)
    found = _of_steps("optional", known, held, np.full(len(known), float(whole.sum())))
    times = np.array([np.bincount(one, minlength=steps) for one in cycles])[:, known]
    counts = ((times == 1).sum(axis=0).astype(np.float64), (times > 0).sum(axis=0).astype(np.float64))
    found += _of_steps("repeatable", known, *counts)
    return [*found, *_orders(order), *_closures(cycles, order)]


def _of_steps(
    name: Literal["optional", "repeatable"],
    known: NDArray[np.intp],
    kept: NDArray[np.float64],
    count: NDArray[np.float64],
) -> list[Candidate]:
    chance = strictness(kept, count)
    breaks = expected_breaks(kept, count)
    rows = zip(breaks.tolist(), chance.tolist(), known.tolist(), strict=True)
    return [Candidate(often, sure, name, step) for often, sure, step in rows]


def split_cycles(lists: Sequence[Sequence[int]]) -> tuple[list[list[int]], set[int], set[int]]:
    """The cycles of all lists, and the steps with which cycles begin and end. The lists are not empty."""
    begins, ends = _frequent([one[0] for one in lists]), _frequent([one[-1] for one in lists])
    begins, ends = begins - ends, ends - begins  # a step at both places marks neither
    returns: dict[int, list[bool]] = {}
    for one in lists:
        for at, (before, step) in enumerate(itertools.pairwise(one), 1):
            if before in ends and step in begins:
                returns.setdefault(step, []).append(step in one[:at])
    again = {step for step, found in returns.items() if sum(found) >= RETURNS * len(found)}
    inside = {step for one in lists for before, step in itertools.pairwise(one) if before not in begins | ends}
    cycles: list[list[int]] = []
    for one in lists:
        cycles.append([one[0]])
        for before, step in itertools.pairwise(one):
            if before in ends and step in again:
                cycles.append([])
            cycles[-1].append(step)
        if len(cycles[-1]) < len(one) and inside.issuperset(cycles[-1]) and begins.issuperset(cycles[-1]):
            last = cycles.pop()
            cycles[-1] += last
    return cycles, begins, ends


def _after(cycle: Sequence[int], ends: set[int], step: int) -> bool:
    """Whether `step` occurs after one of `ends`."""
    first = next((position for position, one in enumerate(cycle) if one in ends), len(cycle))
    return step in cycle[first + 1 :]


def _frequent(steps: Sequence[int]) -> set[int]:
    return {step for step in steps if steps.count(step) >= ENDS * len(steps)}


def _without(steps: Sequence[int], background: int | None) -> list[int]:
    """Without background, and one entry where a step goes on after it."""
    kept: list[int] = []
    for step in steps:
        if step != background and (not kept or kept[-1] != step):
            kept.append(int(step))
    return kept


def _orders(order: Precedence) -> list[Candidate]:
    """Which step comes before which, of pairs that occur together."""
    together, before = order.together(), order.before()
    a, b = np.nonzero(np.triu(together, 1) > 0)
    found = []
    for first, then, kept in ((a, b, before[a, b]), (b, a, together[a, b] - before[a, b])):
        chance = strictness(kept, together[a, b], directions=2)
        breaks = expected_breaks(kept, together[a, b], directions=2)
        rows = zip(breaks.tolist(), chance.tolist(), then.tolist(), first.tolist(), strict=True)
        found += [Candidate(often, sure, "requires", step, other) for often, sure, step, other in rows]
    return found


def _closures(cycles: Sequence[Sequence[int]], order: Precedence) -> list[Candidate]:
    """Which step does not come after the first of which, of pairs that occur together."""
    lengths = np.array([len(one) for one in cycles])
    last = lengths[:, None] - 1 - Precedence([one[::-1] for one in cycles], order.first.shape[1]).first
    together = order.together()
    a, b = np.nonzero(np.triu(together, 1) > 0)
    both = order.present[:, a] & order.present[:, b]
    forth, back = (
        ((last[:, x] < order.first[:, y]) & both).sum(axis=0).astype(np.float64) for x, y in ((a, b), (b, a))
    )
    kept, count = np.maximum(forth, back), together[a, b]
    chance = strictness(kept, count, directions=2)
    breaks = expected_breaks(kept, count, directions=2)
    pairs = np.where(forth >= back, (a, b), (b, a)).T
    rows = zip(breaks.tolist(), chance.tolist(), pairs.tolist(), strict=True)
    return [Candidate(often, sure, "not_after", x, y) for often, sure, (x, y) in rows]


def _break_rings(requires: list[dict[int, float]]) -> None:
    """Leave out the least sure order of each ring. Pairs that occur in different lists can form one."""
    while ring := find_ring({str(label): [str(a) for a in needs] for label, needs in enumerate(requires)}):
        steps = [int(step) for step in ring]
        later, before = min(itertools.pairwise(steps), key=lambda pair: requires[pair[0]][pair[1]])
        del requires[later][before]
