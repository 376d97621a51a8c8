"""What training tells of features before it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.check_features import check_features
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.train import train
from tests.helpers.small_data import CONFIG, RATE_HZ, SIZE, write_small_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "data", train=3, test=1)


def change(root: Path, column: int, make: Callable[[np.ndarray], Any], dtype: type = np.float32) -> None:
    """Replace a column (T,) of every file; the files are (D, T)."""
    for path in (root / "features").iterdir():
        x = np.load(path).astype(np.float64)
        x[column] = make(x)
        np.save(path, x.astype(dtype))


def notes(root: Path) -> list[str]:
    videos = load_dataset(root, split=None, part="train", rate_hz=RATE_HZ, layout="DT")
    return check_features(videos, read_recordings(videos, 10.0, None))


def test_good_features_draw_no_note(root: Path) -> None:
    assert notes(root) == []


@pytest.mark.parametrize("value", [0.0, -4e-9, 1e12])
def test_a_constant_feature_is_named(root: Path, value: float) -> None:
    change(root, 4, lambda x: value)
    (note,) = notes(root)
    assert f"1 of {SIZE} features (column 4)" in note and "constant" in note


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e12])
def test_equal_features_are_named_at_any_scale(root: Path, scale: float) -> None:
    change(root, 0, lambda x: scale * x[0])
    change(root, 5, lambda x: x[0])
    change(root, 2, lambda x: x[0])
    (note,) = notes(root)
    assert f"2 of {SIZE} features (columns 2, 5)" in note and "equal" in note


def test_a_feature_that_differs_in_one_video_only_is_neither_repeated_nor_constant(root: Path) -> None:
    change(root, 5, lambda x: x[0])
    change(root, 4, lambda x: 0.0)
    path = root / "features" / "video1.npy"
    x = np.load(path)
    x[4:, 7:50] += 1
    np.save(path, x)
    assert notes(root) == []


def test_an_offset_is_told_whether_float32_holds_some_of_the_change_or_none(root: Path) -> None:
    change(root, 1, lambda x: 1e6 + x[1])
    assert any("column 1" in note and "under 10 bits" in note for note in notes(root))
    change(root, 1, lambda x: 1e6 + 1e-5 * x[0], np.float64)
    assert any("column 1" in note and "offset" in note for note in notes(root))


def test_nothing_left_is_an_error(root: Path) -> None:
    for column in range(SIZE):
        change(root, column, lambda x: 7.0)
    with pytest.raises(EdgeHalError, match="nothing can be learned"):
        notes(root)


def test_numbers_near_the_end_of_float32_are_an_error(root: Path) -> None:
    change(root, 3, lambda x: 1e34 * x[3])
    with pytest.raises(EdgeHalError, match=r"too large.*column 3"):
        notes(root)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_never_finite_is_named(root: Path, value: float) -> None:
    change(root, 2, lambda x: value)
    with pytest.raises(EdgeHalError, match=r"column 2\) are never finite") as caught:
        notes(root)
    assert "remove these columns" in str(caught.value)


def test_training_tells_it_before_it_begins(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(root, 4, lambda x: 3.0)
    videos = load_dataset(root, split=1, part="train", rate_hz=RATE_HZ, layout="DT")

    class Begun(Exception):
        pass

    def progress(stage: str, *_: object) -> None:
        if stage != "read":
            raise Begun

    with caplog.at_level(logging.WARNING), pytest.raises(Begun):
        train(videos, load_config(str(CONFIG), []), tmp_path / "run", 0, progress)
    assert "column 4" in caplog.text
