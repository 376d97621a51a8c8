"""The frame encoder, trained on the labels so far: those of the starter, or the given ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.config import Learning
from edge_hal.learning.data.recordings import Labels, Recording
from edge_hal.learning.networks.optimise import Stage, batches
from edge_hal.model.encoder import FrameEncoder, augmented
from edge_hal.spec import EncoderSpec

LABEL_SMOOTHING = 0.1
CLIP_PICTURES, CLIP_SPACING_S = 4, 0.5
CLIP_WIDTH = 96


class ClipClassifier(nn.Module):
    """The encoder and two heads that only serve to train it: one reads a picture, one a few in a row.

    Steps that look alike in every single picture differ in how the hand moves: only the second head asks the
    encoder to keep where things are.
    """

    def __init__(self, spec: EncoderSpec, count: int, dropout: float) -> None:
        super().__init__()
        self.encoder = FrameEncoder(spec)
        self.picture = nn.Sequential(nn.Dropout(dropout), nn.Linear(spec.size, count))
        self.clip = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(CLIP_PICTURES * spec.size, CLIP_WIDTH),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(CLIP_WIDTH, count),
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, CLIP_PICTURES, H, W, 3) uint8 -> logits of each picture (B, CLIP_PICTURES, K), of the clip (B, K)."""
        vectors: Tensor = self.encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        return self.picture(vectors), self.clip(vectors.flatten(1))


def learn_encoder(
    recordings: Sequence[Recording],
    labels: Sequence[Labels],
    spec: EncoderSpec,
    count: int,
    model_hz: float,
    config: Learning,
    stage: Stage,
) -> FrameEncoder:
    """Train on pictures of `recordings` with `labels`, one array (T,) per recording."""
    settings = config.encoder
    torch.manual_seed(stage.seed)
    module = ClipClassifier(spec, count, settings.dropout)
    # `hz` pictures of each second in an epoch, whatever the size of a clip.
    bin_ticks = max(1, round(CLIP_PICTURES * model_hz / settings.hz))
    spacing = max(1, round(CLIP_SPACING_S * model_hz))
    back = spacing * np.arange(CLIP_PICTURES - 1, -1, -1)
    starts = [np.arange(0, len(recording.inputs), bin_ticks) for recording in recordings]
    owner = np.repeat(np.arange(len(recordings)), [len(start) for start in starts])
    first = np.concatenate(starts)
    size = max(2, settings.batch // CLIP_PICTURES)

    def epoch(number: int, generator: torch.Generator) -> Iterator[Tensor]:
        # A random tick of each bin: every frame is seen over the epochs.
        offset = torch.randint(0, bin_ticks, (len(first),), generator=generator).numpy()
        for batch in batches(len(first), size, generator):
            pictures, targets = [], []
            for i in batch:
                last = min(first[i] + offset[i], len(labels[owner[i]]) - 1)
                ticks = np.maximum(last - back, 0)
                pictures.append(np.stack([recordings[owner[i]].inputs[tick] for tick in ticks]))
                targets.append(labels[owner[i]][ticks])
            clips, target = torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(targets))
            clips = augmented(clips.flatten(0, 1), generator).unflatten(0, clips.shape[:2])
            clips, target = clips.to(stage.device), target.to(stage.device)
            single, clip = module(clips)
            yield F.cross_entropy(
                single.flatten(0, 1), target.flatten(), label_smoothing=LABEL_SMOOTHING
            ) + F.cross_entropy(clip, target[:, -1], label_smoothing=LABEL_SMOOTHING)

    stage.optimise(
        module,
        epoch,
        epochs=settings.epochs,
        steps=-(-len(first) // size),
        lr=settings.lr,
        weight_decay=config.weight_decay,
    )
    return module.encoder
