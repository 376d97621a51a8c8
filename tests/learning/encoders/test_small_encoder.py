"""The small encoder of the first alignments: what it sees, and what its vectors tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.config import load_config
from edge_hal.learning import training
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import SampledRecording, read_recordings
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.encoders import small_encoder
from edge_hal.learning.encoders.small_encoder import LEAST_REFINED, small_encoder_vectors
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.world import ALONE
from edge_hal.learning.starter import Starter
from edge_hal.learning.train import train
from edge_hal.progress import no_progress
from edge_hal.spec import EncoderSpec
from tests.helpers.films import BLUE, GREEN, RED, write_film
from tests.helpers.short_training import BRIEF

HZ = 10.0


def bench(rng: np.random.Generator, ticks: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise, and a bright block that rests left or right for 20 ticks."""
    side = np.repeat(rng.integers(0, 2, ticks // 20 + 1), 20)[:ticks]
    pictures = rng.integers(90, 130, (ticks, height, width, 3)).astype(np.uint8)
    for picture, right in zip(pictures, side, strict=True):
        at = (width // 2 if right else 0) + int(rng.integers(0, width // 4))
        picture[height // 4 : height // 2, at : at + width // 8] = 250
    return pictures, side.astype(np.int64)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("height", "width", "seen"), [(64, 96, (32, 48)), (40, 48, (40, 48))])
def test_its_vectors_tell_what_it_was_trained_for(
    height: int, width: int, seen: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are wrong in a tenth of the frames, and the vectors still tell the sides apart. A side that would be
    too short is not halved."""
    rng = np.random.default_rng(0)
    made = [bench(rng, 200, height, width) for _ in range(4)]
    recordings = [SampledRecording(str(i), (0, 1), x, np.arange(len(x)), None) for i, (x, _) in enumerate(made)]
    rough = [np.where(rng.random(len(side)) < 0.1, 1 - side, side) for _, side in made]
    shapes = set[tuple[int, ...]]()
    real = small_encoder.encode_pictures

    def watched(graph: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.add(pictures.shape[1:3])
        return real(graph, pictures)

    monkeypatch.setattr(small_encoder, "encode_pictures", watched)
    stage = Stage("small-encoder", tmp_path, 0, lambda *told: None)
    learning = load_config("tiny", ["learning.encoder.epochs=6", "learning.encoder.hz=8"]).learning
    spec = EncoderSpec(height, width, 16, moving=8, coarse=3)
    found = small_encoder_vectors(recordings, rough, spec, 2, HZ, learning, stage, ALONE)
    assert shapes == {seen} and [x.shape for x in found] == [(200, 16)] * 4
    rows, side = np.concatenate(found), np.concatenate([each for _, each in made])
    centres = np.stack([rows[side == k].mean(0) for k in (0, 1)])
    nearest = ((rows[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == side).mean() > 0.95


class Reached(Exception):
    pass


def films(root: Path, count: int) -> VideoSet:
    """Videos of three colours, each a step."""
    for folder in ("videos", "transcripts", "splits"):
        (root / folder).mkdir()
    (root / "mapping.txt").write_text("0 blue\n1 green\n2 red\n")
    names = [f"v{number}" for number in range(count)]
    (root / "splits" / "train.split1.bundle").write_text("".join(f"{name}.txt\n" for name in names))
    for name in names:
        write_film(root / "videos" / f"{name}.avi", [(BLUE, 30), (GREEN, 30), (RED, 30)])
        (root / "transcripts" / f"{name}.txt").write_text("blue\ngreen\nred\n")
    return load_dataset(root, split=1, part="train")


SIZE = ("model.encoder.height=32", "model.encoder.width=48", "learning.workers=1")


@pytest.mark.usefixtures("one_thread")
def test_it_sees_the_bench_though_the_model_sees_moving_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colour that rests is grey for the model."""
    config = load_config("tiny", [*BRIEF, *SIZE, "model.encoder.moving_s=1"])
    videos = films(tmp_path, LEAST_REFINED)
    whole, greyed = (read_recordings(videos, HZ, EncoderSpec(32, 48, 8, moving)) for moving in (0, 10))

    def watched(recordings: list[SampledRecording], *rest: object) -> None:
        for found, all_of_it, moving in zip(recordings, whole, greyed, strict=True):
            assert np.array_equal(found.inputs, all_of_it.inputs) and not np.array_equal(found.inputs, moving.inputs)
        raise Reached

    monkeypatch.setattr(training, "small_encoder_vectors", watched)
    with pytest.raises(Reached):
        train(videos, config, tmp_path / "run", 0, no_progress)


@pytest.mark.usefixtures("one_thread")
def test_few_videos_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would learn the errors of their labels by heart. The vectors of the model are aligned."""

    def aligned(self: Any, shown: Any, scaled: Any, **how: bool) -> Any:
        found = align(self, shown, scaled, **how)
        if how["learned"]:
            assert [x.shape[1] for x in shown] == [64] * (LEAST_REFINED - 1)
            raise Reached
        return found

    align = Starter.align
    monkeypatch.setattr(training, "small_encoder_vectors", lambda *rest: pytest.fail("a small encoder was trained"))
    monkeypatch.setattr(Starter, "align", aligned)
    config = load_config("tiny", [*BRIEF, *SIZE, "learning.encoder.epochs=1"])
    with pytest.raises(Reached):
        train(films(tmp_path, LEAST_REFINED - 1), config, tmp_path / "run", 0, no_progress)
