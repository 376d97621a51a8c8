"""An estimate of what a training costs, from a short extraction and the amounts of data and work."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Config
from edge_hal.parallel.cores import cores
from edge_hal.pictures.encoding import EncoderGraph, each_picture

from .background_swap import EVERY_S, SWAPPED
from .extraction import Sampling
from .video_set import Video

MEASURED_S = 1.5
"""Time for which extraction is measured."""
HEAVIER = 3.0
"""A video with more than this many times the bytes a second of the middle one is measured too."""


PIXELS, STEPS, WIDTH = 48 * 64, 8, 320
"""What the constants below were measured with: pixels of a picture, steps of a list, widths of all blocks together."""
PICTURE_S, ENCODE_S = 6e-4, 7e-5
"""Training of the encoder on one picture; encoding of one tick."""
SMALL_TOO = 1.15
"""The small encoder of `encoders/small_encoder.py` sees a quarter of the pixels, for half of the epochs."""
SWAP_S = 2.5e-4
"""One picture with a swapped background; the backgrounds take as long for each tick."""
START_S, RESTART_S, TEACHER_S, STUDENT_S = 6.0, 1.8e-4, 2.4e-4, 5.2e-5
"""Start and export of the encoder; a restart of the alignment and an epoch of the teacher on a second of video; the
student on a tick of a crop."""
BASE_BYTES, THUMBNAIL_BYTES, FEATURES = 650e6, 3 * 4 * 12 * 16 * 3, 64
"""The program itself; the thumbnails of a tick, with copies; numbers of a feature vector, where they are not known."""


@dataclass(frozen=True)
class Cost:
    """Estimates. `extract_s`: until all videos are read; 0 for features. `train_s`: the rest. `memory_bytes`: the most
    that is held. `cache_bytes`: of the files that extraction writes."""

    extract_s: float
    train_s: float
    memory_bytes: int
    cache_bytes: int


class _Enough(Exception):
    pass


def extraction_speed(video: Video, sampling: Sampling) -> float:
    """Seconds of video that are decoded, resized and, with a graph, encoded in a second by one core, measured on the
    start of the file."""
    encoder = None if sampling.graph is None else EncoderGraph(sampling.graph)
    began_s, seen_ns = time.monotonic(), 0

    def take(picture: NDArray[np.uint8]) -> None:
        if encoder is not None:
            encoder(picture)

    def seen(t_ns: int) -> None:
        nonlocal seen_ns
        seen_ns = t_ns
        if time.monotonic() - began_s > MEASURED_S:
            raise _Enough

    with contextlib.suppress(_Enough):
        each_picture(video.path, sampling.model_hz, sampling.height, sampling.width, take, video.rate_hz, seen)
    return max(seen_ns / 1e9, 1e-3) / max(time.monotonic() - began_s, 1e-3)


def extraction_times(videos: Sequence[Video], sampling: Sampling) -> list[float]:
    """Estimated seconds of one core for each video. The one of middle length is measured, and if another has far more
    bytes a second, it too: pictures are then larger or more frequent. Each video counts as the nearer of the two."""
    rates = [math.log(max(1.0, video.path.stat().st_size / max(1e-3, _seconds(video)))) for video in videos]
    middle = sorted(range(len(videos)), key=lambda index: videos[index].length)[len(videos) // 2]
    heaviest = max(range(len(videos)), key=lambda index: rates[index])
    measured = [middle, heaviest] if rates[heaviest] > rates[middle] + math.log(HEAVIER) else [middle]
    speeds = {index: extraction_speed(videos[index], sampling) for index in measured}
    nearest = [min(measured, key=lambda other: abs(rates[other] - rate)) for rate in rates]
    return [_seconds(video) / speeds[other] for video, other in zip(videos, nearest, strict=True)]


def training_cost(
    videos: Sequence[Video], uncached: Sequence[Video], config: Config, extraction_times: Sequence[float]
) -> Cost:
    """The cost of a training on `videos`. `uncached` are those still to be extracted, once more for each copy.

    The time of each stage is its amount of work times a constant. The constants were measured with the `tiny` preset on
    two x86-64 cores without a GPU; on another machine the result may be wrong by a factor of three.

    Args:
        extraction_times: see the function of this name, of `uncached`.
    """
    learning, hz = config.learning, config.model.hz
    seconds = sum(_seconds(video) for video in videos)
    ticks = seconds * hz
    steps = sum(len(video.transcript) for video in videos)
    encoder_s = align_s = 0.0
    encoder = config.model.encoder
    own, row_bytes = encoder is not None and not encoder.pretrained, 0  # a picture, or a vector
    if encoder is not None:
        pixels = encoder.height * encoder.width
        row_bytes = 3 * pixels if own else 4 * encoder.spec(hz).vector_size
        if own:
            pictures = learning.encoder.epochs * learning.encoder.hz * seconds
            encoder_s = SMALL_TOO * (PICTURE_S * pictures + ENCODE_S * ticks) * pixels / PIXELS
            if config.swap_backgrounds:
                encoder_s += SWAP_S * (2 * ticks + SWAPPED * pictures) * pixels / PIXELS
    if not all(video.labels is not None for video in videos):
        rounds = 1 if encoder is None else 3 if own else 2  # of thumbnails or components, then of vectors
        mean_steps = steps / len(videos)
        align_s = (
            rounds * learning.restarts * seconds * (1 + mean_steps / STEPS) * RESTART_S / (learning.workers or cores())
        )
        align_s += (learning.teacher.warm_epochs + learning.teacher.epochs) * seconds * TEACHER_S
    copies = config.copies + config.swap_backgrounds
    crops = (1 + copies) * learning.student.epochs * seconds / learning.student.crop_s
    crops = max(crops, learning.student.least_steps * min(learning.student.batch, len(videos)))
    width = sum(level.width * level.blocks for level in config.model.levels) / WIDTH
    student_s = 2 * crops * learning.student.crop_s * hz * width * STUDENT_S  # with two folds for the thresholds
    if own:
        encoder_s += copies * ENCODE_S * ticks * pixels / PIXELS
    at_once = max(1, min(cores(), len(uncached)))
    extract_s = max(sum(extraction_times) / at_once, max(extraction_times, default=0.0))
    size = 0 if encoder is None else encoder.size
    held = BASE_BYTES + ticks * (
        12 * (1 + copies) * (size or FEATURES) + 16 * len({step for v in videos for step in v.transcript})
    )
    if own:
        held += ticks * THUMBNAIL_BYTES
    if encoder is not None and config.swap_backgrounds:
        held += seconds / EVERY_S * 3 * encoder.height * encoder.width
    return Cost(
        extract_s,
        START_S + encoder_s + align_s + student_s,
        round(held),
        round(sum(map(_seconds, uncached)) * hz * row_bytes),
    )


def _seconds(video: Video) -> float:
    return video.length / (video.rate_hz or 1.0)
