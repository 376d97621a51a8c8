"""A bundle with random weights, exported and uncertified, and a video to run it on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from edge_hal.bundle import Bundle, encoder_name, write_bundle
from edge_hal.config import load_config
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.export.graphs import export_encoder, export_level
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.learning.encoders.pretrained import with_sizes
from edge_hal.model.encoder import FrameEncoder
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid


def random_bundle(
    path: Path, preset: str, model_hz: float | None = None, *, pictures: bool = True, encoder: str | None = None
) -> Bundle:
    """All graphs of a preset; `pictures` false leaves the encoder out, for feature vectors. `encoder`: one that is
    given, by its name; its weights are not random."""
    torch.manual_seed(0)
    settings = [] if model_hz is None else [f"model.model_hz={model_hz}"]
    config = load_config(preset, settings if encoder is None else [*settings, f"model.encoder.kind={encoder}"])
    given = None
    if encoder is not None:
        assert config.model.encoder is not None
        given = open_pretrained(config.model.encoder)
        config = with_sizes(config, given)
    spec = config.model.spec(tuple(f"step{i}" for i in range(8)), None, 36)
    if not pictures and spec.encoder is not None:
        import dataclasses

        spec = dataclasses.replace(spec, encoder=None)
    pyramid, front_end = Pyramid(spec).eval(), FrontEnd(spec.front_end)

    def write(folder: Path) -> None:
        for level in range(len(spec.levels)):
            for chunk in spec.chunks(level):
                export_level(pyramid, front_end, level, chunk, "fp32", folder)
        if given is not None:
            given.write(folder / encoder_name("fp32"))
        elif spec.encoder is not None:
            export_encoder(FrameEncoder(spec.encoder), spec.encoder, folder / encoder_name("fp32"))

    certificate = {"passed": True, "checks": [{"name": "random weights, for timing only", "passed": True}]}
    return write_bundle(path, spec, "fp32", DecoderConfig(), {"by": "benchmarks"}, write, lambda _: certificate)


def noise_video(path: Path, frames: int, fps: float, width: int = 640, height: int = 480) -> Path:
    """Moving noise, so that no two frames are the same."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (height // 16 + 64, width // 16 + 64, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for index in range(frames):
        row, column = index % 64, index * 3 % 64
        part = small[row : row + height // 16, column : column + width // 16]
        writer.write(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))
    writer.release()
    return path
