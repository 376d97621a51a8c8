"""What training settles before it learns: the model's rate, and how late the targets of a tick are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.rates import FASTEST_HZ, SLOWEST_HZ, TICKS_PER_STEP, with_model_rate
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.learning.networks import student
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.student import crops, learn_student
from edge_hal.learning.train import train
from edge_hal.model.latents import Mean
from edge_hal.model.model_file import load_checkpoint
from tests.helpers.lagging import lagging
from tests.helpers.small_data import CONFIG, RATE_HZ, write_small_data
from tests.helpers.small_models import TWO, small_spec

OPEN = load_config("kinematics")
FIXED = load_config("tiny")


def videos_of(lengths: list[int], steps: list[int], rate_hz: float | None) -> VideoSet:
    videos = [
        Video(f"v{i}", Path(f"v{i}.npy"), "features", (0,) * count, length, rate_hz)
        for i, (length, count) in enumerate(zip(lengths, steps, strict=True))
    ]
    return VideoSet(("step",), tuple(videos), rate_hz)


rates = st.sampled_from([1.0, 5.0, 10.0, 15.0, 25.0, 29.97, 30.0, 50.0, 60.0, 120.0, 200.0]) | st.floats(0.5, 500)


@given(st.lists(st.tuples(st.integers(1, 100_000), st.integers(1, 200)), min_size=1, max_size=5), rates)
def test_the_rate_divides_that_of_the_frames_and_gives_a_step_its_ticks(
    sizes: list[tuple[int, int]], rate_hz: float
) -> None:
    lengths, steps = (list(each) for each in zip(*sizes, strict=True))
    config = with_model_rate(OPEN, videos_of(lengths, steps, rate_hz))
    hz = config.model.model_hz
    assert hz is not None and hz == config.model.hz
    every = rate_hz / hz
    assert every == pytest.approx(round(every)) and round(every) >= 1
    # Within the limits where whole frames allow that, and there as near to what is wanted as they allow.
    wanted = min(max(TICKS_PER_STEP * sum(steps) / (sum(lengths) / rate_hz), SLOWEST_HZ), FASTEST_HZ)
    allowed = [n for n in range(1, 200) if SLOWEST_HZ <= rate_hz / n <= FASTEST_HZ]
    assert bool(allowed) is (rate_hz >= SLOWEST_HZ)
    if allowed:
        assert round(every) in allowed
        nearest = min(abs(n - rate_hz / wanted) for n in allowed)
        assert abs(every - rate_hz / wanted) == pytest.approx(nearest, abs=1e-9)
    else:
        assert hz == rate_hz
    assert config.model_copy(update={"model": config.model.model_copy(update={"model_hz": None})}) == OPEN


@pytest.mark.parametrize(("step_s", "expected"), [(0.5, 15.0), (2.0, 10.0), (4.0, 5.0), (60.0, 30 / 7)])
def test_long_steps_have_a_slow_model_and_short_ones_a_fast_one(step_s: float, expected: float) -> None:
    videos = videos_of([round(30 * step_s * 10)] * 3, [10] * 3, 30.0)
    assert with_model_rate(OPEN, videos).model.hz == pytest.approx(expected)


def test_a_rate_that_is_given_stays_and_an_unknown_one_is_named() -> None:
    assert with_model_rate(FIXED, videos_of([100], [5], None)) is FIXED
    known, unknown = videos_of([300], [5], 30.0).videos[0], replace(videos_of([300], [5], None).videos[0], name="odd")
    with pytest.raises(EdgeHalError, match=r"frame rate of odd .*\n?.*data\.rate_hz") as caught:
        with_model_rate(OPEN, VideoSet(("step",), (known, unknown)))
    assert "data.rate_hz" in caught.value.todo


def test_what_is_learnt_at_an_open_rate_says_which(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data")
    brief = ["model.model_hz=null", "learning.starter=uniform", "learning.student.epochs=1"]
    config = load_config(str(CONFIG), [*brief, "learning.teacher.epochs=1", "learning.teacher.warm_epochs=1"])
    videos = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ)
    hz = with_model_rate(config, videos).model.hz
    checkpoint = load_checkpoint(train(videos, config, tmp_path / "run", 0, lambda *told: None))
    assert checkpoint.spec.model_hz == hz != 10.0
    assert load_config(str(tmp_path / "run" / "config.yaml")).model.model_hz == hz
    assert checkpoint.spec.lag_ticks == round(0.6 * hz)
    # What the step lists show is in the checkpoint, and follows the labels.
    assert checkpoint.decoder.procedure is not None
    assert tuple(checkpoint.decoder.procedure.steps) == checkpoint.spec.labels


# Targets ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 80), st.sampled_from([(), (3,), (2, 2)]))
def test_every_row_comes_so_many_ticks_later_and_the_first_is_held(
    seed: int, length: int, ticks: int, shape: tuple[int, ...]
) -> None:
    rows = np.random.default_rng(seed).normal(size=(length, *shape))
    before = rows.copy()
    late = lagging(rows, ticks)
    assert late.shape == rows.shape and late.dtype == rows.dtype
    for t in range(length):
        np.testing.assert_array_equal(late[t], rows[max(t - ticks, 0)])
    np.testing.assert_array_equal(rows, before)  # the given ones are as they were
    if ticks > 1:
        np.testing.assert_array_equal(lagging(lagging(rows, ticks - 1), 1), late)


@given(st.floats(0, 2.5), st.floats(1, 60))
def test_a_lag_is_whole_ticks_and_at_least_one(lag_s: float, hz: float) -> None:
    spec = replace(small_spec(TWO), model_hz=hz, lag_s=lag_s)
    assert (spec.lag_ticks == 0) is (lag_s == 0)
    assert abs(spec.lag_ticks - lag_s * hz) <= 0.5 or spec.lag_ticks == 1
    assume(lag_s > 0.01)
    assert spec.fingerprint() != replace(spec, lag_s=0.0).fingerprint()


@pytest.mark.parametrize("lag_s", [-0.1, 2.6, float("nan"), 1e9])
def test_a_lag_that_cannot_be_is_refused(lag_s: float) -> None:
    with pytest.raises(EdgeHalError, match="lag_s"):
        replace(small_spec(TWO), lag_s=lag_s)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_the_student_learns_labels_and_posteriors_that_lag(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ticks: int
) -> None:
    """What its losses are given is a stretch of the lagging rows; no row is of a tick that has not been seen."""
    rng = np.random.default_rng(seed)
    spec = replace(small_spec(TWO), lag_s=ticks / 10)
    labels = np.repeat(rng.permutation(4), rng.integers(8, 25, 4))  # one crop
    posteriors = torch.log_softmax(torch.from_numpy(rng.normal(size=(len(labels), 4))), 1).numpy().astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(len(labels), 9)).astype(np.float32))
    once = OPEN.learning.student.model_copy(update={"epochs": 1, "least_steps": 0})
    learning = OPEN.learning.model_copy(update={"student": once})
    seen: dict[str, list[np.ndarray]] = {"labels": [], "posteriors": []}
    frame_loss, distil_loss = student.frame_loss, student.distil_loss

    def told_labels(frame: torch.Tensor, target: torch.Tensor, *more: torch.Tensor) -> Mean:
        if target.shape[1] == len(labels):  # not the bins of a level above
            seen["labels"].append(target.numpy().copy())
        return frame_loss(frame, target, *more)

    def told_posteriors(frame: torch.Tensor, known: torch.Tensor, exists: torch.Tensor) -> Mean:
        seen["posteriors"].append(known.numpy().copy())
        return distil_loss(frame, known, exists)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "frame_loss", told_labels)
        patch.setattr(student, "distil_loss", told_posteriors)
        stage = Stage("student", tmp_path_factory.mktemp("stage"), 0, lambda *told: None)
        learn_student([x], [labels], [posteriors], spec, learning, stage)
    assert seen["labels"] and seen["posteriors"]
    whole = seen["labels"][0][0]
    expected = np.concatenate([np.repeat(labels[:1], ticks), labels])[: len(labels)]
    np.testing.assert_array_equal(whole, expected)
    late = np.concatenate([np.repeat(posteriors[:1], ticks, 0), posteriors])[: len(labels)]
    np.testing.assert_array_equal(seen["posteriors"][0][0], late)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4), crop=st.integers(4, 90), seed=st.integers(0, 99))
def test_crops_cover_each_video_but_for_a_short_end(lengths: list[int], crop: int, seed: int) -> None:
    pieces = crops(lengths, crop, torch.Generator().manual_seed(seed))
    assert all(part.stop - part.start == crop for _, part in pieces)
    for video, length in enumerate(lengths):
        seen = np.zeros(length, bool)
        for index, part in pieces:
            if index == video:
                assert 0 <= part.start < length
                seen[part] = True
        assert seen[: max(1, length - crop // 4)].all()
