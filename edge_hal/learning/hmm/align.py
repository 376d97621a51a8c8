"""A first alignment from transcripts alone: a hidden Markov model, searched for from many guesses.

Each action is a few Gaussian sub-states passed in order, each video the chain of its transcript's
actions, trained by forward-backward EM (Rabiner 1989, section III). Where every video holds
the same actions in cycles, sliding all boundaries by one segment explains the data nearly as
well, and a local search ends wherever it began. So EM begins from many random durations,
trusts the ends of the videos first, where the order leaves no choice, and moves inwards; what it
comes to is improved by `restart_search.py`, and chosen without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Lists
from edge_hal.errors import EdgeHalError

from .em import Candidate, StartConfig, anneal, guess, judge
from .list_correction import corrected
from .problem import Problem
from .restart_search import Found, search
from .unordered_lists import read_sets

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class StartResult:
    """`labels` (T_i,) per video; `best`: the models they come from, best first.

    `agreement`: per video, the share of frames where a guess that was kept, before any had children, says the same
    by itself; averaged over them. The poor ones count too: the best few may share an error.
    """

    labels: tuple[IndexArray, ...]
    best: tuple[Candidate, ...]
    agreement: tuple[float, ...]


def start_alignment(
    features: Sequence[NDArray[Any]],
    transcripts: Sequence[Sequence[int]],
    num_labels: int,
    *,
    seed: int,
    restarts: int = 64,
    config: StartConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    pins: Sequence[IndexArray | None] | None = None,
    workers: int = 1,
    lists: Lists = "exact",
) -> StartResult:
    """Align videos with their transcripts, from nothing else.

    Args:
        features: (T_i, D) per video, at 2-5 Hz; a mean, change and deviation of raw signals work.
        transcripts: labels 0 .. num_labels - 1 per video, in order.
        restarts: how many guesses; the first is the uniform split.
        progress: called with (models fitted, models to fit).
        pins: per video None, or the segment (T_i,) that each frame is known to be in, -1 where unknown, each
            segment pinned somewhere. The first model is then made of the pinned videos alone: nothing is guessed.
        workers: processes that search; the result does not depend on them.
        lists: `exact`; `noisy`, where steps may be missing, additional or swapped, and the lists are corrected with
            what was learnt from them; `sets`, where the steps of a video are known, but not their order or how often.
            The lists of pinned videos are exact.

    Raises:
        EdgeHalError: no videos, an empty transcript, fewer frames than actions.
    """
    config = config or StartConfig()
    _check(features, transcripts, num_labels)
    if restarts < 1:
        raise EdgeHalError(f"cannot align with {restarts} restarts", todo="ask for one or more")
    known = [None] * len(features) if pins is None else pins
    videos = whitened(features, config.components, config.normalise_videos)
    problem = Problem(videos, [tuple(steps) for steps in transcripts], known, num_labels, config)
    if lists == "sets":
        read = read_sets(problem, seed, restarts, progress, workers)
        every = [each.problem.labels([each.model], each.problem.batches()) for each in read]
        return StartResult(tuple(every[0]), (read[0].model,), _agreed(every[0], every[1:]))
    whole = problem.batches()
    if pins is None:
        found = search(problem, seed, restarts, progress, workers)
    else:
        counts, leave = guess(whole, num_labels, config, np.ones(num_labels))
        only = judge(whole, anneal(whole, counts, leave, num_labels, config), config)
        found = Found((only,), (only,))
    alone = [problem.labels([each], whole) for each in found.kept] if len(found.kept) > 1 else []
    best = found.best
    if lists == "noisy":
        problem, best = corrected(problem, best)
        whole = problem.batches()
    labels = problem.labels(best, whole)
    return StartResult(tuple(labels), best, _agreed(labels, alone))


def _agreed(labels: Sequence[IndexArray], others: Sequence[Sequence[IndexArray]]) -> tuple[float, ...]:
    """Per video, the share of frames where each of the others says the same, averaged; 1 without others."""
    return tuple(
        float(np.mean([(other[i] == label).mean() for other in others])) if others else 1.0
        for i, label in enumerate(labels)
    )


def whitened(features: Sequence[NDArray[Any]], components: int, per_video: bool) -> list[Array]:
    """Principal components (T_i, <= components) of z-scored, clipped features, variance 1 each."""
    scaled = [np.asarray(x, np.float64) for x in features]
    if per_video:
        scaled = [_z_score(x, x) for x in scaled]
    pooled = np.concatenate(scaled)
    scaled = [np.clip(_z_score(x, pooled), -5, 5) for x in scaled]
    pooled = np.concatenate(scaled)
    centre = pooled.mean(axis=0)
    value, vector = np.linalg.eigh(np.atleast_2d(np.cov(pooled, rowvar=False)))
    keep = [i for i in np.argsort(-value)[:components] if value[i] > 1e-8 * value.max()]
    # The sign of an eigenvector is arbitrary and differs between libraries: fix it.
    turn = np.sign(vector[np.abs(vector).argmax(axis=0), np.arange(value.size)])
    basis = (vector * turn)[:, keep] / np.sqrt(value[keep])
    return [(x - centre) @ basis for x in scaled]


def _z_score(x: Array, reference: Array) -> Array:
    score: Array = (x - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-8)
    return score


def _check(features: Sequence[NDArray[Any]], transcripts: Sequence[Sequence[int]], num_labels: int) -> None:
    if len(features) != len(transcripts) or not features:
        raise EdgeHalError("cannot align", f"{len(features)} videos with {len(transcripts)} transcripts")
    for i, (x, transcript) in enumerate(zip(features, transcripts, strict=True)):
        if not len(transcript):
            raise EdgeHalError(f"cannot align video {i}", "its transcript is empty")
        if not 0 <= min(transcript) <= max(transcript) < num_labels:
            raise EdgeHalError(f"cannot align video {i}", "its transcript has an unknown label")
        if np.ndim(x) != 2 or np.shape(x)[1] != np.shape(features[0])[1]:
            raise EdgeHalError(f"cannot align video {i}", f"its features are {np.shape(x)}")
        if len(x) < len(transcript):
            raise EdgeHalError(
                f"cannot align video {i}",
                f"it has {len(x)} samples for {len(transcript)} actions",
                "sample it at a higher rate, or correct the transcript",
            )
