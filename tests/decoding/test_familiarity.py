"""Distances from the input of training, and the episodes that a stream reports."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoding.familiarity import Familiarity, FamiliarityTracker, Unfamiliar
from edge_hal.decoding.vector_mixture import VectorMixture
from tests.helpers.familiar import familiar_input

HZ = 10.0
MODEL = familiar_input([[0.0, 0.0], [8.0, 0.0]])


def episodes(rows: NDArray[np.float32], cuts: list[int] | None = None, model: Familiarity = MODEL) -> list[Unfamiliar]:
    """What is reported, with the rows in steps of at most 5 that end at `cuts`."""
    tracker, found = FamiliarityTracker(model, 1.0, HZ, 5), list[Unfamiliar]()
    bounds = sorted({0, len(rows), *(cuts or range(len(rows)))})
    for begin, end in itertools.pairwise(bounds):
        for first in range(begin, end, 5):
            part = rows[first : min(first + 5, end)]
            tracker.add(part)
            found += [u for tick in range(first, first + len(part)) if (u := tracker.decide(tick)) is not None]
    return found


def signal(*parts: tuple[int, float]) -> NDArray[np.float32]:
    """Ticks, and how far from the first centre."""
    rng = np.random.default_rng(0)
    at = np.concatenate([np.full(ticks, distance) for ticks, distance in parts])
    rows = np.stack([np.zeros(len(at)), at], axis=1) + rng.normal(size=(len(at), 2))
    return rows.astype(np.float32)


def test_a_distance_is_that_of_mahalanobis_to_the_nearest_centre() -> None:
    rng = np.random.default_rng(1)
    size, spread = 5, rng.normal(size=(5, 5))
    covariance = spread @ spread.T + np.eye(size)
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    centres, mean, scale = rng.normal(size=(3, size)), rng.normal(size=size), rng.uniform(0.5, 2, size)
    components = np.linalg.qr(rng.normal(size=(size, size)))[0]
    model = VectorMixture(mean, scale, components, whiten, centres @ whiten, 0.0)
    for x in rng.normal(size=(20, size)):
        inside = (x - mean) / scale @ components
        expected = min((inside - c) @ np.linalg.inv(covariance) @ (inside - c) for c in centres) / size
        assert model.distances(x[None])[0] == pytest.approx(np.log(expected))


def test_what_the_components_leave_out_counts() -> None:
    """A vector that moves where training never did."""
    kept = replace(MODEL.vector, mean=np.zeros(3), scale=np.ones(3), components=np.eye(3)[:, :2], rest=0.1)
    inside, outside = kept.distances(np.array([[0.5, 0.0, 0.3], [0.5, 0.0, 5.0]]))
    assert outside > inside + 4


def test_the_larger_distance_of_vector_and_coarse_copy_counts() -> None:
    """The copy has one number; its distances are multiplied and shifted."""
    model = replace(MODEL, coarse=familiar_input([[1.0]]).vector, offset=-1.0, gain=0.5)
    near, seen, far = model.distances(np.array([[2.0, 0.0, 1.1], [2.0, 0.0, 81.0], [50.0, 50.0, 81.0]]))
    assert model.size == 3
    assert near == MODEL.distances(np.array([[2.0, 0.0]]))[0]
    assert seen == pytest.approx(-1.0 + 0.5 * np.log(80.0**2)) and far > seen


def test_an_episode_is_reported_once_where_it_began() -> None:
    [found] = episodes(signal((60, 0.0), (100, 9.0), (60, 0.0)))
    assert abs(found.boundary_tick - 60) <= 1 and 60 < found.decision_tick < 70
    assert found.times > found.limit_times == pytest.approx(3.0) and 0.5 <= found.confidence <= 1


def test_an_episode_ends_when_its_average_has_been_low_for_a_window() -> None:
    far, near = (30, 9.0), (5, 0.0)
    assert len(episodes(signal((60, 0.0), far, near, far))) == 1  # the average falls, but not for as long as a window
    assert len(episodes(signal((60, 0.0), far, (40, 0.0), far))) == 2


def test_a_moment_of_something_else_is_no_episode() -> None:
    assert episodes(signal((60, 0.0), (2, 9.0), (60, 0.0))) == []


def test_nothing_is_reported_before_a_whole_window() -> None:
    [found] = episodes(signal((60, 9.0)))
    assert found.decision_tick == 9 and found.boundary_tick == 0


@given(st.lists(st.integers(1, 140), max_size=30))
def test_steps_of_any_length_give_the_same_reports(cuts: list[int]) -> None:
    rows = signal((50, 0.0), (20, 6.0), (20, 0.0), (60, 12.0))
    assert episodes(rows, cuts) == episodes(rows)


@given(st.integers(1, 149))
def test_a_tracker_continues_where_its_state_was_taken(cut: int) -> None:
    rows = signal((50, 0.0), (20, 6.0), (20, 0.0), (60, 12.0))
    first, second = (FamiliarityTracker(MODEL, 1.0, HZ, 5) for _ in range(2))
    found = []
    for tick in range(len(rows)):
        if tick == cut:
            second.restore(first.state())
            first = second
        first.add(rows[tick : tick + 1])
        found.append(first.decide(tick))
    assert [each for each in found if each is not None] == episodes(rows)


@pytest.mark.parametrize("counts", [[-1, 0], [5, 5], [5, -11], [1 << 61, 0]])
def test_a_state_out_of_range_is_refused(counts: list[int]) -> None:
    tracker = FamiliarityTracker(MODEL, 1.0, HZ, 5)
    with pytest.raises(ValueError, match="range"):
        tracker.restore({**tracker.state(), "counts": np.array(counts)})


def test_confidence_grows_with_the_distance() -> None:
    found = [episodes(signal((60, 0.0), (60, far)))[0].confidence for far in (5.0, 6.0, 8.0, 12.0)]
    assert found == sorted(found) and found[-1] > found[0]


@given(st.floats(0.01, 50), st.floats(-0.9, 0.9), st.floats(0.05, 5))
def test_the_limit_is_exceeded_at_the_rate_that_was_asked_for(per_h: float, shape: float, tail: float) -> None:
    model = replace(MODEL, peaks_per_h=60.0, shape=shape, tail=tail, level=-0.3)
    assert model.rate_per_h(model.limit(per_h)) == pytest.approx(per_h, rel=1e-3)
    assert model.limit(70.0) == model.level


@pytest.mark.parametrize("coarse", [False, True])
def test_a_model_survives_its_file(coarse: bool) -> None:
    rng = np.random.default_rng(2)
    model = replace(MODEL, vector=replace(MODEL.vector, centres=rng.normal(size=(7, 2))), usual=0.1)
    if coarse:
        model = replace(model, coarse=familiar_input(rng.normal(size=(3, 4))).vector, offset=0.3, gain=2.5)
    again = Familiarity.from_json(model.to_json().encode())
    assert again.to_json() == model.to_json()
    stored = Familiarity.from_tensors(model.tensors())
    x = rng.normal(size=(9, model.size))
    assert (again.distances(x) == stored.distances(x)).all()


BODY = json.loads(replace(MODEL, coarse=familiar_input([[1.0]]).vector).to_json())


@pytest.mark.parametrize(
    "body",
    [
        *({key: value for key, value in BODY.items() if key != missing} for missing in BODY),
        {**BODY, "more": 1},
        {**BODY, "mean": [0.0]},
        {**BODY, "mean": 3},
        {**BODY, "components": [[1, 0], [0]]},
        {**BODY, "components": "abc"},
        {**BODY, "scale": [1, 0]},
        {**BODY, "scale": [1, 1e400]},
        {**BODY, "whiten": [[None, 1], [1, 1]]},
        {**BODY, "centres": []},
        {**BODY, "tail": 0},
        {**BODY, "tail": [1]},
        {**BODY, "shape": 2},
        {**BODY, "window_s": 1e9},
        {**BODY, "usual": {}},
        {**BODY, "coarse.gain": 0},
        {**BODY, "coarse.offset": [0.0]},
        {**BODY, "coarse.rest": [0.0]},
        {**BODY, "coarse.mean": [0.0, 1.0]},
        [],
    ],
)
def test_a_damaged_file_is_refused(body: object) -> None:
    with pytest.raises(ValueError):
        Familiarity.from_json(json.dumps(body).encode())
