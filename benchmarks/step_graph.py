"""How likely each next step is, learned from lists of steps of many products, of which most occur in few lists.

A step joins or separates two parts (verb, this, that). What is known of one product is little, so each count is made
three times: weighted towards the same product, over all products alike, and weighted towards lists that hold what was
done so far. Products are alike by their name: `c09b` and `c09c` are of one family, `c09b` and `c10a` of one series.

The counts give features of each candidate step: how often it occurs, how much of what comes before it is still missing
(`edge_hal.procedure.precedence`), what it follows, which parts are new, which are connected already. `step_model.py`
weighs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.procedure.precedence import Precedence

Array = NDArray[np.float64]
Pair = tuple[str, str]

SAME = (20.0, 5.0, 1.0, 0.1)
MIXED = (8.0, 4.0, 2.0, 1.0)
"""Weights of a list of the same product, family, series, or none of these."""
OTHER_STEP = 0.3
"""A list that lacks a step that was done has this much less weight."""
FEATURES = 12
MISSING = (3, 4)
"""The features that say how much of what comes before a step is missing, as steps and as parts."""


@dataclass(frozen=True)
class Step:
    """One step: two parts are joined, or separated if `apart`."""

    this: str
    that: str
    apart: bool = False

    @property
    def pair(self) -> Pair:
        """The two parts. Which of them is moved is not always noted alike."""
        return (self.this, self.that) if self.this <= self.that else (self.that, self.this)


@dataclass(frozen=True)
class Assembly:
    """The steps of one list, in order, and the name of the product."""

    product: str
    steps: Sequence[Step]


class StepCounts:
    """What the lists say of E pairs of parts and P parts, for lists weighted as wanted."""

    def __init__(self, lists: Sequence[Assembly]) -> None:
        self.products = [one.product for one in lists]
        joined = [[step.pair for step in one.steps if not step.apart] for one in lists]
        self.pairs = sorted({pair for one in joined for pair in one})
        self.parts = sorted({part for pair in self.pairs for part in pair})
        self.index = {pair: number for number, pair in enumerate(self.pairs)}
        self.part_index = {part: number for number, part in enumerate(self.parts)}
        self.of_pair = np.array([[self.part_index[part] for part in pair] for pair in self.pairs]).reshape(-1, 2)
        numbers = [[self.index[pair] for pair in one] for one in joined]
        self.order = Precedence(numbers, len(self.pairs))
        introduced = [[self.part_index[part] for pair in one for part in pair] for one in joined]
        # Positions of parts are those of the steps that bring them, so that they compare with positions of steps.
        self.part_first = np.ceil((Precedence(introduced, len(self.parts)).first - 1) / 2)
        self.follows = [
            [(before, after) for before, after in zip([len(self.pairs), *one], one, strict=False)] for one in numbers
        ]

    def weights(self, product: str, by: Sequence[float], without: int | None) -> Array:
        """(lists,): one weight for each list, 0 for the list `without`."""
        found = np.array([by[likeness(product, other)] for other in self.products], np.float64)
        if without is not None:
            found[without] = 0.0
        return found

    def follow_counts(self, weight: Array) -> Array:
        """(E + 1, E): how often one pair follows another; the last row is the begin of a list."""
        found = np.zeros((len(self.pairs) + 1, len(self.pairs)))
        for pairs, one in zip(self.follows, weight, strict=True):
            for before, after in pairs:
                found[before, after] += one
        return found


def likeness(a: str, b: str) -> int:
    """0 for the same product, 1 for one family, 2 for one series, 3 for none of these.

    A name with a number is that of a series, the number of a family in it, and the letter of a variant. Names without
    a number say nothing of what is alike.
    """
    if a == b:
        return 0
    named = [re.fullmatch(r"(\D*)(\d+)[A-Za-z]*", name) for name in (a, b)]
    if named[0] is None or named[1] is None or named[0][1] != named[1][1]:
        return 3
    return 1 if named[0][2] == named[1][2] else 2


class Candidates:
    """The features of all E pairs as the next step of an assembly of one product.

    Args:
        without: a list of `counts` that does not count.
    """

    def __init__(self, counts: StepCounts, product: str, without: int | None = None) -> None:
        self._counts = counts
        same, alike = counts.weights(product, SAME, without), np.ones(len(counts.products))
        if without is not None:
            alike[without] = 0.0
        self._mixed = counts.weights(product, MIXED, without)
        present = counts.order.present.astype(np.float64)
        self._often = [np.log(w @ present / (w.sum() + 1) + 0.01) for w in (same, alike)]
        self.known = alike @ present > 0
        before = counts.order.before(alike)
        self._before = (before + 0.3) / (before + before.T + 1.3) * (before + before.T > 0)
        first, part_first = counts.order.first, counts.part_first
        part_before, both = (np.zeros((len(counts.parts), len(counts.pairs))) for _ in range(2))
        for number in np.flatnonzero(alike):
            pairs, parts = np.flatnonzero(present[number]), np.flatnonzero(np.isfinite(part_first[number]))
            both[np.ix_(parts, pairs)] += 1
            part_before[np.ix_(parts, pairs)] += part_first[number, parts, None] < first[number, pairs]
        self._part_before = (part_before + 0.3) / (both + 1.3) * (both > 0)
        if len(counts.pairs):
            self._part_before[counts.of_pair, np.arange(len(counts.pairs))[:, None]] = 0.0  # its own parts
        self._follow = [counts.follow_counts(w) for w in (same, alike)]

    def features(self, state: AssemblyState) -> Array:
        """(E, FEATURES) after what was done."""
        counts, size = self._counts, len(self._counts.pairs)
        done = np.zeros(size, bool)
        done[[counts.index[pair] for pair in state.joined if pair in counts.index]] = True
        group = state.groups()
        near = [[group.get(part, -1 - number) for number, part in enumerate(pair)] for pair in counts.pairs]
        connected = np.array([a == b for a, b in near]) if size else np.zeros(0, bool)
        there = np.array([part in group for part in counts.parts])
        lacking = (~counts.order.present[:, done]).sum(axis=1)
        weight = self._mixed * OTHER_STEP ** (lacking - lacking.min())
        weight *= self._mixed.sum() / max(weight.sum(), 1e-12)
        holds = weight @ counts.order.present / (weight.sum() + 1)
        parts = weight @ np.isfinite(counts.part_first) / (weight.sum() + 1)
        missing = -np.log(1 - np.minimum((holds * ~(done | connected))[:, None] * self._before, 0.97)).sum(axis=0)
        missing_parts = -np.log(1 - np.minimum((parts * ~there)[:, None] * self._part_before, 0.97)).sum(axis=0)
        row = size if state.last is None else counts.index.get(state.last, -1)
        follow = [
            np.log((f[row] + 0.5) / (f[row].sum() + 5)) if row >= 0 else np.full(size, -2.3) for f in self._follow
        ]
        new = (~there[counts.of_pair]).sum(axis=1)
        alone = counts.of_pair[:, 0] == counts.of_pair[:, 1]  # two parts of one name
        new = np.where(alone, np.minimum(new, 1), new)
        late = (done[:, None] * self._before.T).max(axis=0, initial=0.0)
        return np.stack(
            [
                *self._often,
                np.log(holds + 0.01),
                missing,
                missing_parts,
                *follow,
                new == 1,
                new == 2,
                late,
                done,
                connected & ~done,
            ],
            axis=1,
        ).astype(np.float64)


class AssemblyState:
    """What is joined now, in the order in which it was joined, and the last pair that was."""

    def __init__(self) -> None:
        self.joined: dict[Pair, None] = {}
        self.last: Pair | None = None

    def add(self, step: Step) -> None:
        if step.apart:
            self.joined.pop(step.pair, None)
        else:
            self.joined[step.pair] = None
            self.last = step.pair

    def groups(self) -> dict[str, int]:
        """The number of the connected group of each part that is joined to another or was placed."""
        group: dict[str, int] = {}
        for number, (a, b) in enumerate(self.joined):
            old = {group[part] for part in (a, b) if part in group}
            group |= {part: number for part, known in group.items() if known in old} | {a: number, b: number}
        return group


def walk(steps: Sequence[Step]) -> Iterator[tuple[Step, AssemblyState]]:
    """Each step with the state before it."""
    state = AssemblyState()
    for step in steps:
        yield step, state
        state.add(step)
