"""Sections of training: the labels that it sees, the losses, and how long each network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .model import Level
from .section import Components, Count, Epochs, Positive, Section, Share, Weight

Lists = Literal["exact", "noisy", "sets"]


class Weights(Section):
    """Weights of the losses. The first six are those of arXiv 2602.24275. `lagged` is that of the mean of the heads
    with other lags."""

    video: Weight = 1.0
    frame: Weight = 1.0
    contrast: Weight = 0.1
    reconstruction: Weight = 0.1
    kl: Weight = 1e-3
    sparse: Weight = 1e-3
    action: Weight = 0.5
    change: Weight = 0.2
    distil: Weight = 0.5
    smooth: Weight = 0.15
    lagged: Weight = 0.5


class EncoderLearning(Section):
    """Training of the frame encoder on the labels of the starter, with `hz` frames per second."""

    epochs: Epochs = 14
    dropout: Share = 0.3
    hz: Positive = 2.0
    batch: Count = 64
    lr: Positive = 1e-3


class TeacherLearning(Section):
    """Training of the offline teacher at the alignment rate: `warm_epochs` on the labels of the starter, then `epochs`
    with a boundary alignment every `realign_every` epochs. With None the labels of the starter stay."""

    levels: tuple[Level, ...] = (
        Level(window=8, width=64),
        Level(stride=3, window=8, width=96),
    )
    warm_epochs: Epochs = 6
    epochs: Epochs = 14
    realign_every: Count | None = None
    batch: Count = 8
    lr: Positive = 1e-3


SHUFFLED, OFFSET = 0.5, 1.5
LEAST_MOVED = 4


class StudentLearning(Section):
    """Training of the causal pyramid on crops of `crop_s` seconds, with the labels of the teacher's alignment. It runs
    for `epochs`, and longer if the optimiser has then made fewer than `least_steps` steps (few videos give few steps
    per epoch). `noise` and `offset` augment the inputs: deviations, in z-scores, of what is added to each tick, and to
    a whole crop. At another place a frozen encoder gives other vectors, and most of the difference stays the same, so
    None is `OFFSET` for a pretrained one that sees whole pictures, with copies of `LEAST_MOVED` videos and no baseline.
    `shuffled`: the share of crops from videos whose segments are in random order; None is `SHUFFLED` for an encoder
    that sees moving parts, else 0. `copies`: how many augmented copies of each video it also sees
    (`learning/data/augmentation.py`); None is 1 for a pretrained encoder and 0 for `own`."""

    epochs: Epochs = 20
    least_steps: Epochs = 300
    batch: Count = 8
    crop_s: Positive = 40.0
    lr: Positive = 2e-3
    noise: Weight = 0.5
    offset: Weight | None = None
    shuffled: Annotated[float, Field(ge=0, le=1)] | None = None
    copies: Components | None = None


class Learning(Section):
    """`supervision`: with `transcripts` training sees only ordered step lists, with `frames` a label for every frame.
    `labelled`: how many training videos (chosen with the seed), or which ones, have frame labels in addition; with
    `timestamps` one labelled frame per step. `align_hz`: rate of the teacher; None chooses it from the transcripts.
    `starter`: the method for the first labels; `hmm` searches from `restarts` initial guesses in `workers` processes
    (None: one per core). `lists`: `exact`; `noisy` if steps may be missing, additional or swapped; `sets` if order and
    repeats carry no information. `swap_backgrounds`: half of the pictures that the frame encoder learns from have the
    background of another time, and the student sees each video once more with such (`data/background_swap.py`); None is
    yes for `own` that sees whole pictures."""

    supervision: Literal["transcripts", "frames"] = "transcripts"
    lists: Lists = "exact"
    labelled: int | tuple[str, ...] = 0
    timestamps: bool = False
    starter: Literal["hmm", "uniform"] = "hmm"
    restarts: Count = 64
    workers: Count | None = None
    align_hz: Positive | None = None
    swap_backgrounds: bool | None = None
    dropout: Share = 0.3
    weight_decay: Weight = 1e-2
    weights: Weights = Weights()
    encoder: EncoderLearning = EncoderLearning()
    teacher: TeacherLearning = TeacherLearning()
    student: StudentLearning = StudentLearning()
