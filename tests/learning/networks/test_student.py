"""The order of what the student learns from: that of the videos, or with segments in random order."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.config import LEAST_MOVED, OFFSET, SHUFFLED, Config, load_config
from edge_hal.learning.networks import student
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.share import Batch
from edge_hal.learning.networks.student import learn_student, order_of
from tests.helpers.small_data import CONFIG
from tests.helpers.small_models import small_spec

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array)


@given(labels=LABELS, seed=st.integers(0, 1000))
def test_segments_stay_whole_in_any_order(labels: np.ndarray, seed: int) -> None:
    order = order_of(labels, 1.0, torch.Generator().manual_seed(seed))
    assert sorted(order) == list(range(len(labels)))
    first = {0, *(np.flatnonzero(np.diff(labels)) + 1)}
    for before, after in pairwise(order):
        assert after == before + 1 or (after in first and (before + 1 in first or before + 1 == len(labels)))


def test_the_share_of_videos_in_random_order_is_the_one_asked_for() -> None:
    labels, generator = np.repeat(np.arange(8), 3), torch.Generator().manual_seed(0)
    usual = np.arange(len(labels))
    for share in (0.0, 0.3, 1.0):
        kept = np.mean([np.array_equal(order_of(labels, share, generator), usual) for _ in range(1000)])
        assert kept == pytest.approx(1 - share, abs=0.05)


def batches_of(
    shuffled: float, folder: Path, monkeypatch: pytest.MonkeyPatch, offset: float = 0.0
) -> list[tuple[torch.Tensor, ...]]:
    """The tensors of each batch: features are the ticks of the video, without noise. An offset spares the last one."""
    spec = replace(small_spec(), lag_s=0.6, other_lags_s=(0.0, 0.3))
    given = [f"learning.student.{key}" for key in ("epochs=2", "least_steps=0", "noise=0", "crop_s=12")]
    given += [f"learning.student.shuffled={shuffled}", f"learning.student.offset={offset}"]
    learning = load_config(str(CONFIG), given).learning
    ticks = torch.arange(300.0)[:, None].expand(-1, spec.front_end.features)
    labels = np.arange(300) // 30 % len(spec.labels)
    seen: list[tuple[torch.Tensor, ...]] = []

    def told(losses: Any, tensors: tuple[torch.Tensor, ...]) -> Batch:
        seen.append(tensors)
        return Batch(losses, tensors)

    monkeypatch.setattr(student, "Batch", told)
    learn_student([ticks], [labels], None, spec, learning, Stage("student", folder, 0, lambda *_: None))
    lags = (spec.lag_ticks, *spec.other_lags_ticks)
    for x, exists, target, change, *others in seen:
        for row in range(len(x)):
            shown = x[row, exists[row], -1].long().numpy()
            for late, lag in zip((target, *others), lags, strict=True):
                found = late[row, exists[row]].numpy()
                assert np.array_equal(found[lag:], labels[shown[: len(shown) - lag]]), "the label is of the tick shown"
            turns = np.flatnonzero(np.diff(target[row, exists[row]].numpy())) + 1
            assert change[row, exists[row]].numpy()[turns].all()
    return seen


@pytest.mark.parametrize("shuffled", [0.0, 1.0])
def test_labels_follow_the_ticks_in_any_order(shuffled: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        x[row, exists[row], 0] for x, exists, *_ in batches_of(shuffled, tmp_path, monkeypatch) for row in range(len(x))
    ]
    jumps = [bool((row.diff() != 1).any()) for row in rows if len(row) > 60]
    assert any(jumps) if shuffled else not any(jumps)


def test_crops_are_shuffled_where_the_encoder_sees_moving_parts() -> None:
    def share(*given: str) -> float:
        config: Config = load_config("tiny", given)
        return config.shuffled

    assert share() == 0
    assert share("model.encoder.moving_s=8") == SHUFFLED
    assert share("model.encoder.moving_s=8", "learning.student.shuffled=0.1") == 0.1
    assert load_config("kinematics").shuffled == 0


def test_crops_are_moved_where_a_pretrained_encoder_has_copies_of_several_videos() -> None:
    def size(videos: int, *given: str) -> float | None:
        return load_config("tiny", given).complete(videos).learning.student.offset

    pretrained = "model.encoder.kind=efficientnet-lite0@160"
    assert size(64) == 0
    assert size(LEAST_MOVED, pretrained) == OFFSET
    assert size(LEAST_MOVED - 1, pretrained) == 0
    for without in ("learning.student.copies=0", "model.encoder.moving_s=8", "model.baseline_s=8"):
        assert size(64, pretrained, without) == 0
    assert size(64, "learning.student.copies=1") == 0, "not measured to help `own`"
    assert size(1, "learning.student.copies=1", "learning.student.offset=0.1") == 0.1
    assert load_config("kinematics").complete(64).learning.student.offset == 0.3


def test_the_offset_of_a_crop_is_constant_and_spares_what_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, added = small_spec().front_end.width, []
    for x, exists, *_ in batches_of(0.0, tmp_path, monkeypatch, offset=1.5):
        added += [(each - each[:, -1:])[there] for each, there in zip(x, exists, strict=True)]
    assert all(torch.allclose(crop, crop[:1].expand_as(crop), atol=1e-3) for crop in added)
    found = torch.stack([crop[0] for crop in added])
    assert not found[:, width:].any()
    assert float(found[:, :width].std()) == pytest.approx(1.5, rel=0.2)
