"""Correction of step lists that may be wrong, with the models that were trained on them, and the reading of videos
whose steps are known without their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.metrics import transcript_of

from .em import Candidate, HmmConfig, evaluate, refine
from .list_edits import UNORDERED_COSTS, EditPath, align_with_edits
from .problem import Problem
from .transcript_chain import Counts

Array = NDArray[np.float64]

ROUNDS = 3
ITERATIONS = 4
"""EM iterations in each round, on the corrected lists."""


def correct_lists(problem: Problem, models: Sequence[Candidate]) -> tuple[Problem, tuple[Candidate, ...]]:
    """Correct the lists of the videos without labels, refit the models, and repeat. Each round edits the original
    lists, so a later round can undo a correction."""
    corrected = problem
    for _ in range(ROUNDS):
        counts = [each.counts for each in models]
        paths = [
            None if known is not None else correct_list(video, steps, counts, problem.count, problem.config)
            for video, steps, known in zip(problem.videos, problem.lists, problem.known_segments, strict=True)
        ]
        lists = [list_from_path(*each) for each in zip(paths, problem.lists, strict=True)]
        corrected = replace(problem, lists=lists)
        batches = corrected.batches()
        models = [
            evaluate(batches, refine(batches, each, problem.count, problem.config, ITERATIONS), problem.config)
            for each in counts
        ]
    return corrected, tuple(models)


def correct_list(
    video: Array, steps: Sequence[int], models: Sequence[Counts], count: int, config: HmmConfig
) -> EditPath | None:
    """The most likely path of a video (T, d) through an edited list, by the mean log-likelihood of the models; None if
    the video is shorter than one segment."""
    emissions = [model.gaussians().log_likelihood(video, config.last_power) for model in models]
    leave = np.mean([model.leave() for model in models], axis=0)
    return align_with_edits(np.mean(emissions, axis=0), leave, steps, states_by_label(count, config), config.edit_costs)


def best_unordered_path(
    video: Array, members: Sequence[int], model: Counts, count: int, config: HmmConfig
) -> EditPath | None:
    """The most likely path of a video (T, d) through a set of steps, each at least once; None if the video is shorter
    than one segment.

    A greedy search: it starts from the best path without constraints. While a step is missing, that step becomes
    required, at the best place among the steps required so far.
    """
    emission = model.gaussians().log_likelihood(video, config.last_power)
    leave, states = model.leave(), states_by_label(count, config)
    required: tuple[int, ...] = ()
    best = align_with_edits(emission, leave, required, states, UNORDERED_COSTS, members)
    while best is not None:
        missing = sorted(set(members) - set(best.labels.tolist()))
        if not missing or (len(required) + 1) * states.shape[1] > len(video):
            break
        places = [(*required[:at], missing[0], *required[at:]) for at in range(len(required) + 1)]
        paths = [align_with_edits(emission, leave, place, states, UNORDERED_COSTS, members) for place in places]
        required, best = max(
            ((place, path) for place, path in zip(places, paths, strict=True) if path is not None),
            key=lambda found: found[1].score,
        )
    return best


def list_from_path(path: EditPath | None, default: Sequence[int]) -> tuple[int, ...]:
    """The steps of a path in order; `default` if there is no path."""
    return tuple(default) if path is None else transcript_of(path.labels)


def states_by_label(count: int, config: HmmConfig) -> NDArray[np.int64]:
    """(K, J) the states that a segment of each label passes through; see `transcript_chain.py`."""
    states = np.arange(count * config.sub_states).reshape(count, config.sub_states)
    if config.pause:
        states = np.pad(states, ((0, 0), (0, 1)), constant_values=count * config.sub_states)
    return states
