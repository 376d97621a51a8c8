"""The rules of a procedure, learned from lists of steps: cycles, and what each step requires, in all lists.

A list may hold several cycles. A cycle begins with a step with which lists begin, right after one with which lists end.
That step must mostly have occurred before in the list, or it only belongs to the end of the one cycle.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_hal.procedure.check import find_ring
from edge_hal.procedure.precedence import Precedence, strictness

SURE = 0.85
"""A rule is stored if it is strict with at least this probability. In simulated sessions of the workbench's procedure
rules of 8 to 60 lists then give under one false deviation of the order in ten minutes, and up to two with 0.8."""
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


def learn_rules(lists: Sequence[Sequence[int]], steps: int, background: int | None = None, sure: float = SURE) -> Rules:
    """The rules that lists of steps keep.

    Args:
        lists: the steps of each recording in order, as labels 0 .. steps - 1.
        background: a label that is no step.
        sure: see `SURE`. A higher value gives fewer false deviations, and misses more.
    """
    rules = Rules([{} for _ in range(steps)], [{} for _ in range(steps)], [True] * steps, [True] * steps)
    kept = [_without(one, background) for one in lists]
    kept = [one for one in kept if one]
    if not kept:
        return rules
    cycles, begins, rules.ends = split_cycles(kept)
    # A step that also occurs after the last one of a cycle does not show that another begins.
    rules.begins = {step for step in begins if not any(_after(cycle, rules.ends, step) for cycle in cycles)}
    order = Precedence(cycles, steps)
    # A recording may begin or end within a cycle, if it holds several; otherwise it is one.
    split = len(cycles) > len(kept)
    whole = np.array([not split or (one[0] in begins and one[-1] in rules.ends) for one in cycles])
    known = np.flatnonzero(order.present.any(axis=0))

    held = order.present[whole][:, known].sum(axis=0).astype(np.float64)
    always = strictness(held, np.full(len(known), float(whole.sum())))
    for label, chance in zip(known.tolist(), always, strict=True):
        rules.optional[label] = bool(chance < sure)

    times = np.array([np.bincount(one, minlength=steps) for one in cycles])[:, known]
    once = strictness((times == 1).sum(axis=0).astype(np.float64), (times > 0).sum(axis=0).astype(np.float64))
    for label, chance in zip(known.tolist(), once, strict=True):
        rules.repeatable[label] = bool(chance < sure)

    for (a, b), chance in _orders(order).items():
        if chance >= sure and not (b in rules.begins and not rules.optional[a]):
            rules.requires[b][a] = round(chance, 4)
    _break_rings(rules.requires)
    for (a, b), chance in _closures(cycles, order).items():
        if chance >= sure and rules.repeatable[a]:  # of a step that occurs once, `requires` says the same
            rules.not_after[a][b] = round(chance, 4)
    return rules


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
    cycles: list[list[int]] = []
    for one in lists:
        cycles.append([one[0]])
        for before, step in itertools.pairwise(one):
            if before in ends and step in again:
                cycles.append([])
            cycles[-1].append(step)
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


def _orders(order: Precedence) -> dict[tuple[int, int], float]:
    """(a, b) -> how sure it is that a comes before b, for pairs that occur together."""
    together, before = order.together(), order.before()
    a, b = np.nonzero(np.triu(together, 1) > 0)
    kept: NDArray[np.float64] = before[a, b]
    forth = strictness(kept, together[a, b], directions=2)
    back = strictness(together[a, b] - kept, together[a, b], directions=2)
    pairs = zip(a.tolist(), b.tolist(), forth.tolist(), back.tolist(), strict=True)
    return {pair: sure for x, y, f, r in pairs for pair, sure in (((x, y), f), ((y, x), r))}


def _closures(cycles: Sequence[Sequence[int]], order: Precedence) -> dict[tuple[int, int], float]:
    """(a, b) -> how sure it is that no a comes after the first b, for pairs that occur together."""
    lengths = np.array([len(one) for one in cycles])
    last = lengths[:, None] - 1 - Precedence([one[::-1] for one in cycles], order.first.shape[1]).first
    together = order.together()
    a, b = np.nonzero(np.triu(together, 1) > 0)
    both = order.present[:, a] & order.present[:, b]
    forth, back = (
        ((last[:, x] < order.first[:, y]) & both).sum(axis=0).astype(np.float64) for x, y in ((a, b), (b, a))
    )
    sure = strictness(np.maximum(forth, back), together[a, b], directions=2)
    pairs = np.where(forth >= back, (a, b), (b, a)).T
    return {(x, y): chance for (x, y), chance in zip(pairs.tolist(), sure.tolist(), strict=True)}


def _break_rings(requires: list[dict[int, float]]) -> None:
    """Leave out the least sure order of each ring. Pairs that occur in different lists can form one."""
    while ring := find_ring({str(label): [str(a) for a in needs] for label, needs in enumerate(requires)}):
        steps = [int(step) for step in ring]
        later, before = min(itertools.pairwise(steps), key=lambda pair: requires[pair[0]][pair[1]])
        del requires[later][before]
