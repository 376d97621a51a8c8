"""The offline teacher: a network that sees whole videos at the alignment rate, and aligns their transcripts.

Losses and alignment are those of ATBA (CVPR 2024), with the latents of HAL (arXiv 2602.24275). In the first epochs only
some terms are used: which actions occur, the variational terms, and the frame labels of the first alignment. Then all
terms are used, and the videos are aligned again every few epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.config import Learning
from edge_hal.learning.data.rates import choose_align_hz
from edge_hal.learning.data.recordings import Labels
from edge_hal.learning.hmm.known_labels import KnownSegments, align_between, bin_segments
from edge_hal.metrics import runs_of
from edge_hal.model.latents import Latents
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import PyramidSpec

from .boundary_alignment import align
from .losses import contrast_loss, frame_loss, video_loss
from .optimise import Stage, batches
from .share import Batch, Term

LONGEST_CROP = 2048
"""The most tokens of a video in one training step, so that memory is bounded."""


@dataclass(frozen=True)
class TeacherOutput:
    """Attributes:
    labels: (T,) the alignment of each video, at the ticks of the model.
    log_posteriors: (T, K) per video, at the ticks of the model.
    teacher: the network. Its tokens are means over `period` ticks.
    """

    labels: list[Labels]
    log_posteriors: list[NDArray[np.float32]]
    teacher: Pyramid
    period: int


def pooled(features: Tensor, period: int) -> Tensor:
    """(T, F) -> (ceil(T / period), F): means over bins. The last bin may be shorter."""
    tail = -len(features) % period
    total: Tensor = F.pad(features, (0, 0, 0, tail)).unflatten(0, (-1, period)).sum(1)
    count = torch.full((len(total), 1), float(period))
    count[-1] = period - tail
    return total / count


def pooled_labels(labels: Labels, period: int) -> Labels:
    """Labels of bins, (T,) -> (ceil(T / period),): those in the middle of each. If a segment would be lost, each bin
    has the label of most of its ticks, and each segment has one bin at least."""
    middle = labels[np.minimum(np.arange(-(-len(labels) // period)) * period + period // 2, len(labels) - 1)]
    values, starts, stops = runs_of(labels)
    if len(runs_of(middle)[0]) == len(values) or len(values) > len(middle):
        return middle
    segments = bin_segments(np.repeat(np.arange(len(values)), stops - starts), period)
    return np.asarray(values[segments], np.int64)


def learn_alignment(
    features: Sequence[Tensor],
    transcripts: Sequence[Sequence[int]],
    first_labels: Sequence[Labels],
    spec: PyramidSpec,
    config: Learning,
    stage: Stage,
    known_segments: Sequence[KnownSegments | None] | None = None,
) -> TeacherOutput:
    """Align every training video with its transcript.

    Args:
        features: front-end features (T, 3 D) per video, at the model's ticks.
        first_labels: (T,) per video, of the first alignment.
        spec: of the student. The teacher's follows from it and the configuration.
        known_segments: (T,) per video, see `known_labels.py`. Alignments agree with them.
    """
    settings, weights = config.teacher, config.weights
    durations_s = [len(x) / spec.model_hz for x in features]
    hz = config.align_hz or choose_align_hz(durations_s, transcripts)
    period = max(1, round(spec.model_hz / hz))
    teacher_spec = PyramidSpec(
        model_hz=spec.model_hz / period,
        labels=spec.labels,
        front_end=spec.front_end,
        levels=tuple(level.spec() for level in settings.levels),
    )
    tokens = [pooled(x, period) for x in features]
    torch.manual_seed(stage.seed)
    pyramid = Pyramid(teacher_spec, causal=False, dropout=config.dropout)
    latents = Latents(teacher_spec)
    module = nn.ModuleDict({"pyramid": pyramid, "latents": latents})
    sizes = np.cumsum([len(x) for x in tokens])[:-1]
    first = [pooled_labels(label, period) for label in first_labels]
    memory = {"labels": torch.from_numpy(np.concatenate(first))}
    present = torch.zeros(len(tokens), len(spec.labels))
    for index, transcript in enumerate(transcripts):
        present[index, list(transcript)] = 1

    binned = [
        None if known is None else bin_segments(known, period) for known in known_segments or [None] * len(tokens)
    ]

    def realign() -> None:
        labels = [
            align(p.exp().numpy(), transcript).labels if known is None else align_between(p.numpy(), transcript, known)
            for p, transcript, known in zip(posteriors(), transcripts, binned, strict=True)
        ]
        memory["labels"] = torch.from_numpy(np.concatenate(labels))

    @torch.inference_mode()
    def posteriors() -> list[Tensor]:
        module.eval()
        where = next(module.parameters()).device  # during training a GPU, afterwards the CPU
        return stage.world.each(lambda x: torch.log_softmax(pyramid(x[None].to(where)).frame[0], -1).cpu(), tokens)

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        after_warm_up = number - settings.warm_epochs
        if settings.realign_every and after_warm_up >= 0 and after_warm_up % settings.realign_every == 0:
            realign()
            module.train()
        labels = np.split(memory["labels"].numpy(), sizes)
        for batch in batches(len(tokens), settings.batch, generator):
            parts = [_crop(len(tokens[i]), generator) for i in batch]
            x, exists = padded([tokens[i][part] for i, part in zip(batch, parts, strict=True)])
            target = labels_padded([labels[i][part] for i, part in zip(batch, parts, strict=True)], x.shape[1])
            occurs = present[batch]
            for row, (i, part) in enumerate(zip(batch, parts, strict=True)):
                if part.stop - part.start < len(tokens[i]):
                    occurs[row] = F.one_hot(target[row][exists[row]], len(spec.labels)).amax(0).float()
            yield Batch(partial(losses, after_warm_up >= 0), (x, exists, target, occurs))

    def losses(warm: bool, x: Tensor, exists: Tensor, target: Tensor, occurs: Tensor) -> list[Term]:
        outputs = pyramid(x, exists)
        latent = latents(outputs)
        assert outputs.classes is not None and outputs.class_tokens is not None
        terms = [
            Term(weights.video, video_loss(outputs.classes, occurs)),
            Term(weights.frame, frame_loss(outputs.frame, target)),
            Term(weights.reconstruction, *latent.reconstruction),
            Term(weights.kl, *latent.kl),
        ]
        if warm:
            coarse = majority(target, teacher_spec.period(teacher_spec.top), len(spec.labels))
            terms.append(Term(weights.sparse, latent.sparse))
            terms.append(Term(weights.contrast, contrast_loss(outputs.class_tokens, outputs.fused[-1], coarse)))
            if outputs.action is not None:
                terms.append(Term(weights.action, frame_loss(outputs.action, coarse)))
        return terms

    stage.optimise(
        module,
        epoch,
        epochs=settings.warm_epochs + settings.epochs,
        steps=-(-len(tokens) // settings.batch),
        lr=settings.lr,
        weight_decay=config.weight_decay,
        memory=memory,
    )
    if settings.realign_every:
        realign()
    labels = np.split(memory["labels"].numpy(), sizes)
    lengths = [len(x) for x in features]
    return TeacherOutput(
        [np.repeat(y, period)[:n] for y, n in zip(labels, lengths, strict=True)],
        [np.repeat(p.numpy(), period, 0)[:n] for p, n in zip(posteriors(), lengths, strict=True)],
        pyramid,
        period,
    )


def _crop(length: int, generator: torch.Generator) -> slice:
    """The whole video, or a random crop of `LONGEST_CROP` tokens."""
    if length <= LONGEST_CROP:
        return slice(0, length)
    start = int(torch.randint(0, length - LONGEST_CROP + 1, (1,), generator=generator))
    return slice(start, start + LONGEST_CROP)


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (T_i, F) -> (B, T, F), padded with zeros, and a mask (B, T) of the ticks that exist."""
    x = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return x, torch.arange(x.shape[1]) < lengths[:, None]


def labels_padded(rows: Sequence[Labels], length: int) -> Tensor:
    """Labels (T_i,) -> (B, length), padded with -1."""
    target = torch.full((len(rows), length), -1, dtype=torch.long)
    for index, row in enumerate(rows):
        target[index, : len(row)] = torch.from_numpy(np.ascontiguousarray(row))
    return target


def majority(labels: Tensor, period: int, count: int) -> Tensor:
    """(B, T) -> (B, ceil(T / period)): the most frequent label of each bin, -1 for a bin without labels."""
    tail = -labels.shape[1] % period
    bins = F.pad(labels, (0, tail), value=-1).unflatten(1, (-1, period))
    votes = F.one_hot(bins.clamp_min(0), count) * (bins >= 0).unsqueeze(-1)
    total = votes.sum(2)
    return torch.where(total.sum(-1) > 0, total.argmax(-1), -1)
