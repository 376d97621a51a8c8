"""What a run keeps beside its model: where it comes from, a part of its input, and what was held out."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.calib.held_out_file import HeldOut
from edge_hal.config import Config
from edge_hal.decoding.decode import split_heads
from edge_hal.metrics import IntArray
from edge_hal.model.model_file import ENCODER_FILE
from edge_hal.pictures.encoding import first_pictures
from edge_hal.spec import PyramidSpec

from .data.aspects import known_aspects
from .data.recordings import SampledRecording
from .data.video_set import VideoSet
from .encoders.pretrained import PretrainedEncoder
from .networks.held_out import FOLDS

REFERENCE_TICKS = 3000
REFERENCE_PICTURES = 64
FITTED_VIDEOS = 24
"""The thresholds are fitted on at most this many training videos. The procedure is learned from all."""
NORMAL_VIDEOS = 96
"""The limits of deviations are fitted on at most this many: false ones are rare, and a limit is on their number."""


def fitted_videos(count: int, most: int = FITTED_VIDEOS) -> list[int]:
    """The videos, of `count`, that the thresholds are fitted on."""
    numbers = np.linspace(0, count - 1, min(most, count)).round().astype(int)
    if len(set(numbers % FOLDS)) < min(FOLDS, len(numbers)):  # an even step: all would be held out by one student
        numbers[1::2] -= 1
    found: list[int] = numbers.tolist()
    return found


def held_out_of(
    spec: PyramidSpec, names: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]], labels: Sequence[IntArray]
) -> HeldOut:
    """The posteriors (T, K) of the main head and the labels (T,) of the videos that the thresholds were fitted on."""
    some = fitted_videos(len(names))
    rows = {names[i]: split_heads(log_posteriors[i], spec)[spec.lag_ticks] for i in some}
    return HeldOut(spec.labels, spec.model_hz, spec.lag_ticks, rows, {names[i]: labels[i] for i in some})


def encoder_of(config: Config, pretrained: PretrainedEncoder | None, run: Path) -> dict[str, Any]:
    """For the provenance: which encoder made the vectors, and under which licence its weights are."""
    if config.model.encoder is None:
        return {}
    licence = {} if pretrained is None else {"licence": pretrained.licence}
    precision = {"precision": "int8"} if config.model.encoder.int8 else {}
    digest = hashlib.sha256((run / ENCODER_FILE).read_bytes()).hexdigest()
    return {"encoder": {"kind": config.model.encoder.kind, "sha256": digest, **licence, **precision}}


def reference_of(
    videos: VideoSet, config: Config, recordings: Sequence[SampledRecording], vectors: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """The begin of the input of the training: `x` (ticks, D) and, for videos, `pictures` (N, H, W, 3) uint8."""
    reference: dict[str, NDArray[Any]] = {"x": np.concatenate(vectors)[:REFERENCE_TICKS]}
    if recordings[0].inputs.ndim == 4:
        reference["pictures"] = recordings[0].inputs[:REFERENCE_PICTURES]
    elif config.model.encoder is not None:
        hz, first = config.model.hz, videos.videos[0]
        pictures = first_pictures(first.path, hz, config.model.encoder.spec(hz), REFERENCE_PICTURES, first.rate_hz)
        reference["pictures"] = pictures[: len(vectors[0])]
    return reference


def provenance_of(config: Config, seed: int, videos: VideoSet, device: torch.device) -> dict[str, Any]:
    """Versions, supervision, seed, the number of videos, and width over height of their pictures."""
    aspects = known_aspects(videos)
    return {
        "edge_hal": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "supervision": config.learning.supervision,
        "seed": seed,
        "device": device.type,
        "videos": len(videos),
        "labelled": sum(video.labels is not None for video in videos.videos),
        **({"picture_aspects": aspects} if aspects else {}),
    }
