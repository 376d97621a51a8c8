"""A first alignment from transcripts alone: a hidden Markov model, searched for from many guesses.

Each action is a few Gaussian sub-states passed in order, each video the chain of its transcript's
actions, trained by forward-backward EM (Rabiner 1989, section III). Where every video holds
the same actions in cycles, sliding all boundaries by one segment explains the data nearly as
well, and a local search ends wherever it began. So EM begins from many random durations,
trusts the ends of the videos first, where the order leaves no choice, and moves inwards; what it
comes to is improved by `search.py`, and chosen without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.chains import Batch
from edge_hal.learning.markov import Candidate, StartConfig, anneal, beliefs, decode, guess, judge
from edge_hal.learning.search import Found, search

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]

BATCH = 12  # videos padded together: small enough for the cache
BATCH_CELLS = 4_000_000  # frames x chain positions of a padded batch: a long video stands alone


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

    Raises:
        EdgeHalError: no videos, an empty transcript, fewer frames than actions.
    """
    config = config or StartConfig()
    _check(features, transcripts, num_labels)
    if restarts < 1:
        raise EdgeHalError(f"cannot align with {restarts} restarts", todo="ask for one or more")
    videos = whitened(features, config.components, config.normalise_videos)

    def groups(chosen: Sequence[int]) -> list[list[int]]:
        order = sorted(chosen, key=lambda i: len(videos[i]))
        return _grouped(order, videos, transcripts, config.sub_states + config.pause)

    def batches(chosen: Sequence[int]) -> list[Batch]:
        return [
            Batch(
                [videos[i] for i in ids],
                [transcripts[i] for i in ids],
                config.sub_states,
                num_labels * config.sub_states if config.pause else None,
                None if pins is None else [pins[i] for i in ids],
            )
            for ids in groups(chosen)
        ]

    whole = batches(range(len(videos)))
    if pins is None:
        found = search(batches, len(videos), num_labels, config, seed, restarts, progress, workers)
    else:
        counts, leave = guess(whole, num_labels, config, np.ones(num_labels))
        only = judge(whole, anneal(whole, counts, leave, num_labels, config), config)
        found = Found((only,), (only,))
    ranked = [beliefs(whole, each.counts, config) for each in found.best]
    alone = [beliefs(whole, each.counts, config) for each in found.kept] if len(found.kept) > 1 else []
    labels: list[IndexArray] = [np.zeros(0, np.int64)] * len(videos)
    agreement = [1.0] * len(videos)
    for place, i in enumerate(i for ids in groups(range(len(videos))) for i in ids):
        steps = np.asarray(transcripts[i], np.int64)
        labels[i] = steps[decode(*(each[place] for each in ranked))]
        if alone:
            agreement[i] = float(np.mean([(steps[decode(each[place])] == labels[i]).mean() for each in alone]))
    return StartResult(tuple(labels), found.best, tuple(agreement))


def _grouped(
    order: Sequence[int], videos: Sequence[Array], transcripts: Sequence[Sequence[int]], states: int
) -> list[list[int]]:
    """Videos by length, in groups of at most `BATCH` whose padded arrays stay within `BATCH_CELLS`, or of one."""
    groups: list[list[int]] = []
    for i in order:
        group = [*groups[-1], int(i)] if groups else []
        cells = len(group) * len(videos[i]) * states * max((len(transcripts[j]) for j in group), default=0)
        if group and len(group) <= BATCH and cells <= BATCH_CELLS:
            groups[-1] = group
        else:
            groups.append([int(i)])
    return groups


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
    return (x - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-8)


def _check(
    features: Sequence[NDArray[Any]], transcripts: Sequence[Sequence[int]], num_labels: int
) -> None:
    if len(features) != len(transcripts) or not features:
        raise EdgeHalError(
            "cannot align", f"{len(features)} videos with {len(transcripts)} transcripts"
        )
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
