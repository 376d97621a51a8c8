"""Forward-backward EM (Rabiner 1989, section III) of one hidden Markov model over batches of transcripts' chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.learning.networks.boundary_alignment import viterbi_align

from .list_edits import NOISY, Costs
from .transcript_chain import Batch, Counts

Array = NDArray[np.float64]
Beliefs = NDArray[np.floating]


@dataclass(frozen=True)
class StartConfig:
    """How the model is built, annealed and searched for.

    Emissions are raised to a power going from `first_power` to `last_power`: neighbouring frames
    are no independent witnesses. For the first `anchored` of the iterations segment m of M weighs
    exp(-min(m, M-1-m) / tau), tau going from 1 to 20, with durations held as they were drawn.
    With `pause` every action may end in a state that all share: what looks the same between any two
    steps belongs to the step before, since nobody who watches live can know which comes next.

    Guesses are tried on `first_videos` videos, and the best `kept` of them on `more_videos`. Where these say the same
    of `agreed` of the frames, the better half of them votes: what they differ in is chance. Where not, most are
    wrong: they have `generations` of children, and the best `consensus` of all vote. `edits` is what changing a list
    costs, where lists may be wrong.
    """

    sub_states: int = 3
    components: int = 12
    iterations: int = 10
    first_power: float = 0.1
    last_power: float = 0.3
    anchored: float = 0.6
    duration_spread: float = 0.8
    normalise_videos: bool = True
    pause: bool = False
    first_videos: int = 12
    more_videos: int = 24
    kept: int = 16
    generations: int = 20
    consensus: int = 3
    agreed: float = 0.9
    edits: Costs = NOISY


@dataclass(frozen=True)
class Candidate:
    """A model, as counts, and what it came to. Log-likelihoods are per frame, emissions raised to `last_power`;
    `margin` is the log-likelihood less that of the same model free to take any order."""

    counts: Counts
    log_likelihood: float
    margin: float


def states_of(count: int, config: StartConfig) -> int:
    return count * config.sub_states + config.pause


def guess(batches: Sequence[Batch], count: int, config: StartConfig, per_label: Array) -> tuple[Counts, list[Array]]:
    """First counts, and chances of leaving (N, P) of each batch, from durations in the proportion `per_label`;
    where videos are pinned, the counts are theirs alone."""
    pinned = any(batch.pinned.any() for batch in batches)
    leave, counts = [], []
    for batch in batches:
        chances, gamma = batch.draw(per_label)
        leave.append(chances)
        weight = np.where(batch.pinned[:, None], 1.0, 0.0 if pinned else np.exp(-batch.depth))
        counts.append(batch.count(gamma, weight, states_of(count, config)))
    return _sum(counts), leave


def anneal(batches: Sequence[Batch], counts: Counts, leave: Sequence[Array], count: int, config: StartConfig) -> Counts:
    """EM from a guess: from the ends of the videos inwards, durations held meanwhile, and then in full."""
    pinned = any(batch.pinned.any() for batch in batches)
    warm = 0 if pinned else round(config.anchored * config.iterations)
    for step in range(config.iterations):
        if step > warm:
            leave = [counts.leave()[batch.chain] for batch in batches]
        tau = 20 ** (step / max(warm - 1, 1)) if step < warm else np.inf
        power = _power(config.first_power, config, step, config.iterations)
        counts = _step(batches, counts, leave, power, tau, count, config)
    return counts


def refine(batches: Sequence[Batch], counts: Counts, count: int, config: StartConfig, iterations: int) -> Counts:
    """EM from counts that know durations too."""
    begun = 0.5 * (config.first_power + config.last_power)
    for step in range(iterations):
        leave = [counts.leave()[batch.chain] for batch in batches]
        counts = _step(batches, counts, leave, _power(begun, config, step, iterations), np.inf, count, config)
    return counts


def judge(batches: Sequence[Batch], counts: Counts, config: StartConfig) -> Candidate:
    """What the model of `counts` makes of the videos."""
    model, leave = counts.gaussians(), counts.leave()
    log_likelihood = margin = 0.0
    for batch in batches:
        emission = model.log_likelihood(batch.x, config.last_power)
        chained, _ = batch.expect(emission, leave[batch.chain])
        log_likelihood += float(chained.sum())
        margin += float((chained - batch.free(emission, leave, config.sub_states)).sum())
    frames = sum(int(batch.lengths.sum()) for batch in batches)
    return Candidate(counts, log_likelihood / frames, margin / frames)


def beliefs(batches: Sequence[Batch], counts: Counts, config: StartConfig) -> list[Beliefs]:
    """Belief (T_i, M_i) in every segment of every video, in the order of the batches."""
    model, leave = counts.gaussians(), counts.leave()
    found: list[Beliefs] = []
    for batch in batches:
        found += batch.beliefs(batch.expect(model.log_likelihood(batch.x, config.last_power), leave[batch.chain])[1])
    return found


def decode(*told: Beliefs) -> NDArray[np.int64]:
    """Segment (T,) of every frame: in order, all present, the sum of the beliefs (T, M) told greatest."""
    return viterbi_align(np.sum(told, axis=0), range(told[0].shape[1])).labels


def agreement(batches: Sequence[Batch], candidates: Sequence[Candidate], config: StartConfig) -> float:
    """Share of frames where a candidate alone puts the segment that all of them together do, mean over them."""
    told = [beliefs(batches, each.counts, config) for each in candidates]
    same = [[decode(one) == decode(*each) for one in each] for each in zip(*told, strict=True)]
    return float(np.mean([np.mean(each) for each in same]))


def _step(
    batches: Sequence[Batch],
    counts: Counts,
    leave: Sequence[Array],
    power: float,
    tau: float,
    count: int,
    config: StartConfig,
) -> Counts:
    model = counts.gaussians()
    return _sum(
        [
            batch.count(
                batch.expect(model.log_likelihood(batch.x, power), chances)[1],
                np.exp(-batch.depth / tau),
                states_of(count, config),
            )
            for batch, chances in zip(batches, leave, strict=True)
        ]
    )


def _power(first: float, config: StartConfig, step: int, steps: int) -> float:
    return first + (config.last_power - first) * step / max(steps - 1, 1)


def _sum(counts: Sequence[Counts]) -> Counts:
    total = counts[0]
    for other in counts[1:]:
        total = total + other
    return total
