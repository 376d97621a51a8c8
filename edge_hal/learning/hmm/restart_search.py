"""Which of many guesses to trust: a search among hidden Markov models, without labels.

EM from one guess ends where it began, and most guesses are wrong. But what a model comes to tells: its likelihood, and
its margin over itself free to take any order, which is small where the order explains nothing. So many guesses are
tried on a few videos (successive halving: Jamieson and Talwalkar, AISTATS 2016), and the best have children: a model
that knows some steps and one that knows others give one that knows both, step by step taken from either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.progress import ProgressCount

from .em import Array, Candidate, agreement, anneal, guess, judge, refine
from .parallel import forked
from .problem import Problem
from .transcript_chain import Counts

CHILD_ITERATIONS = 10
FINAL_ITERATIONS = 6
SAME = 0.05
"""Two models that give each sub-state its share of time but for this much of all are one."""


@dataclass(frozen=True)
class Found:
    """`best`: fitted to all videos, best first; `kept`: the guesses before any had children, best first."""

    best: tuple[Candidate, ...]
    kept: tuple[Candidate, ...]


def search(
    problem: Problem,
    seed: int,
    restarts: int,
    progress: ProgressCount | None = None,
    workers: int = 1,
) -> Found:
    """Search from `restarts` guesses, the first of which is the uniform split, with videos that are short enough for
    it; the outcome is fitted to all.

    Args:
        progress: called with (models fitted, models to fit).
        workers: processes; the result does not depend on them.
    """
    count, config, among = problem.count, problem.config, problem.short()
    rng = np.random.default_rng(seed)
    order = np.asarray(among)[rng.permutation(len(among))]
    few, more = (problem.batches(np.sort(order[:n]).tolist()) for n in (config.first_videos, config.more_videos))
    whole = problem.batches()
    kept = min(config.kept, restarts)
    children = min(8, max(restarts // 2, 1)) if kept > 1 else 0
    total, done = restarts + kept + config.generations * children, 0

    def begun(per_label: Array) -> Candidate:
        counts = anneal(few, *guess(few, count, config, per_label), count, config)
        return judge(few, counts, config)

    def grown(counts: Counts) -> Candidate:
        return judge(more, refine(more, counts, count, config, CHILD_ITERATIONS), config)

    def told(found: Iterable[Candidate]) -> list[Candidate]:
        nonlocal done
        candidates = []
        for each in found:
            done += 1
            candidates.append(each)
            if progress is not None:
                progress(done, total)
        return candidates

    # The first guess is the uniform split: it is what the field starts from.
    drawn = [np.exp((config.duration_spread if index else 0.0) * rng.normal(size=count)) for index in range(restarts)]
    guesses = told(forked(begun, drawn, workers))
    guesses = ranked(guesses, guesses)[:kept]
    first = told(forked(grown, [each.counts for each in guesses], workers))
    first = ranked(first, first)
    population, voters = first, max(config.consensus, 1)
    sure = agreement(more, first, config) >= config.agreed
    if sure:
        voters = max(len(first) // 2, 1)
    for _ in range(config.generations if children and not sure else 0):
        born = []
        for _ in range(children):
            # The better of two drawn, twice: good parents, not always the same.
            a, b = (int(rng.integers(len(population), size=2).min()) for _ in range(2))
            b = b if b != a else (a + 1) % len(population)
            mine = rng.random(count) < 0.5
            born.append(crossed(population[a].counts, population[b].counts, mine, config.sub_states))
        grown_up = told(forked(grown, born, workers))
        population = distinct(ranked([*population, *grown_up], first))[:kept]
    if progress is not None and done < total:
        progress(total, total)  # there was no need of children
    best = [
        judge(whole, refine(whole, each.counts, count, config, FINAL_ITERATIONS), config)
        for each in population[:voters]
    ]
    return Found(tuple(best), tuple(first))


def ranked(candidates: Sequence[Candidate], among: Sequence[Candidate]) -> list[Candidate]:
    """Best first: by log-likelihood and margin, each in units of its spread among `among`."""

    def measured(some: Sequence[Candidate]) -> Array:
        return np.array([[each.log_likelihood, each.margin] for each in some])

    score = measured(candidates) @ (1 / np.maximum(measured(among).std(axis=0), 1e-12))
    return [candidates[i] for i in np.argsort(-score, kind="stable")]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without those that came to the same as one before them: a population of copies finds nothing."""
    chosen: list[Candidate] = []
    for each in candidates:
        share = each.counts.frames / each.counts.frames.sum()
        others = (other.counts.frames / other.counts.frames.sum() for other in chosen)
        if all(np.abs(share - other).sum() > SAME for other in others):
            chosen.append(each)
    return chosen


def crossed(a: Counts, b: Counts, mine: NDArray[np.bool_], sub_states: int) -> Counts:
    """The steps of `mine` (K,) as `a` knows them, the others as `b` does; a shared pause from `a`."""
    take = np.repeat(mine, sub_states)
    take = np.append(take, np.ones(len(a.visits) - len(take), bool))
    return Counts(
        *(
            np.where(take.reshape(-1, *[1] * (getattr(a, name).ndim - 1)), getattr(a, name), getattr(b, name))
            for name in Counts.__dataclass_fields__
        )
    )
