"""Search for a good model among many restarts, without labels.

EM converges to a local optimum near its initialisation, and most initialisations end in a wrong one. Two scores tell
good models from bad ones: the likelihood, and the margin over the same model with free order, which is small if the
order explains nothing. Many restarts are trained on a few videos and the best of them on more (successive halving:
Jamieson and Talwalkar, AISTATS 2016). If these disagree, a genetic search combines them: a child takes the model of
each step from one of two parents, since different parents have found different steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.parallel import Workers, mapped
from edge_hal.progress import ProgressCount

from .em import Array, Candidate, HmmConfig, agreement, anneal, evaluate, initialise, refine
from .problem import Problem
from .transcript_chain import Batch, Counts

CHILD_ITERATIONS = 10
FINAL_ITERATIONS = 6
DUPLICATE_DISTANCE = 0.05
"""Two models are duplicates if their shares of time per sub-state differ by at most this much in total."""


@dataclass(frozen=True)
class SearchResult:
    """`best`: the final models, trained on all videos. `restarts`: the kept restarts before the genetic search. Both
    are sorted, the best first."""

    best: tuple[Candidate, ...]
    restarts: tuple[Candidate, ...]


@dataclass(frozen=True)
class Restart:
    """Trains a model from the log durations (K,) of an initialisation. May run in another process."""

    batches: Sequence[Batch]
    count: int
    config: HmmConfig

    def __call__(self, per_label: Array) -> Candidate:
        start = initialise(self.batches, self.count, self.config, per_label)
        return evaluate(self.batches, anneal(self.batches, *start, self.count, self.config), self.config)


@dataclass(frozen=True)
class Refined:
    """Trains a model on. May run in another process."""

    batches: Sequence[Batch]
    count: int
    config: HmmConfig

    def __call__(self, counts: Counts) -> Candidate:
        found = refine(self.batches, counts, self.count, self.config, CHILD_ITERATIONS)
        return evaluate(self.batches, found, self.config)


def search(
    problem: Problem,
    seed: int,
    restarts: int,
    progress: ProgressCount | None = None,
    workers: Workers = 1,
) -> SearchResult:
    """Search from `restarts` initialisations, the first of which is the uniform split. The search uses the videos that
    are short enough, and the final models are trained on all.

    Args:
        progress: called with the numbers of models trained and to train.
        workers: number of processes, or an executor. The result does not depend on it.
    """
    count, config, short = problem.count, problem.config, problem.short()
    rng = np.random.default_rng(seed)
    order = np.asarray(short)[rng.permutation(len(short))]
    few, more = (problem.batches(np.sort(order[:n]).tolist()) for n in (config.first_videos, config.more_videos))
    whole = problem.batches()
    size = min(config.population, restarts)
    children = min(8, max(restarts // 2, 1)) if size > 1 else 0
    total, done = restarts + size + config.generations * children, 0

    def counted(found: Iterable[Candidate]) -> list[Candidate]:
        nonlocal done
        candidates = []
        for candidate in found:
            done += 1
            candidates.append(candidate)
            if progress is not None:
                progress(done, total)
        return candidates

    # The first initialisation is the uniform split.
    durations = [
        np.exp((config.duration_spread if index else 0.0) * rng.normal(size=count)) for index in range(restarts)
    ]
    started = counted(mapped(Restart(few, count, config), durations, workers))
    started = rank(started, started)[:size]
    refined = Refined(more, count, config)
    first = counted(mapped(refined, [candidate.counts for candidate in started], workers))
    first = rank(first, first)
    population, voters = first, max(config.voters, 1)
    agree = agreement(more, first, config) >= config.agreement
    if agree:
        voters = max(len(first) // 2, 1)
    for _ in range(config.generations if children and not agree else 0):
        combined = []
        for _ in range(children):
            # Tournament selection: each parent is the better of two drawn at random.
            a, b = (int(rng.integers(len(population), size=2).min()) for _ in range(2))
            b = b if b != a else (a + 1) % len(population)
            from_a = rng.random(count) < 0.5
            combined.append(crossover(population[a].counts, population[b].counts, from_a, config.sub_states))
        trained = counted(mapped(refined, combined, workers))
        population = without_duplicates(rank([*population, *trained], first))[:size]
    if progress is not None and done < total:
        progress(total, total)  # the genetic search was not needed
    best = [
        evaluate(whole, refine(whole, candidate.counts, count, config, FINAL_ITERATIONS), config)
        for candidate in population[:voters]
    ]
    return SearchResult(tuple(best), tuple(first))


def rank(candidates: Sequence[Candidate], among: Sequence[Candidate]) -> list[Candidate]:
    """The candidates sorted by log-likelihood plus margin, the best first. Each of the two is divided by its standard
    deviation over `among`."""

    def scores(some: Sequence[Candidate]) -> Array:
        return np.array([[each.log_likelihood, each.margin] for each in some])

    total = scores(candidates) @ (1 / np.maximum(scores(among).std(axis=0), 1e-12))
    return [candidates[i] for i in np.argsort(-total, kind="stable")]


def without_duplicates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without duplicates of earlier ones, which would waste the genetic search."""
    chosen: list[Candidate] = []
    for each in candidates:
        share = each.counts.frames / each.counts.frames.sum()
        others = (other.counts.frames / other.counts.frames.sum() for other in chosen)
        if all(np.abs(share - other).sum() > DUPLICATE_DISTANCE for other in others):
            chosen.append(each)
    return chosen


def crossover(a: Counts, b: Counts, from_a: NDArray[np.bool_], sub_states: int) -> Counts:
    """A child of two models: the steps of `from_a` (K,) and a shared pause come from `a`, the other steps from `b`."""
    take = np.repeat(from_a, sub_states)
    take = np.append(take, np.ones(len(a.visits) - len(take), bool))
    return Counts(
        *(
            np.where(take.reshape(-1, *[1] * (getattr(a, name).ndim - 1)), getattr(a, name), getattr(b, name))
            for name in Counts.__dataclass_fields__
        )
    )
