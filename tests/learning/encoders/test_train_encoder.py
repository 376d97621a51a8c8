"""The frame encoder's training: steps that only motion tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_hal.config import load_config
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.learning.encoders import train_encoder
from edge_hal.learning.networks.optimise import Stage
from edge_hal.spec import EncoderSpec
from tests.helpers.moving_dot import HZ, SIZE, moving_dot


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_clip_head_learns_what_no_picture_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [moving_dot(rng, 240) for _ in range(8)]
    recordings = [SampledRecording(str(i), (0, 1), x, np.arange(len(x)), None) for i, (x, _) in enumerate(made)]
    built: list[train_encoder.ClipClassifier] = []

    class Kept(train_encoder.ClipClassifier):
        def __init__(self, *how: object) -> None:
            super().__init__(*how)  # type: ignore[arg-type]
            built.append(self)

    monkeypatch.setattr(train_encoder, "ClipClassifier", Kept)
    learning = load_config("tiny", ["learning.encoder.epochs=12", "learning.encoder.hz=8"]).learning
    spec = EncoderSpec(SIZE, SIZE, 16)
    stage = Stage("encoder", tmp_path, 0, lambda *told: None)
    train_encoder.learn_encoder(recordings, [way for _, way in made], spec, 2, HZ, learning, stage)
    (module,) = built
    module.eval()
    back = 5 * np.arange(train_encoder.CLIP_PICTURES - 1, -1, -1)
    clips = torch.from_numpy(np.stack([x[39 + 40 * k - back] for x, _ in made for k in range(6)]))
    truth = np.array([way[39 + 40 * k] for _, way in made for k in range(6)])
    with torch.inference_mode():
        single, clip = module(clips)
    assert (clip.argmax(1).numpy() == truth).mean() > 0.9
    assert (single[:, -1].argmax(1).numpy() == truth).mean() < 0.8  # the task is what it says
