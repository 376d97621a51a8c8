"""A first alignment from transcripts alone: a hidden Markov model restarted from many guesses.

Each action is a few Gaussian sub-states passed in order, each video the chain of its transcript's
actions, trained by forward-backward EM (Rabiner 1989, section III). Where every video holds
the same actions in cycles, sliding all boundaries by one segment explains the data nearly as
well, and a local search ends wherever it began. So EM begins from many random durations,
trusts the ends of the videos first, where the order leaves no choice, and moves inwards.
The restart kept is chosen without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.alignment import viterbi_align
from edge_hal.learning.chains import Batch, Counts

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]

BATCH = 12  # videos padded together: small enough for the cache
BATCH_CELLS = 4_000_000  # frames x chain positions of a padded batch: a long video stands alone


@dataclass(frozen=True)
class StartConfig:
    """How the model is built and annealed.

    Emissions are raised to a power going from `first_power` to `last_power`: neighbouring frames
    are no independent witnesses. For the first `anchored` of the iterations segment m of M weighs
    exp(-min(m, M-1-m) / tau), tau going from 1 to 20, with durations held as they were drawn.
    With `pause` every action may end in a state that all share: what looks the same between any two
    steps belongs to the step before, since nobody who watches live can know which comes next.
    """

    sub_states: int = 3
    components: int = 12
    iterations: int = 30
    first_power: float = 0.1
    last_power: float = 0.3
    anchored: float = 0.6
    duration_spread: float = 0.8
    normalise_videos: bool = True
    consensus: int = 1
    pause: bool = False


@dataclass(frozen=True)
class Restart:
    """What a restart came to. Log-likelihoods are per frame, emissions raised to `last_power`.

    `margin` is the log-likelihood less that of the same model free to take any order;
    `irregularity` the mean deviation of log durations among segments of one action.
    """

    index: int
    log_likelihood: float
    margin: float
    irregularity: float
    score: float = 0.0


@dataclass(frozen=True)
class StartResult:
    """`labels` (T_i,) per video, the `score` of the best restart, all restarts, best first.

    `agreement`: per video, the share of frames where a restart alone says the same, averaged over all of them, the
    poor ones too: the best few may share an error.
    """

    labels: tuple[IndexArray, ...]
    score: float
    restarts: tuple[Restart, ...]
    agreement: tuple[float, ...] = ()


def start_alignment(
    features: Sequence[NDArray[Any]],
    transcripts: Sequence[Sequence[int]],
    num_labels: int,
    *,
    seed: int,
    restarts: int = 20,
    config: StartConfig | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    pins: Sequence[IndexArray | None] | None = None,
) -> StartResult:
    """Align videos with their transcripts, from nothing else.

    Args:
        features: (T_i, D) per video, at 2-5 Hz; a mean, change and deviation of raw signals work.
        transcripts: labels 0 .. num_labels - 1 per video, in order.
        restarts: how many guesses; the first is the uniform split.
        workers: threads; the result does not depend on them.
        progress: called with (restarts done, restarts).
        pins: per video None, or the segment (T_i,) that each frame is known to be in, -1 where unknown, each
            segment pinned somewhere. The first model is then made of the pinned videos alone.

    Raises:
        EdgeHalError: no videos, an empty transcript, fewer frames than actions.
    """
    config = config or StartConfig()
    _check(features, transcripts, num_labels)
    if restarts < 1:
        raise EdgeHalError(f"cannot align with {restarts} restarts", todo="ask for one or more")
    videos = whitened(features, config.components, config.normalise_videos)
    order = np.argsort([len(x) for x in videos], kind="stable")
    batches = [
        Batch(
            [videos[i] for i in ids],
            [transcripts[i] for i in ids],
            config.sub_states,
            num_labels * config.sub_states if config.pause else None,
            None if pins is None else [pins[i] for i in ids],
        )
        for ids in _grouped(order, videos, transcripts, config.sub_states + config.pause)
    ]
    rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(restarts)]
    found: list[tuple[Restart, list[Array]]] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for run in pool.map(
            lambda i: _restart(batches, num_labels, config, i, rngs[i]), range(restarts)
        ):
            found.append(run)
            if progress is not None:
                progress(len(found), restarts)
    scores = _select([run for run, _ in found])
    ranking = np.argsort(-scores, kind="stable")
    ranked_beliefs = [found[i][1] for i in ranking]
    labels: list[IndexArray] = [np.zeros(0, np.int64)] * len(videos)
    agreement = [1.0] * len(videos)
    for i, beliefs in zip(order, zip(*ranked_beliefs, strict=True), strict=True):
        steps = np.asarray(transcripts[i], np.int64)
        labels[i] = steps[decode(sum(beliefs[: max(config.consensus, 1)]))]
        agreement[i] = float(np.mean([(steps[decode(b)] == labels[i]).mean() for b in beliefs]))
    ranked = tuple(replace(found[i][0], score=float(scores[i])) for i in ranking)
    return StartResult(tuple(labels), ranked[0].score, ranked, tuple(agreement))


def _grouped(
    order: IndexArray, videos: Sequence[Array], transcripts: Sequence[Sequence[int]], states: int
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


def _restart(
    batches: Sequence[Batch],
    num_labels: int,
    config: StartConfig,
    index: int,
    rng: np.random.Generator,
) -> tuple[Restart, list[Array]]:
    """EM from one guess: what it came to, and beliefs (T_i, M_i) in the segments of each video."""
    # The first guess is the uniform split: it is what the field starts from.
    per_label = np.exp((config.duration_spread if index else 0.0) * rng.normal(size=num_labels))
    return improve(batches, num_labels, config, *guess(batches, num_labels, config, per_label), index)


def guess(
    batches: Sequence[Batch], num_labels: int, config: StartConfig, per_label: Array
) -> tuple[Counts, list[Array]]:
    """First counts, and chances of leaving (N, P) of each batch, from durations in the proportion `per_label`;
    where videos are pinned, the counts are theirs alone."""
    pinned = any(batch.pinned.any() for batch in batches)
    leave, counts = [], []
    for batch in batches:
        chances, gamma = batch.draw(per_label)
        leave.append(chances)
        weight = np.where(batch.pinned[:, None], 1.0, 0.0 if pinned else np.exp(-batch.depth))
        counts.append(batch.count(gamma, weight, num_labels * config.sub_states + config.pause))
    return _sum(counts), leave


def improve(
    batches: Sequence[Batch],
    num_labels: int,
    config: StartConfig,
    total: Counts,
    leave: Sequence[Array],
    index: int = 0,
) -> tuple[Restart, list[Array]]:
    """EM from counts: what it came to, and beliefs (T_i, M_i) in the segments of each video."""
    states = num_labels * config.sub_states + config.pause
    pinned = any(batch.pinned.any() for batch in batches)
    warm = 0 if pinned else round(config.anchored * config.iterations)
    for step in range(config.iterations):
        model = total.gaussians()
        if step > warm:
            leave = [total.leave()[batch.chain] for batch in batches]
        power = config.first_power + (config.last_power - config.first_power) * step / max(
            config.iterations - 1, 1
        )
        tau = 20 ** (step / max(warm - 1, 1)) if step < warm else np.inf
        total = _sum(
            [
                batch.count(
                    batch.expect(batch.emission(model, power), chances)[1],
                    np.exp(-batch.depth / tau),
                    states,
                )
                for batch, chances in zip(batches, leave, strict=True)
            ]
        )
    model, chances_of_state = total.gaussians(), total.leave()
    log_likelihood = margin = 0.0
    beliefs: list[Array] = []
    for batch in batches:
        emission = batch.emission(model, config.last_power)
        chained, gamma = batch.expect(emission, chances_of_state[batch.chain])
        free = batch.free(emission, chances_of_state, config.sub_states)
        log_likelihood += float(chained.sum())
        margin += float((chained - free).sum())
        beliefs += batch.beliefs(gamma)
    frames = sum(int(batch.lengths.sum()) for batch in batches)
    labels = np.concatenate([t for batch in batches for t in batch.transcripts])
    irregularity = _irregularity(beliefs, labels)
    return Restart(index, log_likelihood / frames, margin / frames, irregularity), beliefs


def _sum(counts: Sequence[Counts]) -> Counts:
    total = counts[0]
    for other in counts[1:]:
        total = total + other
    return total


def _irregularity(beliefs: Sequence[Array], labels: IndexArray) -> float:
    """Deviation of log durations from the mean of their action."""
    durations = np.log(np.concatenate([belief.sum(axis=0) for belief in beliefs]))
    _, group = np.unique(labels, return_inverse=True)
    means = np.bincount(group, durations) / np.bincount(group)
    return float(np.sqrt(np.mean((durations - means[group]) ** 2)))


def _select(runs: Sequence[Restart]) -> Array:
    """Score of each restart: z(margin) + z(log-likelihood) - z(irregularity)."""
    columns = np.array([[r.margin, r.log_likelihood, -r.irregularity] for r in runs])
    return (columns - columns.mean(axis=0)) @ (1 / np.maximum(columns.std(axis=0), 1e-12))


def decode(belief: Array) -> IndexArray:
    """Segment (T,) of every frame: in order, all present, the sum of beliefs (T, M) greatest."""
    return viterbi_align(belief, range(belief.shape[1])).labels


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
