"""The scale of the features does not matter: neither to the alignment, nor to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_hal.config import load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.hmm.align import whitened
from edge_hal.learning.hmm.first_alignment import binned_features, find_first_alignment, statistics
from edge_hal.learning.train import train
from edge_hal.model.front_end import FrontEnd
from edge_hal.progress import no_progress
from edge_hal.spec import FrontEndSpec
from tests.helpers.short_training import BRIEF, weights
from tests.helpers.small_data import ACTIONS, CONFIG, RATE_HZ, write_small_data

SCALES = [1e-20, 1e-7, 3e-4, 7.0, 1e6, 1e12, 1e20]
Recordings = tuple[list[np.ndarray], list[tuple[int, ...]]]


def load(root: Path) -> VideoSet:
    return load_dataset(root, split=1, part="train", rate_hz=RATE_HZ, layout="DT")


def fitted(vectors: list[np.ndarray]) -> FrontEnd:
    front_end = FrontEnd(FrontEndSpec(vectors[0].shape[1], 5))
    front_end.fit(*statistics(vectors))
    return front_end


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Vectors (T, D) and step lists."""
    videos = load(write_small_data(tmp_path_factory.mktemp("scale") / "data")).videos
    return [video.read()[::2].copy() for video in videos], [video.transcript for video in videos]


@pytest.mark.parametrize("scale", SCALES)
def test_features_and_alignment_are_the_same_at_any_scale(recordings: Recordings, scale: float) -> None:
    original, transcripts = recordings
    scaled = [(x * scale).astype(np.float32) for x in original]
    made, expected = fitted(scaled), fitted(original)
    for x, y in zip(scaled, original, strict=True):
        torch.testing.assert_close(made(torch.from_numpy(x)), expected(torch.from_numpy(y)), rtol=1e-4, atol=1e-4)
    learning = load_config(str(CONFIG), ["learning.workers=1"]).learning
    first, second = (
        find_first_alignment(x, transcripts, len(ACTIONS), 10.0, front_end, learning, 0, no_progress)
        for x, front_end in ((original, expected), (scaled, made))
    )
    differ = np.concatenate([a != b for a, b in zip(first.labels, second.labels, strict=True)]).mean()
    assert differ <= 0.005


@pytest.mark.parametrize("scale", SCALES)
def test_each_feature_may_have_a_scale_of_its_own(recordings: Recordings, scale: float) -> None:
    """One feature in millimetres, another in volts: the components are those of features of one scale."""
    original, _ = recordings
    each = np.ones(original[0].shape[1])
    each[::2] = scale
    mixed = [(x * each).astype(np.float32) for x in original]
    first, second = (whitened(binned_features(x, fitted(x), 5), 12, True) for x in (original, mixed))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)


def test_components_of_raw_numbers_do_not_depend_on_their_scale(recordings: Recordings) -> None:
    original, _ = recordings
    for scale in (1e-30, 1e-12, 1e30):
        scaled = whitened([x.astype(np.float64) * scale for x in original], 12, True)
        for a, b in zip(whitened(original, 12, True), scaled, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_constant_feature_changes_nothing_and_is_ignored_later(recordings: Recordings) -> None:
    original, _ = recordings
    with_constant = [np.insert(x, 2, np.float32(1e12), axis=1) for x in original]
    front_end = fitted(with_constant)
    assert front_end.scale[2] == 0 and (front_end.scale[[0, 1, 3]] > 0).all()
    moved = with_constant[0].copy()
    moved[:, 2] *= 1.5
    assert torch.equal(front_end(torch.from_numpy(with_constant[0])), front_end(torch.from_numpy(moved)))


@pytest.mark.parametrize("exponent", [-66, pytest.param(40, marks=pytest.mark.slow)])
def test_training_is_bit_for_bit_the_same_at_any_power_of_two(tmp_path: Path, exponent: int) -> None:
    """float32 scales by powers of two without rounding, so any difference is a constant that has a scale."""
    one, two = (write_small_data(tmp_path / name, train=4) for name in ("one", "two"))
    for path in (two / "features").iterdir():
        np.save(path, np.ldexp(np.load(path), exponent))
    config = load_config(str(CONFIG), [*BRIEF, "learning.workers=1"])
    for root in (one, two):
        train(load(root), config, root / "run", 0, no_progress)
    first, second = weights(one / "run"), weights(two / "run")
    assert [k for k in first if k.startswith("pyramid.") and not np.array_equal(first[k], second[k])] == []
    assert np.array_equal(np.ldexp(first["front_end.mean"], exponent), second["front_end.mean"])
    assert np.array_equal(np.ldexp(first["front_end.scale"], -exponent), second["front_end.scale"])
    assert (one / "run" / "alignment.json").read_bytes() == (two / "run" / "alignment.json").read_bytes()
