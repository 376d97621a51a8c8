"""Alignment of videos with their transcripts by a hidden Markov model, from features and transcripts alone.

Each action has a few Gaussian sub-states that are passed in order. The chain of a video is that of the actions of its
transcript, trained by forward-backward EM (Rabiner 1989, section III). If every video contains the same actions in
cycles, shifting all boundaries by one segment explains the data almost as well, and EM stays near its initialisation.
So EM is restarted from many random durations, weights the ends of the videos first (the order leaves little choice
there) and then moves inwards. `restart_search.py` improves the results and chooses among them without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Lists
from edge_hal.errors import EdgeHalError
from edge_hal.parallel import Workers
from edge_hal.progress import ProgressCount

from .em import Candidate, HmmConfig, anneal, evaluate, initialise
from .list_correction import correct_lists
from .problem import Problem
from .restart_search import SearchResult, search
from .trust import Evidence, evidence_of
from .unordered_lists import align_unordered

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]


SMALL = 1e-8
"""Deviations below this share of the size of the numbers are rounding, and so are variances below this share of the
largest one."""


@dataclass(frozen=True)
class HmmAlignment:
    """Attributes:
    labels: (T_i,) per video.
    best: the models that they come from, the best first.
    evidence: per video, what tells without labels whether to trust it.
    restarts: the labels of each kept restart alone, before the genetic search; none if there was one model.
    """

    labels: tuple[IndexArray, ...]
    best: tuple[Candidate, ...]
    evidence: tuple[Evidence, ...]
    restarts: tuple[list[IndexArray], ...] = ()


def align_with_hmm(
    features: Sequence[NDArray[Any]],
    transcripts: Sequence[Sequence[int]],
    num_labels: int,
    *,
    seed: int,
    restarts: int = 64,
    config: HmmConfig | None = None,
    progress: ProgressCount | None = None,
    known_segments: Sequence[IndexArray | None] | None = None,
    workers: Workers = 1,
    lists: Lists = "exact",
) -> HmmAlignment:
    """Align videos with their transcripts.

    Args:
        features: (T_i, D) per video, at 2-5 Hz; a mean, change and deviation of raw signals work.
        transcripts: labels 0 .. num_labels - 1 per video, in order.
        restarts: number of initialisations; the first is the uniform split.
        progress: called with the numbers of models trained and to train.
        known_segments: per video None, or (T_i,) the index in the transcript of the segment that each frame is known to
            belong to, -1 if it is not known. If every segment of some video occurs, the first model is trained on such
            videos alone, and there are no restarts.
        workers: number of processes, or an executor. The result does not depend on it.
        lists: `exact`; `noisy`: steps may be missing, extra or swapped, and the lists are corrected with the trained
            models; `sets`: the order of the steps and how often each occurs are not known. The lists of labelled videos
            are always exact.

    Raises:
        EdgeHalError: there are no videos, a transcript is empty, or a video has fewer frames than actions.
    """
    config = config or HmmConfig()
    _check(features, transcripts, num_labels)
    if restarts < 1:
        raise EdgeHalError(f"cannot align with {restarts} restarts", todo="ask for one or more")
    known = [None] * len(features) if known_segments is None else known_segments
    videos = whitened(features, config.components, config.normalise_videos)
    problem = Problem(videos, [tuple(steps) for steps in transcripts], known, num_labels, config)
    if lists == "sets":
        results = align_unordered(problem, seed, restarts, progress, workers)
        labelled = [each.problem.labels([each.model], each.problem.batches()) for each in results]
        evidence = evidence_of(results[0].problem, results[0].model, labelled[0], labelled[1:])
        return HmmAlignment(tuple(labelled[0]), (results[0].model,), evidence)
    whole = problem.batches()
    if not any(batch.labelled.any() for batch in whole):
        found = search(problem, seed, restarts, progress, workers)
    else:
        counts, leave = initialise(whole, num_labels, config, np.ones(num_labels))
        only = evaluate(whole, anneal(whole, counts, leave, num_labels, config), config)
        found = SearchResult((only,), (only,))
    alone = [problem.labels([each], whole) for each in found.restarts] if len(found.restarts) > 1 else []
    best = found.best
    if lists == "noisy":
        problem, best = correct_lists(problem, best)
        whole = problem.batches()
    labels = problem.labels(best, whole)
    return HmmAlignment(tuple(labels), best, evidence_of(problem, best[0], labels, alone), tuple(alone))


def whitened(features: Sequence[NDArray[Any]], components: int, per_video: bool) -> list[Array]:
    """(T_i, <= components) principal components of the z-scored and clipped features, each of variance 1."""
    scaled = [np.asarray(x, np.float64) for x in features]
    if per_video:
        scaled = [_z_score(x, x) for x in scaled]
    pooled = np.concatenate(scaled)
    scaled = [np.clip(_z_score(x, pooled), -5, 5) for x in scaled]
    pooled = np.concatenate(scaled)
    centre = pooled.mean(axis=0)
    value, vector = np.linalg.eigh(np.atleast_2d(np.cov(pooled, rowvar=False)))
    keep = [i for i in np.argsort(-value)[:components] if value[i] > SMALL * value.max()]
    # The sign of an eigenvector differs between libraries: make its largest entry positive.
    turn = np.sign(vector[np.abs(vector).argmax(axis=0), np.arange(value.size)])
    basis = (vector * turn)[:, keep] / np.sqrt(value[keep])
    return [(x - centre) @ basis for x in scaled]


def _z_score(x: Array, reference: Array) -> Array:
    """The deviation of a constant differs from 0 by rounding only; it is not divided by."""
    deviation, size = reference.std(axis=0), np.abs(reference).max(axis=0)
    score: Array = (x - reference.mean(axis=0)) / np.where(deviation > SMALL * size, deviation, 1.0)
    return score


def _check(features: Sequence[NDArray[Any]], transcripts: Sequence[Sequence[int]], num_labels: int) -> None:
    if len(features) != len(transcripts) or not features:
        raise EdgeHalError("cannot align", f"{len(features)} videos with {len(transcripts)} transcripts")
    if sum(map(len, features)) < 2:
        raise EdgeHalError("cannot align", "all videos together have one frame", "add videos")
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
