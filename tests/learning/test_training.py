"""Parts of a training: what it refuses, and which videos its limits are fitted on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning import fitted_decoder
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.labels.folder import read_given_labels
from edge_hal.learning.data.video_set import Shows, VideoSet
from edge_hal.learning.networks.held_out import FOLDS
from edge_hal.learning.outcome import fitted_videos
from edge_hal.learning.suggestions import suggest_labels
from edge_hal.learning.train import train
from tests.helpers.short_training import BRIEF
from tests.helpers.small_data import CONFIG, write_small_data

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(*told: Any) -> None:
    pass


def learn(videos: VideoSet, out: Path, *overrides: str) -> Path:
    return train(videos, load_config(str(CONFIG), [*BRIEF, *overrides]), out, 0, quiet)


def test_a_training_that_diverges_ends_with_an_error_and_leaves_no_complete_run(tmp_path: Path) -> None:
    videos = load_dataset(write_small_data(tmp_path / "data", train=2), split=1, part="train", rate_hz=20.0)
    with pytest.raises(EdgeHalError, match="the training of the student has diverged: the loss of epoch"):
        learn(videos, tmp_path / "run", "learning.student.lr=1e6", "learning.student.epochs=4")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_limits_of_deviations_are_fitted_on_whole_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that begins in the middle lacks steps, and is no wrong session. A video of mistakes is one."""
    videos = load_dataset(write_small_data(tmp_path / "data"), split=1, part="train", rate_hz=20.0)
    shows: dict[str, Shows] = {"video1": "part", "video4": "mistakes"}
    marked = tuple(replace(video, shows=shows.get(video.name, "procedure")) for video in videos.videos)
    seen: dict[str, int] = {}

    def fit_decoder(streamed: Any, labels: Any, *rest: Any, **more: Any) -> Any:
        seen.update(fitted=len(streamed), **{key: len(more[key]) for key in ("normal", "procedure", "mistakes")})
        return real(streamed, labels, *rest, **more)

    real = fitted_decoder.fit_decoder
    monkeypatch.setattr(fitted_decoder, "fit_decoder", fit_decoder)
    learn(replace(videos, videos=marked), tmp_path / "run")
    assert seen == {"fitted": 6, "normal": 4, "procedure": 4, "mistakes": 1}


def test_a_step_that_is_listed_twice_in_a_row_is_one_step(tmp_path: Path) -> None:
    """With labels of some frames too, whose places in the list are then known."""
    data = write_small_data(tmp_path / "data", train=2)
    path = data / "transcripts" / "video0.txt"
    steps = path.read_text().split()
    path.write_text("".join(f"{step}\n" for step in [steps[0], *steps]))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "video0.txt").write_text(f"3 {steps[0]}\n")
    own = read_given_labels(tmp_path / "labels", {"video0": path, "video1": path})
    videos = load_dataset(data, split=1, part="train", rate_hz=20.0, with_labels={"video0"}, own_labels=own)
    assert [videos.labels[step] for step in videos.videos[0].transcript] == steps
    run = learn(videos, tmp_path / "run")
    found = json.loads((run / "alignment.json").read_text())["video0"]["segments"]
    assert [step for step, _ in found] == steps


@pytest.mark.parametrize("rate_hz", [20.0, 24.0, 25.0, 29.97, 59.94])
def test_suggestions_are_made_at_any_frame_rate(tmp_path: Path, rate_hz: float) -> None:
    """The last tick of a video sees an earlier frame than the last where the rates are no multiple of each other."""
    data = write_small_data(tmp_path / "data", train=3)
    videos = load_dataset(data, split=1, part="train", rate_hz=rate_hz)
    run = learn(videos, tmp_path / "run")
    stored = json.loads((run / "alignment.json").read_text())
    for found in suggest_labels(run, videos):
        begins = [first for _, first in stored[found.name]["segments"]]
        assert [each.step for each in found.segments] == [step for step, _ in stored[found.name]["segments"]]
        assert np.abs(np.array([each.first for each in found.segments]) - begins).max() <= 1
        assert found.segments[-1].stop == found.length


@pytest.mark.parametrize("most", [24, 96])
def test_the_fitted_videos_come_from_both_folds(most: int) -> None:
    for count in range(1, 400):
        found = fitted_videos(count, most)
        assert found == sorted(set(found)) and found[0] >= 0 and found[-1] < count and len(found) == min(count, most)
        assert len({number % FOLDS for number in found}) == min(FOLDS, len(found)), count
