"""Posteriors of videos that a network was not trained on, by two folds. Thresholds are fitted on them, because a
network is too certain on its own training videos.

What the folds share has seen all videos: the alignment, and the frame encoder of kind `own`. With `--init` they begin
with the weights of the earlier run only if that was trained on none of these videos (`Training.stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.config import Learning
from edge_hal.learning.data.recordings import Labels
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import PyramidSpec

from .optimise import Stage
from .student import learn_student
from .world import ALONE, World

FOLDS = 2
SHORTENED = 2
"""The students of the folds are trained for this part of the epochs. Both together take half the time of the student:
each has half of the videos."""
BLOCK_TICKS = 8192


def held_out_posteriors(
    features: Sequence[Tensor],
    labels: Sequence[Labels],
    teacher: Sequence[NDArray[np.float32]] | None,
    spec: PyramidSpec,
    config: Learning,
    stage: Callable[[str], Stage],
    copies: Sequence[Sequence[Tensor]] = (),
    begin: Callable[[Pyramid], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Log posteriors (T, H K) of each video, by a student that was trained on the other fold.

    Args: as for `learn_student`. `stage` makes a stage of training of a name.
    """
    settings = config.student
    shorter = {"epochs": -(-settings.epochs // SHORTENED), "least_steps": settings.least_steps // SHORTENED}
    config = config.model_copy(update={"student": settings.model_copy(update=shorter)})
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(features)
    for fold in range(FOLDS):
        held = range(fold, len(features), FOLDS)
        seen = [i for i in range(len(features)) if i not in held]
        of_fold = stage(f"fold {fold + 1} of {FOLDS}")
        pyramid = learn_student(
            [features[i] for i in seen],
            [labels[i] for i in seen],
            None if teacher is None else [teacher[i] for i in seen],
            spec,
            config,
            of_fold,
            [[views[i] for i in seen] for views in copies],
            begin,
        )
        streamed = streamed_posteriors(pyramid, [features[i] for i in held], of_fold.world)
        for index, posteriors in zip(held, streamed, strict=True):
            found[index] = posteriors
    return found


@torch.inference_mode()
def streamed_posteriors(
    pyramid: Pyramid, features: Sequence[Tensor], world: World = ALONE
) -> list[NDArray[np.float32]]:
    """Log posteriors (T, H K) per video, as in `PyramidStream.heads`. Each process of `world` computes a share.

    They are equal to those of a stream, because the one pass of a causal network equals its steps. Long videos are
    computed in blocks, each with a receptive field of ticks before it, from the end of a bin of the top level.
    """
    period = pyramid.spec.period(pyramid.spec.top)
    early = -(-pyramid.spec.receptive_field // period) * period
    block = -(-BLOCK_TICKS // period) * period

    def posteriors(x: Tensor) -> Tensor:
        parts = []
        for first in range(0, len(x), block):
            begin = max(0, first - early)
            made = pyramid(x[None, begin : first + block])
            heads = [made.frame.unsqueeze(2)] + ([] if made.lagged is None else [made.lagged])
            parts.append(torch.cat(heads, 2)[0, first - begin :])
        return torch.log_softmax(torch.cat(parts), -1).flatten(1)

    return world.each(lambda x: posteriors(x).numpy(), features)
