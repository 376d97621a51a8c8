"""Alignment where only the set of each video's steps is known: no order, and not how often.

Two steps that occur in the same videos cannot be told apart, whatever is done: names come from which videos hold which
steps. So frames are clustered, and clusters given to steps by how often each occurs in the videos of each step: a
topic model whose topics are known by document (probabilistic latent semantic analysis: Hofmann, UAI 1999, with the
topics of a document restricted as in Ramage et al., EMNLP 2009). From there the hidden Markov model of the ordered
lists takes over: read each video through the steps of its set, fit to what was read, and again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_hal.progress import ProgressCount

from .em import Candidate, guess, judge, refine
from .list_correction import list_of, read_set
from .list_edits import SETS, edited
from .parallel import forked
from .problem import Problem

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Result = TypeVar("Result")

CLUSTERS_PER_STEP = 4
CLUSTER_ITERATIONS = 20
TOPIC_ITERATIONS = 200
LEAVE = 0.05  # chance of leaving a step after a frame, in the first reading
KEPT = 8
ROUNDS = 6
ITERATIONS = 3


@dataclass(frozen=True)
class Read:
    """`problem`: with the lists that were read; `score`: log-likelihood of the paths, per frame."""

    problem: Problem
    model: Candidate
    score: float


def read_sets(
    problem: Problem,
    seed: int,
    restarts: int,
    progress: ProgressCount | None = None,
    workers: int = 1,
) -> list[Read]:
    """Read videos from the likeliest of `restarts` clusterings, best first. The lists of `problem` are taken as sets;
    those of pinned videos are exact, and where there are any, the first model is theirs and nothing is guessed."""
    pinned = any(pin is not None for pin in problem.pins)
    done, chosen = 0, [0]

    def clustering(restart: int) -> Clustering:
        return Clustering.drawn(problem, np.random.default_rng([seed, restart]))

    def begun(restart: int) -> Read:
        first = problem if pinned else clustering(restart).read(problem)
        batches, config = first.batches(), problem.config
        counts, _ = guess(batches, problem.count, config, np.ones(problem.count))
        found, score = problem, 0.0
        for _ in range(ROUNDS):
            paths = [
                None if pin is not None else read_set(video, members, counts, problem.count, config)
                for video, members, pin in zip(problem.videos, problem.lists, problem.pins, strict=True)
            ]
            score = sum(path.score for path in paths if path is not None)
            read = replace(problem, lists=[list_of(*each) for each in zip(paths, problem.lists, strict=True)])
            if read.lists == found.lists:
                break
            found, batches = read, read.batches()
            counts = refine(batches, counts, problem.count, config, ITERATIONS)
        return Read(found, judge(batches, counts, config), score / sum(map(len, problem.videos)))

    def told(each: Result) -> Result:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(chosen) if pinned else restarts + min(KEPT, restarts))
        return each

    if not pinned:
        likely = [told(each) for each in forked(lambda r: clustering(r).log_likelihood, range(restarts), workers)]
        chosen = np.argsort(-np.array(likely), kind="stable")[:KEPT].tolist()
    read = [told(each) for each in forked(begun, chosen, workers)]
    return sorted(read, key=lambda each: -each.score)


@dataclass(frozen=True)
class Clustering:
    """Cluster (T_i,) of every frame, `chance` (V, K, C) that a frame of a cluster shows a step, by video, and the
    log-likelihood of the clusters."""

    cluster: list[IndexArray]
    chance: Array
    log_likelihood: float

    @classmethod
    def drawn(cls, problem: Problem, rng: np.random.Generator) -> Clustering:
        pooled = np.concatenate(problem.videos)
        size = min(CLUSTERS_PER_STEP * problem.count, len(pooled))
        ends = np.cumsum([len(video) for video in problem.videos])
        cluster = np.split(clustered(pooled, size, rng), ends[:-1])
        occurs = np.array([np.bincount(each, minlength=size) for each in cluster], np.float64)
        member = np.zeros((len(cluster), problem.count), bool)
        for index, steps in enumerate(problem.lists):
            member[index, list(steps)] = True
        share, spread = topics(occurs, member, rng)
        chance = share[:, :, None] * spread
        chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-12)
        return cls(cluster, chance, float((occurs * np.log(np.maximum(share @ spread, 1e-12))).sum()))

    def read(self, problem: Problem) -> Problem:
        """Every frame pinned: the likeliest path of every video through the steps of its set."""
        leave, states = np.full(problem.count, LEAVE), np.arange(problem.count)[:, None]
        lists, pins = [], []
        for steps, cluster, chance in zip(problem.lists, self.cluster, self.chance, strict=True):
            path = edited(np.log(chance[:, cluster].T + 1e-6), leave, (), states, SETS, steps)
            assert path is not None  # no video is without a frame
            lists.append(list_of(path, steps))
            pins.append(np.cumsum(np.diff(path.labels, prepend=path.labels[0]) != 0))
        return replace(problem, lists=lists, pins=pins)


def topics(occurs: Array, member: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Array, Array]:
    """Share (V, K) of each step in each video, spread (K, C) of each step over clusters, from how often each cluster
    occurs (V, C) and which video holds which step (V, K): expectation-maximisation from a random start."""
    share = member / np.maximum(member.sum(axis=1, keepdims=True), 1)
    spread = rng.dirichlet(np.full(occurs.shape[1], 5.0), member.shape[1])
    for _ in range(TOPIC_ITERATIONS):
        ratio = occurs / np.maximum(share @ spread, 1e-12)
        share, spread = share * (ratio @ spread.T), spread * (share.T @ ratio)
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
        spread = (spread + 1e-6) / (spread + 1e-6).sum(axis=1, keepdims=True)
    return share, spread


def clustered(x: Array, count: int, rng: np.random.Generator) -> IndexArray:
    """k-means of (T, d), begun as k-means++ (Arthur and Vassilvitskii, SODA 2007): the cluster (T,) of each."""
    centre = x[rng.integers(len(x), size=1)]
    nearest = ((x - centre) ** 2).sum(axis=1)
    for _ in range(count - 1):
        total = nearest.sum()
        chosen = rng.choice(len(x), p=nearest / total if total > 0 else None)
        centre = np.concatenate([centre, x[chosen : chosen + 1]])
        nearest = np.minimum(nearest, ((x - x[chosen]) ** 2).sum(axis=1))
    member = np.zeros(len(x), np.int64)
    for _ in range(CLUSTER_ITERATIONS):
        member = ((centre**2).sum(axis=1) - 2 * x @ centre.T).argmin(axis=1)
        sums = np.zeros_like(centre)
        np.add.at(sums, member, x)
        size = np.bincount(member, minlength=count)
        centre = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centre)
    return member
