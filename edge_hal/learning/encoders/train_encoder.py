"""Training of the frame encoder, on the labels of the first alignment or on those of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.config import Learning
from edge_hal.learning.data.background_swap import SWAPPED, SwappedBackground
from edge_hal.learning.data.recordings import Labels, SampledRecording
from edge_hal.learning.networks.optimise import Stage, batches
from edge_hal.learning.networks.share import Batch, Term
from edge_hal.model.encoder import FrameEncoder, augmentation, augmented
from edge_hal.model.latents import Mean
from edge_hal.spec import EncoderSpec

LABEL_SMOOTHING = 0.1
CLIP_PICTURES, CLIP_SPACING_S = 4, 0.5
CLIP_WIDTH = 96


class ClipClassifier(nn.Module):
    """The encoder with two heads that are used in training only: one classifies a picture, one a few consecutive ones.

    Some steps look alike in every picture and differ in the motion of the hand. Only the second head makes the encoder
    keep the positions that this needs.
    """

    def __init__(self, spec: EncoderSpec, count: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.size = FrameEncoder(spec), spec.size
        self.picture = nn.Sequential(nn.Dropout(dropout), nn.Linear(spec.size, count))
        self.clip = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(CLIP_PICTURES * spec.size, CLIP_WIDTH),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(CLIP_WIDTH, count),
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, CLIP_PICTURES, H, W, 3) -> logits of each picture (B, CLIP_PICTURES, K) and of the clip (B, K)."""
        vectors = self.encoder(pictures.flatten(0, 1))[:, : self.size].unflatten(0, pictures.shape[:2])
        return self.picture(vectors), self.clip(vectors.flatten(1))


def learn_encoder(
    recordings: Sequence[SampledRecording],
    labels: Sequence[Labels],
    spec: EncoderSpec,
    count: int,
    model_hz: float,
    config: Learning,
    stage: Stage,
    swapped: Sequence[SwappedBackground] = (),
) -> FrameEncoder:
    """Train on the pictures of `recordings` with `labels` (T,) per recording.

    Args:
        swapped: the same pictures with swapped backgrounds, per recording; none: the encoder does not see such.
    """
    settings = config.encoder
    torch.manual_seed(stage.seed)
    module = ClipClassifier(spec, count, settings.dropout)
    # An epoch has `hz` pictures of each second, whatever the size of a clip.
    bin_ticks = max(1, round(CLIP_PICTURES * model_hz / settings.hz))
    spacing = max(1, round(CLIP_SPACING_S * model_hz))
    back = spacing * np.arange(CLIP_PICTURES - 1, -1, -1)
    starts = [np.arange(0, len(recording.inputs), bin_ticks) for recording in recordings]
    owner = np.repeat(np.arange(len(recordings)), [len(start) for start in starts])
    first = np.concatenate(starts)
    size = max(2, settings.batch // CLIP_PICTURES)

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        # A random tick of each bin, so that all frames are used over the epochs.
        offset = torch.randint(0, bin_ticks, (len(first),), generator=generator).numpy()
        swap = torch.rand(len(first), generator=generator).numpy() < SWAPPED if swapped else np.zeros(len(first), bool)
        for batch in batches(len(first), size, generator):
            pictures, targets = [], []
            for i in batch:
                last = min(first[i] + offset[i], len(labels[owner[i]]) - 1)
                ticks = np.maximum(last - back, 0)
                source = swapped[owner[i]] if swap[i] else recordings[owner[i]].inputs
                pictures.append(np.stack([source[tick] for tick in ticks]))
                targets.append(labels[owner[i]][ticks])
            clips, target = torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(targets))
            yield Batch(losses, (clips, target, *augmentation(clips.flatten(0, 1), generator)))

    def losses(clips: Tensor, target: Tensor, *drawn: Tensor) -> list[Term]:
        single, clip = module(augmented(clips.flatten(0, 1), *drawn).unflatten(0, clips.shape[:2]))
        return [Term(1.0, _cross_entropy(single.flatten(0, 1), target.flatten()), _cross_entropy(clip, target[:, -1]))]

    stage.optimise(
        module,
        epoch,
        epochs=settings.epochs,
        steps=-(-len(first) // size),
        lr=settings.lr,
        weight_decay=config.weight_decay,
    )
    return module.encoder


def _cross_entropy(logits: Tensor, target: Tensor) -> Mean:
    return Mean(F.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING), len(target))
