"""Causal networks of the field, trained on frame labels, given or found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.learning.data.recordings import Labels
from edge_hal.learning.networks.losses import frame_loss, smooth_loss
from edge_hal.learning.networks.optimise import Stage, batches
from edge_hal.learning.networks.share import Batch, Term
from edge_hal.learning.networks.student import crops
from edge_hal.learning.networks.teacher import labels_padded, padded
from tests.helpers.lagging import lagging

from .harness import Data, Learnt

REALIGN_EVERY = 2


class CausalGRU(nn.Module):
    """Front-end features (B, T, F) -> logits (B, T, K): two layers, a memory without bound."""

    def __init__(self, size: int, labels: int, width: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        self.recurrent = nn.GRU(size, width, num_layers=2, batch_first=True, dropout=dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, labels))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.recurrent(x)[0]
        logits: Tensor = self.head(hidden)
        return logits


class CausalTCN(nn.Module):
    """Front-end features (B, T, F) -> logits (B, T, K): one stage of MS-TCN (arXiv 1903.01945) padded on the left
    alone. Dilated residual layers, kernel 3, dilation doubling until a tick sees `memory` ticks."""

    def __init__(self, size: int, labels: int, memory: int, width: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        # Dilations 1, 2, 4 .. 2^(n-1) with kernel 3 see 2^(n+1) - 1 ticks.
        self.dilations = [2**n for n in range(max(1, math.ceil(math.log2(memory + 1)) - 1))]
        self.entry = nn.Linear(size, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=d) for d in self.dilations)
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in self.dilations)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        for dilation, convolution, mix in zip(self.dilations, self.convolutions, self.mixes, strict=True):
            seen = convolution(F.pad(x.transpose(1, 2), (2 * dilation, 0))).transpose(1, 2)
            x = x + self.dropout(mix(torch.relu(seen)))
        logits: Tensor = self.head(x)
        return logits


def causal_network(name: str, data: Data) -> nn.Module:
    size, labels, dropout = data.features[0].shape[1], len(data.spec.labels), data.config.learning.dropout
    if name == "gru-full":
        return CausalGRU(size, labels, dropout=dropout)
    return CausalTCN(size, labels, data.spec.receptive_field, dropout=dropout)


def learn_network(
    network: nn.Module,
    data: Data,
    labels: list[Labels],
    stage: Stage,
    epochs: int,
    realign: Callable[[], list[Labels]] | None = None,
    fixed_epochs: int = 0,
    whole: Callable[[torch.Generator], Iterator[Batch]] | None = None,
    whole_steps: int = 0,
) -> None:
    """Train on crops as our student is: their length, noise, batches, steps and smoothing. After `fixed_epochs`
    `labels` are replaced by those of `realign` every `REALIGN_EVERY` epochs. `whole` yields `whole_steps` more losses
    an epoch, of what crops cannot say."""
    settings, weights = data.config.learning.student, data.config.learning.weights
    crop = max(2 * data.spec.period(data.spec.top), round(settings.crop_s * data.spec.model_hz))

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        if realign is not None and number >= fixed_epochs and (number - fixed_epochs) % REALIGN_EVERY == 0:
            labels[:] = realign()
            network.train()
        late = [lagging(y, data.spec.lag_ticks) for y in labels]
        pieces = crops([len(x) for x in data.features], crop, generator)
        for batch in batches(len(pieces), settings.batch, generator):
            where = [pieces[i] for i in batch]
            x, exists = padded([data.features[i][part] for i, part in where])
            target = labels_padded([late[i][part] for i, part in where], x.shape[1])
            noisy = x + settings.noise * torch.randn(x.shape, generator=generator)
            yield Batch(losses, (noisy, exists, target))
        if whole is not None:
            yield from whole(generator)

    def losses(x: Tensor, exists: Tensor, target: Tensor) -> list[Term]:
        logits = network(x)
        return [
            Term(weights.frame, frame_loss(logits, target)),
            Term(weights.smooth, smooth_loss(logits, exists)),
        ]

    expected = sum(1 + len(x) // crop for x in data.features)
    stage.optimise(
        network,
        epoch,
        epochs=epochs,
        steps=-(-expected // settings.batch) + whole_steps,
        lr=settings.lr,
        weight_decay=data.config.learning.weight_decay,
    )


@torch.inference_mode()
def log_posterior(network: nn.Module, x: Tensor) -> NDArray[np.float32]:
    """One causal pass (T, K), which equals the stream tick by tick."""
    network.eval()
    where = next(network.parameters()).device  # in the midst of training, and after
    return torch.log_softmax(network(x[None].to(where))[0], -1).cpu().numpy()


def learn_supervised(name: str, data: Data, stage: Stage) -> Learnt:
    network = causal_network(name, data)
    labels = [recording.labels for recording in data.recordings if recording.labels is not None]
    learn_network(network, data, list(labels), stage, data.config.learning.student.epochs)
    return Learnt(lambda x: log_posterior(network, x), fitted(network, data, labels))


def fitted(network: nn.Module, data: Data, labels: Sequence[Labels]) -> DecoderConfig:
    streamed = [log_posterior(network, x) for x in data.features]
    return fit_decoder(streamed, labels, data.spec, data.config.decoder.given())
