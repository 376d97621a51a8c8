"""The model of the input and its tail, on generated signals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.calib.fit_familiarity import LARGEST_SHAPE, fit_familiarity, fit_tail, learn, peaks_over, trailing

HZ = 10.0


def signal(rng: np.random.Generator, seconds: float, size: int = 6) -> NDArray[np.float32]:
    """Four places that are held for some seconds each, with noise that forgets in half a second."""
    places = 3 * np.random.default_rng(5).normal(size=(4, size))
    ticks = round(seconds * HZ)
    at = np.repeat(rng.integers(0, 4, ticks // 30 + 1), 30)[:ticks]
    noise, pull = rng.normal(size=(ticks, size)), 0.8
    for tick in range(1, ticks):
        noise[tick] = pull * noise[tick - 1] + 0.6 * noise[tick]
    return np.asarray(places[at] + noise, np.float32)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_rate_of_false_alarms_is_roughly_kept(seed: int) -> None:
    """Twenty minutes of training, limits for 1 and for 6 an hour, ten unseen hours."""
    rng = np.random.default_rng(seed)
    model = fit_familiarity({f"{n:02}": signal(rng, 120) for n in range(10)}, HZ)
    assert model is not None
    window = round(model.window_s * HZ)
    averages = trailing(model.distances(signal(rng, 36_000)), window)
    found = {per_h: len(peaks_over(averages, model.limit(per_h), window)) / 10 for per_h in (1.0, 6.0)}
    assert found[1.0] <= 5 and 0.6 <= found[6.0] <= 24


def test_a_foreign_place_is_far_and_known_ones_are_near() -> None:
    rng = np.random.default_rng(0)
    model = fit_familiarity({str(n): signal(rng, 60) for n in range(8)}, HZ)
    assert model is not None
    foreign = signal(rng, 30) + 4 * np.eye(6)[0]
    assert trailing(model.distances(foreign), 30).min() > model.limit(1.0)
    assert np.mean(model.distances(signal(rng, 60)) > model.limit(1.0)) < 0.05


def test_what_only_the_coarse_copy_shows_is_far() -> None:
    """The copy has other units than the vector, and mostly lies near its mean. It is judged beside the vector, and its
    distances have the same mean and spread."""
    rng = np.random.default_rng(0)

    def seen(seconds: float) -> NDArray[np.float32]:
        near = signal(rng, seconds)
        copy = rng.normal(size=(len(near), 9)) * np.exp(rng.normal(size=(len(near), 1)))
        return np.concatenate([near, 900 + 70 * copy], axis=1).astype(np.float32)

    model = fit_familiarity({str(n): seen(60) for n in range(8)}, HZ, unread=9)
    assert model is not None and model.coarse is not None and (model.vector.size, model.coarse.size) == (6, 9)
    usual = np.concatenate([seen(60) for _ in range(8)])
    of_vector, of_copy = model.vector.distances(usual[:, :6]), model.coarse.distances(usual[:, 6:])
    assert of_copy.mean() < of_vector.mean() - 0.5  # the task is what it says
    assert abs((model.offset + model.gain * of_copy).mean() - of_vector.mean()) < 0.3
    for number in (2, 11):
        foreign = seen(30)
        foreign[:, number] += 20 * usual[:, number].std()
        assert trailing(model.distances(foreign), 30).min() > model.limit(1.0)
    assert np.mean(trailing(model.distances(seen(120)), 30) > model.limit(1.0)) < 0.05


def test_a_copy_that_never_changed_in_training_is_not_judged() -> None:
    """Its distances have no spread, so nothing says what is far."""
    rng = np.random.default_rng(0)

    def seen(seconds: float, copy: float) -> NDArray[np.float32]:
        rows = signal(rng, seconds)
        return np.concatenate([rows, np.full((len(rows), 9), copy, np.float32)], axis=1)

    model = fit_familiarity({str(n): seen(60, 0.25) for n in range(8)}, HZ, unread=9)
    assert model is not None and model.coarse is not None
    assert trailing(model.distances(seen(60, 0.26)), 30).max() <= model.limit(1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_numbers_than_components_and_constant_ones(dtype: type) -> None:
    """100 numbers that depend on six, and one that never changes."""
    rng = np.random.default_rng(1)
    spread = rng.normal(size=(6, 100))
    spread[:, 7] = 0.0
    videos: dict[str, NDArray[np.floating]] = {
        str(n): (signal(rng, 60) @ spread + 0.01 * rng.normal(size=(600, 100))).astype(dtype) for n in range(5)
    }
    for video in videos.values():
        video[:, 7] = 3.0
    model = fit_familiarity(videos, HZ)
    assert model is not None and model.vector.components.shape == (100, 64) and model.vector.rest > 0
    usual = videos["0"][:50].copy()
    for number in (7, 20):
        changed = usual.copy()
        changed[:, number] += 40.0
        assert model.distances(changed).min() > model.distances(usual).max()


def test_too_few_or_too_short_videos_have_no_model() -> None:
    rng = np.random.default_rng(2)
    assert fit_familiarity({str(n): signal(rng, 60) for n in range(3)}, HZ) is None
    assert fit_familiarity({str(n): signal(rng, 2) for n in range(8)}, HZ) is None
    for still in (np.zeros(4), np.ones(3), np.full(4, 0.1)):  # the distances of such vectors differ by rounding
        assert fit_familiarity({str(n): np.tile(still, (2000, 1)).astype(np.float32) for n in range(5)}, HZ) is None


def test_the_same_videos_give_the_same_model() -> None:
    videos = [signal(np.random.default_rng(n), 60) for n in range(5)]
    one = fit_familiarity({str(n): video for n, video in enumerate(videos)}, HZ)
    two = fit_familiarity({str(n): videos[n] for n in reversed(range(5))}, HZ)
    assert one is not None and two is not None and one.to_json() == two.to_json()


def test_neighbours_in_the_alphabet_are_held_out_together() -> None:
    """Two people, four videos each. If one of each person were always seen, nobody would look strange."""
    rng = np.random.default_rng(3)
    people = {f"{who}{n}": signal(rng, 60) + (9.0 if who == "b" else 0.0) for who in "ab" for n in range(4)}
    mixed = {f"{n}{who}": people[f"{who}{n}"] for who in "ab" for n in range(4)}
    apart, together = fit_familiarity(people, HZ), fit_familiarity(mixed, HZ)
    assert apart is not None and together is not None
    assert apart.usual >= together.usual - 0.05


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2])
def test_the_tail_of_a_generalised_pareto_distribution_is_found(shape: float) -> None:
    u = np.random.default_rng(4).uniform(size=20_000)
    peaks = -0.7 * np.log(u) if shape == 0 else 0.7 / shape * (u**-shape - 1)
    assert fit_tail(peaks) == pytest.approx((0.7, shape), abs=0.04)


def test_the_shape_of_few_peaks_stays_within_its_limits() -> None:
    for peaks in ([1.0] * 9, [0.01] * 20 + [50.0]):
        tail, shape = fit_tail(np.array(peaks))
        assert abs(shape) <= LARGEST_SHAPE and tail == pytest.approx(np.mean(peaks) * (1 - shape))


def test_runs_that_are_near_each_other_have_one_peak() -> None:
    averages = np.array([0, 2, 3, 0, 0, 2, 0, 0, 0, 0, 5, 0.0])
    assert peaks_over(averages, 1.0, 3).tolist() == [3.0, 5.0]
    assert peaks_over(averages, 9.0, 3).tolist() == []


def test_vectors_that_do_not_change_can_be_learned() -> None:
    model = learn([np.ones((50, 3), np.float32)])
    assert np.isfinite(model.distances(np.array([[1.0, 1.0, 1.0], [9.0, 1.0, 1.0]]))).all()
