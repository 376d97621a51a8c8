"""Held-out posteriors: each video's by a student that has not seen it, as a stream would compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edge_hal.config import load_config
from edge_hal.evaluation.checkpoint_scores import stream_posteriors
from edge_hal.learning.networks import held_out
from edge_hal.learning.networks.held_out import held_out_posteriors, streamed_posteriors
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.student import learn_student
from edge_hal.model.step import TorchEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers.small_data import CONFIG
from tests.helpers.small_models import random_input, random_model, small_spec

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = replace(small_spec(), lag_s=0.6, other_lags_s=(0.0, 0.3))
LEARNING = load_config(str(CONFIG), ["learning.student.epochs=2", "learning.student.least_steps=4"]).learning


def stages(folder: Path) -> Callable[[str], Stage]:
    return lambda name: Stage(name, folder, 0, lambda *_: None)


def videos(count: int) -> tuple[list[Tensor], list[Any]]:
    _, front_end = random_model(SPEC)
    rng = np.random.default_rng(0)
    lengths = rng.integers(60, 90, count).tolist()
    features = [front_end(torch.from_numpy(random_input(n, seed=i))) for i, n in enumerate(lengths)]
    return features, [np.sort(rng.integers(0, len(SPEC.labels), n)) for n in lengths]


@pytest.mark.parametrize("count", [4, 5])
def test_a_video_is_described_by_a_student_that_has_not_seen_it(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = videos(count)
    taught: list[tuple[set[int], Any]] = []

    def watched(some: list[Tensor], some_labels: list[Any], *rest: Any) -> Any:
        seen = {next(i for i, x in enumerate(features) if x is one) for one in some}
        assert {next(i for i, y in enumerate(labels) if y is one) for one in some_labels} == seen
        taught.append((seen, learn_student(some, some_labels, *rest)))
        return taught[-1][1]

    monkeypatch.setattr(held_out, "learn_student", watched)
    found = held_out_posteriors(features, labels, None, SPEC, LEARNING, stages(tmp_path))
    assert len(taught) == held_out.FOLDS and set().union(*(seen for seen, _ in taught)) == set(range(count))
    for number, posteriors in enumerate(found):
        [student] = [student for seen, student in taught if number not in seen]
        assert np.array_equal(posteriors, streamed_posteriors(student, [features[number]])[0])
        assert posteriors.shape == (len(features[number]), SPEC.heads_width)


def test_labels_of_a_video_do_not_change_its_own_posteriors(tmp_path: Path) -> None:
    """Nothing of what is known of a video reaches the student that describes it."""
    features, labels = videos(4)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = held_out_posteriors(features, labels, None, SPEC, LEARNING, stages(tmp_path / "a"))
    labels[1] = len(SPEC.labels) - 1 - labels[1]
    after = held_out_posteriors(features, labels, None, SPEC, LEARNING, stages(tmp_path / "b"))
    same = [np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
    assert same == [False, True, False, True]  # the student of videos 1 and 3 learns from 0 and 2


def test_long_videos_in_blocks_are_as_a_stream_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "BLOCK_TICKS", 64)
    pyramid, front_end = random_model(SPEC, 1)
    assert 2 * SPEC.receptive_field < 700
    vectors = random_input(700, seed=3)
    [found] = streamed_posteriors(pyramid, [front_end(torch.from_numpy(vectors))])
    stream = PyramidStream(SPEC, [TorchEngine(pyramid, front_end, level) for level in range(len(SPEC.levels))])
    assert found == pytest.approx(stream_posteriors(stream, vectors), abs=1e-4)
