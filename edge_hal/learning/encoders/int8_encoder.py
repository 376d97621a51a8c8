"""A pretrained encoder in 8 bits before training, so that the student learns from the vectors that the device computes.

An encoder that is quantised after training moves some boundaries. One that is quantised before moves none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edge_hal.errors import EdgeHalError
from edge_hal.export.quantise_convolutions import (
    LEAST_CONVOLUTIONS,
    PICTURES,
    has_many_convolutions,
    quantise_convolutions,
)
from edge_hal.learning.data.video_set import Video
from edge_hal.pictures.encoding import first_pictures
from edge_hal.spec import EncoderSpec

VIDEOS, SEEN_S = 8, 60.0
"""Ranges are taken from the first `SEEN_S` seconds of at most `VIDEOS` training videos."""


def quantise_encoder(graph: Path, spec: EncoderSpec, videos: Sequence[Video], model_hz: float) -> None:
    """Replace the float32 graph by one whose convolutions run in 8 bits on CPUs. The same videos give the same graph.

    Raises:
        EdgeHalError: the encoder has too few convolutions to gain anything, or a video cannot be read.
    """
    if not has_many_convolutions(onnx.load(graph)):
        why = f"the encoder has fewer than {LEAST_CONVOLUTIONS} convolutions with constant weights in float32"
        raise EdgeHalError("model.encoder.int8 has no effect here", why, "leave it out", exit_code=2)
    some = np.unique(np.linspace(0, len(videos) - 1, min(VIDEOS, len(videos))).round().astype(int))
    count = max(1, round(SEEN_S * model_hz))
    every = max(1, count * len(some) // PICTURES)  # copied, so that the pictures of one video at a time are in memory
    pictures = [
        first_pictures(video.path, model_hz, spec, count, video.rate_hz)[::every].copy()
        for video in (videos[i] for i in some)
    ]
    onnx.save(quantise_convolutions(graph, pictures), graph)
