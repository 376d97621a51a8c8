"""What rests is grey, what moves is seen, and it is the same in training and in a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.learning.data.extraction import Sampling, extract
from edge_hal.learning.data.media_files import read_times
from edge_hal.learning.data.video_set import Video
from edge_hal.pictures.moving import GREY, MovingParts
from edge_hal.runtime import runner
from edge_hal.runtime.model import Model
from edge_hal.runtime.observer import Observer
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec_limits import BACKGROUND
from tests.helpers.bundles import known_bundle
from tests.helpers.loops import ANY_PORT

HEIGHT, WIDTH, WINDOW = 40, 60, 16
Pictures = Sequence[NDArray[np.uint8]]


def bench(seed: int) -> NDArray[np.uint8]:
    """A scene with large patches of colour."""
    patches = np.random.default_rng(seed).integers(40, 200, (4, 6, 3), dtype=np.uint8)
    return np.kron(patches, np.ones((10, 10, 1), np.uint8))


def filmed(scene: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)


def is_grey(picture: NDArray[np.uint8]) -> bool:
    return bool((picture == GREY).all())


def random_pictures(seed: int, count: int) -> Pictures:
    rng, scene = np.random.default_rng(seed), bench(seed)
    found: list[NDArray[np.uint8]] = []
    for _ in range(count):
        picture = filmed(scene, rng)
        row, column = rng.integers(0, HEIGHT - 9), rng.integers(0, WIDTH - 9)
        picture[row : row + 9, column : column + 9] = rng.integers(0, 256, 3)
        found.append(picture if rng.random() < 0.8 or not found else found[-1].copy())
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_that_rests_is_grey_also_when_the_light_changes(seed: int) -> None:
    rng, moving = np.random.default_rng(seed), MovingParts(HEIGHT, WIDTH, WINDOW)
    for light in (1.0, 1.0, 1.0, 0.7, 0.7, 1.2, 1.0):
        assert is_grey(moving(filmed(np.clip(bench(seed) * light, 0, 255), rng)))


@pytest.mark.parametrize("seed", range(3))
def test_a_thing_is_seen_while_it_moves_and_grey_when_it_has_rested(seed: int) -> None:
    rng, moving = np.random.default_rng(seed), MovingParts(HEIGHT, WIDTH, WINDOW)
    for _ in range(WINDOW):
        moving(filmed(bench(seed), rng))
    for column in range(4, 44, 4):
        picture = filmed(bench(seed), rng)
        picture[12:24, column : column + 12] = (255, 255, 0)
        seen = moving(picture)
        assert (seen[14:22, column + 2 : column + 10] == (255, 255, 0)).all()
        far = np.ones((HEIGHT, WIDTH), bool)
        far[:36, max(0, column - 14) : column + 26] = False
        assert (seen[far] == GREY).all()
    scene = picture
    for _ in range(WINDOW):
        seen = moving(filmed(scene, rng))
    assert (seen[14:22, 42:50] == GREY).all()


@pytest.mark.parametrize("window", [8, 32, 80])
def test_a_thing_that_was_put_down_is_seen_for_about_half_the_window(window: int) -> None:
    rng, moving = np.random.default_rng(window), MovingParts(HEIGHT, WIDTH, window)
    for _ in range(window):
        moving(filmed(bench(0), rng))
    scene = bench(0)
    scene[12:24, 20:32] = (255, 255, 0)
    seen = [not (moving(filmed(scene, rng))[14:22, 22:30] == GREY).all() for _ in range(window)]
    assert seen == sorted(seen, reverse=True) and 3 * window // 8 <= sum(seen) <= 5 * window // 8


@pytest.mark.parametrize("seed", range(3))
def test_a_camera_that_shakes_and_a_speck_move_nothing(seed: int) -> None:
    rng, moving, scene = np.random.default_rng(seed), MovingParts(HEIGHT, WIDTH, WINDOW), bench(seed)
    for number in range(3 * WINDOW):
        picture = filmed(np.roll(scene, rng.integers(-1, 2, 2), (0, 1)), rng)
        if number % 2:
            row, column = 2 * rng.integers(2, 16, 2)
            picture[row : row + 2, column : column + 2] = 255
        assert is_grey(moving(picture)[10:-10, 10:-10])  # `roll` brings the other side into the picture


@pytest.mark.parametrize("seed", range(3))
def test_a_covered_lens_is_seen_until_it_has_rested(seed: int) -> None:
    rng, moving = np.random.default_rng(seed), MovingParts(HEIGHT, WIDTH, WINDOW)
    for _ in range(WINDOW):
        moving(filmed(bench(seed), rng))
    covered = [moving(filmed(np.full((HEIGHT, WIDTH, 3), 12, np.uint8), rng)) for _ in range(WINDOW)]
    assert (np.mean(covered[0] < 40) > 0.9) and is_grey(covered[-1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(BACKGROUND, 40), st.integers(0, 60))
def test_its_state_is_all_that_later_pictures_depend_on(seed: int, window: int, at: int) -> None:
    pictures = random_pictures(seed, 80)
    moving = MovingParts(HEIGHT, WIDTH, window)
    whole = [moving(picture) for picture in pictures]
    moving.reset()
    for picture in pictures[:at]:
        moving(picture)
    other = MovingParts(HEIGHT, WIDTH, window)
    other(pictures[-1])
    other.restore(moving.state())
    for expected, picture in zip(whole[at:], pictures[at:], strict=True):
        assert np.array_equal(expected, moving(picture)) and np.array_equal(expected, other(picture))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 39), max_size=20))
def test_a_picture_that_is_held_counts_once(seed: int, held: list[int]) -> None:
    pictures = random_pictures(seed, 40)
    once, twice = MovingParts(HEIGHT, WIDTH, BACKGROUND), MovingParts(HEIGHT, WIDTH, BACKGROUND)
    for number, picture in enumerate(pictures):
        expected = once(picture)
        for _ in range(1 + held.count(number)):
            assert np.array_equal(twice(picture), expected)


def test_a_count_out_of_range_is_refused() -> None:
    moving = MovingParts(HEIGHT, WIDTH, WINDOW)
    with pytest.raises(ValueError, match="out of range"):
        moving.restore({**moving.state(), "count": -1})


def test_a_new_epoch_begins_without_a_background(tmp_path: Path) -> None:
    stream = Model(known_bundle(tmp_path / "bundle", pictures=True, moving=WINDOW)).stream("default")
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 256, (2, 2, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(30)]
    first = [stream.encode(picture).copy() for picture in pictures]
    assert len({vector.tobytes() for vector in first}) > 10
    stream.reset()
    assert np.array_equal(first, [stream.encode(picture).copy() for picture in pictures])


class Vectors(Observer):
    """Keeps the vectors that are stepped."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        self.rows += list(vectors.copy())


@pytest.mark.parametrize("hz", [4, 10, 25])
def test_training_and_a_run_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hz: int) -> None:
    """At frame rates below, at and above that of the model: frames are held, fresh, and skipped."""
    bundle = known_bundle(tmp_path / "bundle", pictures=True, moving=WINDOW)
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), hz, (WIDTH, HEIGHT))
    for picture in random_pictures(hz, 6 * hz):
        writer.write(picture)
    writer.release()
    times = read_times(path, None)
    film = Video("film", path, "video", (), times.length, times.rate_hz)
    assert bundle.spec.encoder is not None
    graph = bundle.path / "encoder.fp32.onnx"
    (expected,) = extract([film], Sampling.of(10.0, bundle.spec.encoder, graph), None)
    (plain,) = extract([film], Sampling(10.0, 16, 16, graph), None)
    assert not np.array_equal(expected.values, plain.values)
    kept = Vectors()
    monkeypatch.setattr(runner, "_observers", lambda *_: [kept])
    runner.run(RunOptions(bundle.path, str(film.path), ANY_PORT, pace="asap"))
    assert np.array_equal(np.stack(kept.rows), expected.values)
