"""From step lists alone, from the uniform split: hard EM, and with it a discriminative forward loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_hal.learning.data.recordings import Labels
from edge_hal.learning.hmm.viterbi import viterbi_align
from edge_hal.learning.networks.optimise import Stage, batches
from edge_hal.learning.networks.share import Batch, Term
from edge_hal.learning.networks.teacher import padded
from edge_hal.metrics import uniform_split
from edge_hal.model.latents import Mean

from .causal import causal_network, fitted, learn_network, log_posterior
from .harness import Data, Learnt

NEVER = -1e4  # log of an impossible event: finite, so that gradients stay numbers


def learn_viterbi_em(data: Data, stage: Stage, *, discriminative: bool = False) -> Learnt:
    """A causal network and Viterbi alignment take turns, for as many epochs as our teacher and student have together.

    Args:
        discriminative: every epoch also has one pass over whole videos with `forward_loss`.
    """
    network = causal_network("tcn", data)
    transcripts = [recording.transcript for recording in data.recordings]
    labels: list[Labels] = [uniform_split(t, len(x)) for x, t in zip(data.features, transcripts, strict=True)]
    lag = data.spec.lag_ticks  # rows that wrap round are of ticks nobody spoke of yet
    settings = data.config.learning.student

    def log_share() -> Tensor:
        count = np.bincount(np.concatenate(labels), minlength=len(data.spec.labels))
        return torch.from_numpy(np.log((count + 1) / (count.sum() + len(count))).astype(np.float32))

    def realign() -> list[Labels]:
        share = log_share().numpy()
        return [
            viterbi_align(np.roll(log_posterior(network, x), -lag, axis=0) - share, t).labels
            for x, t in zip(data.features, transcripts, strict=True)
        ]

    def whole(generator: torch.Generator) -> Iterator[Batch]:
        for batch in batches(len(data.features), settings.batch, generator):
            x, exists = padded([data.features[i] for i in batch])
            noisy = x + settings.noise * torch.randn(x.shape, generator=generator)
            yield Batch(partial(losses, [transcripts[i] for i in batch]), (noisy, exists))

    def losses(lists: list[tuple[int, ...]], x: Tensor, exists: Tensor) -> list[Term]:
        logits = network(x).cpu()  # on CUDA, CTC with a blank that never occurs is untried
        lengths = exists.sum(1).long().cpu()
        return [Term(1.0, Mean(forward_loss(logits - log_share(), lengths, lists), len(lists)))]

    learning = data.config.learning
    learn_network(
        network,
        data,
        labels,
        stage,
        learning.teacher.warm_epochs + learning.teacher.epochs + learning.student.epochs,
        realign,
        max(1, learning.teacher.warm_epochs),
        whole=whole if discriminative else None,
        whole_steps=-(-len(data.features) // settings.batch) if discriminative else 0,
    )
    labels = realign()
    return Learnt(lambda x: log_posterior(network, x), fitted(network, data, labels), labels)


def forward_loss(scores: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[int]]) -> Tensor:
    """Minus the log share, a tick, that the paths a transcript allows have among all paths: the discriminative
    forward loss of CDFL (arXiv 1909.13155), over all paths where it takes those near the best boundaries.

    Each tick is normalised, so that all paths weigh 1 together; the rest is CTC (Graves et al., ICML 2006) whose blank
    never occurs. Two segments of one action in a row are one segment.

    Args:
        scores: (B, T, K), padded; lengths: (B,) ticks.
    """
    log_p = torch.cat([scores.new_full((*scores.shape[:2], 1), NEVER), torch.log_softmax(scores, -1)], -1)
    targets = [torch.tensor([step + 1 for step, _ in itertools.groupby(steps)]) for steps in transcripts]
    counts = torch.tensor([len(target) for target in targets])
    total = F.ctc_loss(log_p.transpose(0, 1), torch.cat(targets), lengths, counts, reduction="sum")
    return total / lengths.sum()
