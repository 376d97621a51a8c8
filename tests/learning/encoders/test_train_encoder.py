"""The frame encoder's training: steps that only motion tells apart, and a bench that misleads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_hal.config import load_config
from edge_hal.learning.data.background_swap import SwappedBackground
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.learning.encoders import train_encoder
from edge_hal.learning.encoders.train_encoder import learn_encoder
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


def tool_over_bench(rng: np.random.Generator, tool: np.ndarray, bench: np.ndarray) -> np.ndarray:
    """Pictures (T, 32, 48, 3): a red or blue tool (T,) that never rests, over a dark or light bench (T,)."""
    texture = rng.integers(0, 20, (32, 48, 3))
    pictures = (np.where(bench, 190, 40)[:, None, None, None] + texture).astype(np.uint8)
    for tick, blue in enumerate(tool):
        row, column = rng.integers(0, 22), rng.integers(0, 38)
        pictures[tick, row : row + 10, column : column + 10] = (220, 60, 30) if blue else (30, 60, 220)
    return pictures


@pytest.mark.usefixtures("one_thread")
def test_with_swapped_backgrounds_it_sees_the_tool_though_the_bench_has_always_told_the_step(tmp_path: Path) -> None:
    """In training the bench is light when the tool is blue. Then it is light under a red one."""
    rng, hz = np.random.default_rng(0), 5.0
    steps = [np.repeat(rng.permutation(np.arange(6) % 2), 40) for _ in range(4)]
    films = [tool_over_bench(rng, step, step) for step in steps]
    recordings = [SampledRecording(str(i), (0, 1), film, np.arange(len(film)), None) for i, film in enumerate(films)]
    learning = load_config("tiny", ["learning.encoder.epochs=4", "learning.encoder.hz=5"]).learning
    spec, unseen = EncoderSpec(32, 48, 16), np.repeat([0, 1], 100)
    against = tool_over_bench(rng, unseen, 1 - unseen)

    def right(swapped: list[SwappedBackground]) -> float:
        folder = tmp_path / f"{len(swapped)}"
        folder.mkdir()
        stage = Stage("encoder", folder, 0, lambda *told: None)
        module = learn_encoder(recordings, steps, spec, 2, hz, learning, stage, swapped).eval()
        with torch.inference_mode():
            seen = [module(torch.from_numpy(recording.inputs)) for recording in recordings]
            centres = torch.stack(
                [torch.cat(seen)[torch.from_numpy(np.concatenate(steps)) == k].mean(0) for k in (0, 1)]
            )
            nearest = torch.cdist(module(torch.from_numpy(against)), centres).argmin(1).numpy()
        return float((nearest == unseen).mean())

    swapped = [SwappedBackground(film, hz, np.random.default_rng(i)) for i, film in enumerate(films)]
    assert right([]) < 0.4
    assert right(swapped) > 0.8
