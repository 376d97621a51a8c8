"""Alignment if only the set of steps of each video is known, not their order and not how often each occurs.

Two steps that occur in the same videos cannot be told apart: only the difference between sets gives a cluster its name.
Frames are clustered, and clusters are assigned to steps by how often each occurs in the videos of each step. This is a
topic model with known topics per document (probabilistic latent semantic analysis: Hofmann, UAI 1999, with the topics
of a document restricted as in Ramage et al., EMNLP 2009). From there on the hidden Markov model is used: find the best
path of each video through the steps of its set, train on these paths, and repeat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_hal.parallel import Workers, mapped
from edge_hal.progress import ProgressCount

from .em import Candidate, evaluate, initialise, refine
from .list_correction import best_unordered_path, list_from_path
from .list_edits import UNORDERED_COSTS, align_with_edits
from .problem import Problem

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Result = TypeVar("Result")

CLUSTERS_PER_STEP = 4
CLUSTER_ITERATIONS = 20
TOPIC_ITERATIONS = 200
LEAVE = 0.05  # exit probability of a step, for the first paths
CLUSTERINGS = 8
ROUNDS = 6
ITERATIONS = 3


@dataclass(frozen=True)
class UnorderedResult:
    """`problem`: with the lists that were found. `score`: log-likelihood of the paths, per frame."""

    problem: Problem
    model: Candidate
    score: float


def align_unordered(
    problem: Problem,
    seed: int,
    restarts: int,
    progress: ProgressCount | None = None,
    workers: Workers = 1,
) -> list[UnorderedResult]:
    """Align the videos from each of the most likely of `restarts` clusterings; the best result first.

    The lists of `problem` are used as sets, those of labelled videos as they are. If there are labelled videos, the
    first model is trained on them and there is no clustering.
    """
    labelled = any(batch.labelled.any() for batch in problem.batches())
    done, chosen = 0, [0]

    def counted(result: Result) -> Result:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(chosen) if labelled else restarts + min(CLUSTERINGS, restarts))
        return result

    if not labelled:
        likely = [counted(found) for found in mapped(Likelihood(problem, seed), range(restarts), workers)]
        chosen = np.argsort(-np.array(likely), kind="stable")[:CLUSTERINGS].tolist()
    read = [counted(found) for found in mapped(Alignment(problem, seed, labelled), chosen, workers)]
    return sorted(read, key=lambda found: -found.score)


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of the clustering of a restart. May run in another process."""

    problem: Problem
    seed: int

    def __call__(self, restart: int) -> float:
        return Clustering.random(self.problem, np.random.default_rng([self.seed, restart])).log_likelihood


@dataclass(frozen=True)
class Alignment:
    """The alignment from the clustering of a restart; with `labelled`, from the labelled videos. May run in another
    process."""

    problem: Problem
    seed: int
    labelled: bool

    def __call__(self, restart: int) -> UnorderedResult:
        problem, config = self.problem, self.problem.config
        first = problem
        if not self.labelled:
            first = Clustering.random(problem, np.random.default_rng([self.seed, restart])).first_paths(problem)
        batches = first.batches()
        counts, _ = initialise(batches, problem.count, config, np.ones(problem.count))
        found, score = problem, 0.0
        for _ in range(ROUNDS):
            paths = [
                None if known is not None else best_unordered_path(video, members, counts, problem.count, config)
                for video, members, known in zip(problem.videos, problem.lists, problem.known_segments, strict=True)
            ]
            score = sum(path.score for path in paths if path is not None)
            read = replace(problem, lists=[list_from_path(*pair) for pair in zip(paths, problem.lists, strict=True)])
            if read.lists == found.lists:
                break
            found, batches = read, read.batches()
            counts = refine(batches, counts, problem.count, config, ITERATIONS)
        return UnorderedResult(found, evaluate(batches, counts, config), score / sum(map(len, problem.videos)))


@dataclass(frozen=True)
class Clustering:
    """Attributes:
    cluster: (T_i,) the cluster of each frame, per video.
    chance: (V, K, C) probability of each step given the cluster of a frame, per video.
    log_likelihood: of the clusters under the topic model.
    """

    cluster: list[IndexArray]
    chance: Array
    log_likelihood: float

    @classmethod
    def random(cls, problem: Problem, rng: np.random.Generator) -> Clustering:
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

    def first_paths(self, problem: Problem) -> Problem:
        """The problem with known segments at every frame: the most likely path of each video through its set."""
        leave, states = np.full(problem.count, LEAVE), np.arange(problem.count)[:, None]
        lists, known_segments = [], []
        for steps, cluster, chance in zip(problem.lists, self.cluster, self.chance, strict=True):
            path = align_with_edits(np.log(chance[:, cluster].T + 1e-6), leave, (), states, UNORDERED_COSTS, steps)
            assert path is not None  # every video has at least one frame
            lists.append(list_from_path(path, steps))
            known_segments.append(np.cumsum(np.diff(path.labels, prepend=path.labels[0]) != 0))
        return replace(problem, lists=lists, known_segments=known_segments)


def topics(occurs: Array, member: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Array, Array]:
    """The topic model, fitted by EM from a random initialisation.

    Args:
        occurs: (V, C) how often each cluster occurs in each video. member: (V, K) which video contains which step.

    Returns:
        share: (V, K) of each step in each video. spread: (K, C) distribution of each step over clusters.
    """
    share = member / np.maximum(member.sum(axis=1, keepdims=True), 1)
    spread = rng.dirichlet(np.full(occurs.shape[1], 5.0), member.shape[1])
    for _ in range(TOPIC_ITERATIONS):
        ratio = occurs / np.maximum(share @ spread, 1e-12)
        share, spread = share * (ratio @ spread.T), spread * (share.T @ ratio)
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
        spread = (spread + 1e-6) / (spread + 1e-6).sum(axis=1, keepdims=True)
    return share, spread


def clustered(x: Array, count: int, rng: np.random.Generator) -> IndexArray:
    """(T,) the cluster of each row of x (T, d), by k-means with the k-means++ initialisation (Arthur and Vassilvitskii,
    SODA 2007)."""
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
