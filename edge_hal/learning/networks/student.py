"""The causal student: a network that is trained on the teacher's alignment and posteriors of the training videos.

If only transcripts are given, this module sees no true frame label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_hal.config import Learning
from edge_hal.learning.data.recordings import Labels
from edge_hal.model.latents import Latents
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import PyramidSpec

from .losses import change_loss, distil_loss, frame_loss, smooth_loss
from .optimise import Stage, batches
from .share import Batch, Term
from .teacher import labels_padded, majority, padded


def learn_student(
    features: Sequence[Tensor],
    labels: Sequence[Labels],
    teacher: Sequence[NDArray[np.float32]] | None,
    spec: PyramidSpec,
    config: Learning,
    stage: Stage,
    copies: Sequence[Sequence[Tensor]] = (),
    begin: Callable[[Pyramid], None] | None = None,
) -> Pyramid:
    """Train the causal pyramid.

    Args:
        features: front-end features (T, 3 D) per video.
        labels: (T,) per video, from the alignment or from the user.
        teacher: log posteriors (T, K) per video, or None.
        copies: the features of augmented copies of all videos; labels and posteriors are those of the videos.
        begin: sets the weights that the training begins with.
    """
    features = [x for views in (features, *copies) for x in views]
    labels = [*labels] * (1 + len(copies))
    teacher = None if teacher is None else [*teacher] * (1 + len(copies))
    settings, weights = config.student, config.weights
    torch.manual_seed(stage.seed)
    pyramid = Pyramid(spec, dropout=config.dropout)
    if begin is not None:
        begin(pyramid)
    latents = Latents(spec)
    module = nn.ModuleDict({"pyramid": pyramid, "latents": latents})
    crop = max(2 * spec.period(spec.top), round(settings.crop_s * spec.model_hz))
    window = max(1, round(spec.change_window_s * spec.model_hz))
    lags = (spec.lag_ticks, *spec.other_lags_ticks)

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        pieces = crops([len(x) for x in features], crop, generator)
        for batch in batches(len(pieces), settings.batch, generator):
            chosen = (pieces[n] for n in batch)
            where = [Crop(i, part, order_of(labels[i], settings.shuffled or 0.0, generator)) for i, part in chosen]
            x, exists = padded([features[one.video][one.ticks()] for one in where])
            x = x + settings.noise * torch.randn(x.shape, generator=generator)
            moved = (settings.offset or 0.0) * torch.randn(len(x), 1, spec.front_end.width, generator=generator)
            x[..., : spec.front_end.width] += moved
            # Outputs of tick t describe tick t - lag, so targets are delayed by that much.
            steps = [[labels[one.video][one.ticks(lag)] for one in where] for lag in lags]
            targets = [labels_padded(each, x.shape[1]) for each in steps]
            before = [labels[one.video][one.ticks(lags[0], before=window)] for one in where]
            rows = [[recent_change(each, window)[window:] for each in before]]
            rows += [] if teacher is None else [[teacher[one.video][one.ticks(lags[0])] for one in where]]
            change, *known = (padded([torch.from_numpy(row) for row in of_each])[0] for of_each in rows)
            yield Batch(losses, (x, exists, targets[0], change, *targets[1:], *known))

    def losses(x: Tensor, exists: Tensor, target: Tensor, change: Tensor, *more: Tensor) -> list[Term]:
        outputs = pyramid(x, exists)
        latent = latents(outputs)
        terms = [
            Term(weights.frame, frame_loss(outputs.frame, target)),
            Term(weights.smooth, smooth_loss(outputs.frame, exists)),
            Term(weights.change, change_loss(outputs.change, change, exists)),
            Term(weights.reconstruction, *latent.reconstruction),
            Term(weights.kl, *latent.kl),
            Term(weights.sparse, latent.sparse),
        ]
        if outputs.action is not None:
            coarse = majority(target, spec.period(spec.top), len(spec.labels))
            terms.append(Term(weights.action, frame_loss(outputs.action, coarse[:, : outputs.action.shape[1]])))
        if outputs.lagged is not None:
            for head, late in enumerate(more[: len(lags) - 1]):
                terms.append(Term(weights.lagged / (len(lags) - 1), frame_loss(outputs.lagged[:, :, head], late)))
        if teacher is not None:
            terms.append(Term(weights.distil, distil_loss(outputs.frame, more[-1], exists)))
        return terms

    expected = sum(1 + len(x) // crop for x in features)
    steps = -(-expected // settings.batch)
    stage.optimise(
        module,
        epoch,
        epochs=settings.epochs and max(settings.epochs, -(-settings.least_steps // steps)),
        steps=steps,
        lr=settings.lr,
        weight_decay=config.weight_decay,
    )
    return pyramid


@dataclass(frozen=True)
class Crop:
    """The ticks `part` of a video, after its ticks were put into this order."""

    video: int
    part: slice
    order: NDArray[np.int64]

    def ticks(self, lag: int = 0, before: int = 0) -> NDArray[np.int64]:
        """The ticks `lag` earlier, and `before` ticks before them. The first tick of the video is repeated."""
        places = np.arange(self.part.start - before, min(self.part.stop, len(self.order))) - lag
        return cast("NDArray[np.int64]", self.order[np.maximum(places, 0)])


def crops(lengths: Sequence[int], crop: int, generator: torch.Generator) -> list[tuple[int, slice]]:
    """(video, ticks): each video cut into crops of `crop` ticks, at a random phase. The first crop begins at tick 0 and
    overlaps the second; an end shorter than a quarter of a crop is left out. A crop starts from a fresh state, as a
    stream does, and its bins start at its first tick."""
    pieces = []
    for index, length in enumerate(lengths):
        phase = int(torch.randint(0, crop, (1,), generator=generator))
        starts = [0, *range(crop - phase, max(1, length - crop // 4), crop)]
        pieces += [(index, slice(start, start + crop)) for start in starts]
    return pieces


def order_of(labels: Labels, shuffled: float, generator: torch.Generator) -> NDArray[np.int64]:
    """(T,) the ticks of a video in their order; with the probability `shuffled`, its segments are in random order. A
    network that sees only the usual order learns it, and does not see what breaks it."""
    ticks = np.arange(len(labels))
    if not shuffled or torch.rand((), generator=generator) >= shuffled:
        return ticks
    segments = np.split(ticks, np.flatnonzero(np.diff(labels)) + 1)
    return np.concatenate([segments[k] for k in torch.randperm(len(segments), generator=generator).tolist()])


def recent_change(labels: Labels, window: int) -> NDArray[np.float32]:
    """(T,): 1 if there is a boundary within the last `window` ticks."""
    change = np.flatnonzero(np.diff(labels)) + 1
    recent = np.zeros(len(labels), np.float32)
    for boundary in change:
        recent[boundary : boundary + window] = 1
    return recent
