"""The frame encoder, trained on the labels so far: those of the starter, or the given ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.config import Learning
from edge_hal.learning.optimise import Stage, batches
from edge_hal.learning.recordings import Labels, Recording
from edge_hal.model.encoder import FrameEncoder, augmented
from edge_hal.spec import EncoderSpec

LABEL_SMOOTHING = 0.1


class FrameClassifier(nn.Module):
    """The encoder and a linear head that only serves to train it."""

    def __init__(self, spec: EncoderSpec, count: int, dropout: float) -> None:
        super().__init__()
        self.encoder = FrameEncoder(spec)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(spec.size, count))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(pictures))
        return logits


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
    module = FrameClassifier(spec, count, settings.dropout)
    bin_ticks = max(1, round(model_hz / settings.hz))
    starts = [np.arange(0, len(recording.inputs), bin_ticks) for recording in recordings]
    owner = np.repeat(np.arange(len(recordings)), [len(start) for start in starts])
    first = np.concatenate(starts)

    def epoch(number: int, generator: torch.Generator) -> Iterator[Tensor]:
        # A random tick of each bin: every frame is seen over the epochs, a few per second in each.
        offset = torch.randint(0, bin_ticks, (len(first),), generator=generator).numpy()
        for batch in batches(len(first), settings.batch, generator):
            if len(batch) < 2:  # batch statistics need two
                continue
            where = [(owner[i], first[i] + offset[i]) for i in batch]
            where = [(o, min(tick, len(labels[o]) - 1)) for o, tick in where]
            pictures = np.stack([recordings[o].inputs[tick] for o, tick in where])
            target = torch.tensor([int(labels[o][tick]) for o, tick in where])
            logits = module(augmented(torch.from_numpy(pictures), generator))
            yield F.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING)

    stage.optimise(
        module,
        epoch,
        epochs=settings.epochs,
        steps=-(-len(first) // settings.batch),
        lr=settings.lr,
        weight_decay=config.weight_decay,
    )
    return module.encoder
