"""A conditional logit model of the next step (McFadden 1974): which of all steps comes, given the features of each.

It is fitted on the lists from which the features are counted, each list with the counts of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from step_graph import FEATURES, MISSING, Array, Assembly, AssemblyState, Candidates, Step, StepCounts, walk

RIDGE = 2.0
FLOOR = 1e-4
"""Chance of a step that no list has."""


@dataclass(frozen=True)
class StepModel:
    """A fitted conditional logit model.

    Attributes:
        mean, scale: (F,) of the features, for standardising.
        weight: (F,).
    """

    mean: Array
    scale: Array
    weight: Array

    def surprise(self, candidates: Candidates, features: Array) -> Array:
        """(E + 1,): log of the chance of the likeliest step over that of each step, from 0 up. The last entry is for a
        step that no list has."""
        utility = (features - self.mean) / self.scale @ self.weight
        utility = np.where(candidates.known, utility, -np.inf)
        chance = np.exp(utility - utility.max(initial=0.0))
        chance = np.append(chance / max(chance.sum(), 1e-12), 0.0)
        return np.asarray(np.log(chance.max() + FLOOR) - np.log(chance + FLOOR))

    def missing(self, features: Array) -> Array:
        """(E,): how much the utility of each step is lowered by what is missing before it."""
        columns = list(MISSING)
        lowered = (features[:, columns] - self.mean[columns]) / self.scale[columns] @ self.weight[columns]
        return np.asarray(-lowered)


def fit(counts: StepCounts, lists: Sequence[Assembly]) -> StepModel:
    """The model of `counts`, fitted on the lists it was counted from. Each list is scored without its own counts."""
    rows, choices, known = [], [], []
    for number, one in enumerate(lists):
        candidates = Candidates(counts, one.product, number)
        for step, state in walk(one.steps):
            index = counts.index.get(step.pair, -1)
            if not step.apart and index >= 0 and candidates.known[index]:
                rows.append(candidates.features(state))
                choices.append(index)
                known.append(candidates.known)
    if not rows:  # no step is in two lists, so there is nothing to weigh features by
        return StepModel(np.zeros(FEATURES), np.ones(FEATURES), np.zeros(FEATURES))
    features, chosen, allowed = np.array(rows), np.array(choices), np.array(known)
    mean = features.mean(axis=(0, 1))
    scale = features.std(axis=(0, 1)) + 1e-9
    features = (features - mean) / scale
    return StepModel(mean, scale, _newton(features, chosen, allowed))


def _newton(features: Array, chosen: NDArray[np.int64], allowed: NDArray[np.bool_]) -> Array:
    """Weights with the largest penalised likelihood: features (n, E, F), chosen (n,), allowed (n, E) -> (F,)."""
    count, size = len(chosen), features.shape[2]
    own = features[np.arange(count), chosen]

    def chances(weight: Array) -> tuple[float, Array]:
        utility = np.where(allowed, features @ weight, -np.inf)
        top = utility.max(axis=1, keepdims=True)
        chance = np.exp(utility - top)
        total = chance.sum(axis=1, keepdims=True)
        log_likelihood = float((own @ weight - top[:, 0] - np.log(total[:, 0])).sum())
        return log_likelihood - 0.5 * RIDGE * float(weight @ weight), chance / total

    weight = np.zeros(size)
    value, chance = chances(weight)
    for _ in range(30):
        expected = np.einsum("ne,nef->nf", chance, features)
        gradient = (own - expected).sum(axis=0) - RIDGE * weight
        weighted = (features * np.sqrt(chance)[:, :, None]).reshape(-1, size)
        hessian = weighted.T @ weighted - expected.T @ expected + RIDGE * np.eye(size)
        step, length = np.linalg.solve(hessian, gradient), 1.0
        while length > 1e-6:
            new_value, new_chance = chances(weight + length * step)
            if new_value >= value:
                break
            length /= 2
        gained, weight, value, chance = new_value - value, weight + length * step, new_value, new_chance
        if gained < 1e-6:
            break
    return weight


@dataclass(frozen=True)
class Judged:
    """How surprising a step is, in nats from 0 up. `order`: the same, and what is missing before it counts twice."""

    surprise: float
    order: float


def judge(model: StepModel, counts: StepCounts, candidates: Candidates, state: AssemblyState, step: Step) -> Judged:
    """A step that joins, after what was done."""
    features = candidates.features(state)
    index = counts.index.get(step.pair, -1)
    surprise = model.surprise(candidates, features)
    if index < 0 or not candidates.known[index]:
        return Judged(float(surprise[-1]), float(surprise[-1]))
    return Judged(float(surprise[index]), float(surprise[index] + model.missing(features)[index]))


def correct_and_wrong(
    model: StepModel, counts: StepCounts, lists: Sequence[Assembly]
) -> tuple[list[Judged], list[float]]:
    """The lists' own steps, each judged without the counts of its list, and the surprise at steps that are probably
    wrong: one from later in the same list, and one of any list, drawn by how often it occurs."""
    rng = np.random.default_rng(0)
    correct, wrong = [], []
    for number, one in enumerate(lists):
        candidates = Candidates(counts, one.product, number)
        often = counts.order.present.sum(axis=0) * candidates.known
        steps = [step for step in one.steps if not step.apart]
        for position, (step, state) in enumerate(walk(steps)):
            correct.append(judge(model, counts, candidates, state, step))
            later = [other for other in steps[position + 1 :] if other.pair != step.pair]
            if later:
                early = later[int(rng.integers(len(later)))]
                wrong.append(judge(model, counts, candidates, state, early).surprise)
            if often.any():
                surprise = model.surprise(candidates, candidates.features(state))
                wrong.append(float(surprise[rng.choice(len(often), p=often / often.sum())]))
    return correct, wrong
