"""Training of one hidden Markov model on all videos: EM with the forward-backward algorithm (Rabiner 1989, section
III).

The model is held as expected counts (`Counts`), from which Gaussians and transition probabilities follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .list_edits import NOISY_COSTS, EditCosts
from .transcript_chain import Batch, Counts
from .viterbi import viterbi_align

Array = NDArray[np.float64]
Posteriors = NDArray[np.floating]


@dataclass(frozen=True)
class HmmConfig:
    """Size and training of the model, and the search over restarts.

    Attributes:
        sub_states: Gaussian states of each action, passed in order.
        components: principal components of the features that are used.
        iterations: EM iterations of one restart.
        first_power, last_power: emissions are raised to a power that goes from the first to the second over the
            iterations. It is below 1 because neighbouring frames are not independent.
        anchored_share: for this share of the iterations, segment m of M is weighted by exp(-min(m, M-1-m) / tau), with
            tau from 1 to 20, and the durations stay as initialised, in the next iteration too. The ends of a video
            come first, because the order leaves little choice there.
        duration_spread: standard deviation of the log durations that a restart begins with.
        normalise_videos: z-score the features of each video by itself.
        pause: every action may end in one state that all actions share. What looks the same between any two steps
            then belongs to the step before, since a live observer cannot know which step comes next.
        first_videos, more_videos: all restarts are trained on the first number of videos, the best on the second.
        population: how many restarts are kept for that, and the size of the population of the genetic search.
        generations: how many generations of children, if the kept restarts disagree.
        voters: how many of the best models are averaged in the end.
        agreement: if the kept restarts agree on this share of the frames there is no genetic search, and the better
            half of them is averaged: their differences are noise.
        edit_costs: the costs of edits of a step list, if the lists may be wrong.
    """

    sub_states: int = 3
    components: int = 12
    iterations: int = 10
    first_power: float = 0.1
    last_power: float = 0.3
    anchored_share: float = 0.6
    duration_spread: float = 0.8
    normalise_videos: bool = True
    pause: bool = False
    first_videos: int = 12
    more_videos: int = 24
    population: int = 16
    generations: int = 20
    voters: int = 3
    agreement: float = 0.9
    edit_costs: EditCosts = NOISY_COSTS


@dataclass(frozen=True)
class Candidate:
    """A trained model and its scores.

    Attributes:
        counts: the model.
        log_likelihood: per frame, with emissions raised to `last_power`.
        margin: the log-likelihood minus that of the same model if every action may follow every other. It is small
            if the order of the steps explains nothing.
    """

    counts: Counts
    log_likelihood: float
    margin: float


def states_of(count: int, config: HmmConfig) -> int:
    """States of a model of `count` actions."""
    return count * config.sub_states + config.pause


def initialise(batches: Sequence[Batch], count: int, config: HmmConfig, per_label: Array) -> tuple[Counts, list[Array]]:
    """The first counts and, for each batch, the exit probabilities (N, P), from a split of each video into segments
    with durations in proportion to `per_label` (K,). If some videos are labelled, the counts come from those alone."""
    labelled = any(batch.labelled.any() for batch in batches)
    leave, counts = [], []
    for batch in batches:
        exit_probability, gamma = batch.initial_posteriors(per_label)
        leave.append(exit_probability)
        weight = np.where(batch.labelled[:, None], 1.0, 0.0 if labelled else np.exp(-batch.depth))
        counts.append(batch.expected_counts(gamma, weight, states_of(count, config)))
    return _sum(counts), leave


def anneal(batches: Sequence[Batch], counts: Counts, leave: Sequence[Array], count: int, config: HmmConfig) -> Counts:
    """EM from initial counts. At first the ends of the videos weigh most and the durations are fixed, see
    `HmmConfig`."""
    labelled = any(batch.labelled.any() for batch in batches)
    anchored = 0 if labelled else round(config.anchored_share * config.iterations)
    for step in range(config.iterations):
        if step > anchored:
            leave = [counts.leave()[batch.chain] for batch in batches]
        tau = 20 ** (step / max(anchored - 1, 1)) if step < anchored else np.inf
        power = _power(config.first_power, config, step, config.iterations)
        counts = _step(batches, counts, leave, power, tau, count, config)
    return counts


def refine(batches: Sequence[Batch], counts: Counts, count: int, config: HmmConfig, iterations: int) -> Counts:
    """EM from trained counts: all segments weigh the same, and durations are re-estimated."""
    first = 0.5 * (config.first_power + config.last_power)
    for step in range(iterations):
        leave = [counts.leave()[batch.chain] for batch in batches]
        counts = _step(batches, counts, leave, _power(first, config, step, iterations), np.inf, count, config)
    return counts


def evaluate(batches: Sequence[Batch], counts: Counts, config: HmmConfig) -> Candidate:
    """The scores of a model on these videos."""
    model, leave = counts.gaussians(), counts.leave()
    log_likelihood = margin = 0.0
    for batch in batches:
        emission = model.log_likelihood(batch.x, config.last_power)
        chained, _ = batch.forward_backward(emission, leave[batch.chain])
        log_likelihood += float(chained.sum())
        margin += float(np.nansum(order_gain(batch, chained, emission, leave, config)))
    frames = sum(int(batch.lengths.sum()) for batch in batches)
    return Candidate(counts, log_likelihood / frames, margin / frames)


def order_gain(batch: Batch, chained: Array, emission: Array, leave: Array, config: HmmConfig) -> Array:
    """(N,) the log-likelihood of each list beyond that of any order; NaN for a video that is too short for one action.

    Args:
        chained: (N,) log-likelihood of the lists. emission: (T, N, S) log-likelihoods. leave: (S,) exit probabilities.
    """
    gain = chained - batch.free_log_likelihood(emission, leave, config.sub_states)
    return np.where(batch.lengths < config.sub_states + config.pause, np.nan, gain)


def segment_posteriors(batches: Sequence[Batch], counts: Counts, config: HmmConfig) -> list[Posteriors]:
    """Posterior (T_i, M_i) of each segment at each frame, for each video in the order of the batches."""
    model, leave = counts.gaussians(), counts.leave()
    found: list[Posteriors] = []
    for batch in batches:
        found += batch.segment_posteriors(
            batch.forward_backward(model.log_likelihood(batch.x, config.last_power), leave[batch.chain])[1]
        )
    return found


def most_likely_segments(*posteriors: Posteriors) -> NDArray[np.int64]:
    """(T,) the segment of each frame: the segmentation in order, with every segment present, that maximises the sum of
    the posteriors (T, M) of one or more models."""
    return viterbi_align(np.sum(posteriors, axis=0), range(posteriors[0].shape[1])).labels


def agreement(batches: Sequence[Batch], candidates: Sequence[Candidate], config: HmmConfig) -> float:
    """Share of frames where one candidate alone gives the same segment as all of them together, averaged over them."""
    found = [segment_posteriors(batches, each.counts, config) for each in candidates]
    same = [
        [most_likely_segments(one) == most_likely_segments(*each) for one in each] for each in zip(*found, strict=True)
    ]
    return float(np.mean([np.mean(each) for each in same]))


def _step(
    batches: Sequence[Batch],
    counts: Counts,
    leave: Sequence[Array],
    power: float,
    tau: float,
    count: int,
    config: HmmConfig,
) -> Counts:
    """One EM iteration, segments weighted by exp(-depth / tau)."""
    model = counts.gaussians()
    return _sum(
        [
            batch.expected_counts(
                batch.forward_backward(model.log_likelihood(batch.x, power), exit_probability)[1],
                np.exp(-batch.depth / tau),
                states_of(count, config),
            )
            for batch, exit_probability in zip(batches, leave, strict=True)
        ]
    )


def _power(first: float, config: HmmConfig, step: int, steps: int) -> float:
    return first + (config.last_power - first) * step / max(steps - 1, 1)


def _sum(counts: Sequence[Counts]) -> Counts:
    total = counts[0]
    for other in counts[1:]:
        total = total + other
    return total
