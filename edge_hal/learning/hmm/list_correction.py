"""Step lists read again with what was learnt from them: steps that are not there go, those that are missing come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.metrics import transcript_of

from .em import Candidate, StartConfig, judge, refine
from .list_edits import SETS, Path, edited
from .problem import Problem
from .transcript_chain import Counts

Array = NDArray[np.float64]

ROUNDS = 3
ITERATIONS = 4
"""Of EM on the lists of a round, before they are read again."""


def corrected(problem: Problem, models: Sequence[Candidate]) -> tuple[Problem, tuple[Candidate, ...]]:
    """Correct the lists of the videos that are not pinned, refit the models, and again. It is always the lists as
    they were given that are edited: a correction can be taken back."""
    now = problem
    for _ in range(ROUNDS):
        counts = [each.counts for each in models]
        paths = [
            None if pin is not None else read_again(video, steps, counts, problem.count, problem.config)
            for video, steps, pin in zip(problem.videos, problem.lists, problem.pins, strict=True)
        ]
        lists = [list_of(*each) for each in zip(paths, problem.lists, strict=True)]
        now = replace(problem, lists=lists)
        batches = now.batches()
        models = [
            judge(batches, refine(batches, each, problem.count, problem.config, ITERATIONS), problem.config)
            for each in counts
        ]
    return now, tuple(models)


def read_again(
    video: Array, steps: Sequence[int], models: Sequence[Counts], count: int, config: StartConfig
) -> Path | None:
    """The likeliest edit of the list of a video (T, d), by the mean of what the models say; None where the video is
    too short for any."""
    said = [model.gaussians().log_likelihood(video, config.last_power) for model in models]
    leave = np.mean([model.leave() for model in models], axis=0)
    return edited(np.mean(said, axis=0), leave, steps, states_by_label(count, config), config.edits)


def read_set(video: Array, members: Sequence[int], model: Counts, count: int, config: StartConfig) -> Path | None:
    """The likeliest path of a video (T, d) through the steps of a set, each of which occurs; None where the video is
    too short for any.

    The free path first; a step that it leaves out is then required, at the best of the places among those required
    before it.
    """
    emission = model.gaussians().log_likelihood(video, config.last_power)
    leave, states = model.leave(), states_by_label(count, config)
    required: tuple[int, ...] = ()
    best = edited(emission, leave, required, states, SETS, members)
    while best is not None:
        left_out = sorted(set(members) - set(best.labels.tolist()))
        if not left_out or (len(required) + 1) * states.shape[1] > len(video):
            break
        places = [(*required[:at], left_out[0], *required[at:]) for at in range(len(required) + 1)]
        paths = [edited(emission, leave, place, states, SETS, members) for place in places]
        required, best = max(
            ((place, path) for place, path in zip(places, paths, strict=True) if path is not None),
            key=lambda found: found[1].score,
        )
    return best


def list_of(path: Path | None, otherwise: Sequence[int]) -> tuple[int, ...]:
    return tuple(otherwise) if path is None else transcript_of(path.labels)


def states_by_label(count: int, config: StartConfig) -> NDArray[np.int64]:
    """(K, J): the states a segment of each label passes through, see `transcript_chain.py`."""
    states = np.arange(count * config.sub_states).reshape(count, config.sub_states)
    if config.pause:
        states = np.pad(states, ((0, 0), (0, 1)), constant_values=count * config.sub_states)
    return states
