"""The estimate of what labels are worth, on alignments whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.config import load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import Video
from edge_hal.learning.hmm.known_labels import KnownSegments
from edge_hal.learning.label_worth import label_worth, told
from edge_hal.learning.train import train
from edge_hal.metrics import IntArray
from tests.helpers.small_data import CONFIG, RATE_HZ, write_small_data

HZ = 10.0
TICKS = 600  # a minute
NAMES = tuple("abcd")


def videos() -> list[Video]:
    return [Video(name, Path(name), "features", (0, 1), TICKS, HZ) for name in NAMES]


def split_at(ticks: int) -> IntArray:
    return (np.arange(TICKS) >= ticks).astype(np.int64)


NOW = [split_at(300)] * 4
LATE = [split_at(360)] * 4  # agrees on 90 %
EARLY = [split_at(180)] * 4  # agrees on 80 %


def test_labels_that_teach_the_other_videos_nothing_are_worth_their_own_frames() -> None:
    found = label_worth(videos(), NOW, [LATE, EARLY], lambda known: list(NOW), HZ)
    assert found.frames_right == pytest.approx(0.85)
    assert all(gain.frames_right == gain.at_most for gain in found.gains)
    gains = {gain.minutes: gain.frames_right for gain in found.gains}
    assert gains == {1.0: pytest.approx(0.8875, abs=1e-3), 3.0: pytest.approx(0.9625, abs=1e-3)}  # 10 min: not there
    assert set(found.videos) == set(NAMES)


def test_labels_that_teach_the_other_videos_everything_make_all_frames_right() -> None:
    def learned(known: Sequence[KnownSegments | None]) -> list[IntArray]:
        first = next(segments for segments in known if segments is not None)
        return [np.asarray(first)] * 4  # the segments of these lists are the steps

    found = label_worth(videos(), NOW, [LATE, EARLY], learned, HZ)
    assert [gain.at_most for gain in found.gains] == [1.0, 1.0]
    assert [gain.frames_right for gain in found.gains] == pytest.approx([0.8875, 0.9625], abs=1e-3)
    assert "85% now" in told(found.to_dict()) and "1 min 89% to 100%" in told(found.to_dict())


@pytest.mark.slow
def test_a_run_keeps_its_estimate_and_none_if_labels_lead(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data", train=4)
    brief = ["learning.student.epochs=1", "learning.teacher.warm_epochs=1", "learning.teacher.epochs=0"]

    def run(name: str, *settings: str, **given: Any) -> Path:
        read = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ, **given)
        return train(read, load_config(str(CONFIG), [*brief, *settings]), tmp_path / name, 0, lambda *_: None)

    found = json.loads((run("searched") / "labels.json").read_text())
    assert set(found) == {"videos", "frames_right", "gains"}  # the page of `edge-hal correct` reads them
    assert all(set(gain) == {"minutes", "frames_right", "at_most"} for gain in found["gains"])
    assert set(found["videos"]) <= {f"video{number}" for number in range(4)}
    for bound in ("frames_right", "at_most"):
        shares = [found["frames_right"], *(gain[bound] for gain in found["gains"])]
        assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1
    assert not (run("labelled", with_labels={"video0"}) / "labels.json").exists()
    assert not (run("once", "learning.restarts=1") / "labels.json").exists()
