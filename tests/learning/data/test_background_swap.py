"""Pictures with the background of another time."""

from __future__ import annotations

import numpy as np
import pytest

from edge_hal.learning.data.background_swap import EVERY_S, LEAST_S, SwappedBackground

HZ, HEIGHT, WIDTH, SIDE = 5.0, 48, 64, 12
LEFT, TOP = 40, 30
"""Where the state of the bench is seen."""


def bench_video(seed: int, ticks: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (T, H, W, 3), the state of the bench (T,), which is the grey level of a field, and the columns (T,) of a
    red square that never stops. The bench changes each 20 s."""
    rng = np.random.default_rng(seed)
    texture = np.repeat(np.repeat(rng.integers(90, 130, (HEIGHT // 8, WIDTH // 8, 3)), 8, 0), 8, 1).astype(np.uint8)
    state = np.repeat(rng.permutation(np.arange(40, 40 + 30 * 5, 30)), 100)[:ticks]
    column = np.abs((np.arange(ticks) * 3 + rng.integers(100)) % (2 * (WIDTH - SIDE)) - (WIDTH - SIDE))
    pictures = np.repeat(texture[None], ticks, 0)
    pictures[:, TOP:, LEFT:] = state[:, None, None, None]
    for tick in range(ticks):
        pictures[tick, 4 : 4 + SIDE, column[tick] : column[tick] + SIDE] = (20, 20, 230)
    return pictures, state, column


def field(picture: np.ndarray) -> float:
    return float(picture[TOP + 4 :, LEFT + 4 :].mean())


@pytest.mark.parametrize("seed", range(4))
def test_what_moves_stays_and_the_bench_is_one_of_another_time(seed: int) -> None:
    pictures, state, column = bench_video(seed)
    swapped = SwappedBackground(pictures, HZ, np.random.default_rng(seed))
    seen = np.array([field(picture) for picture in swapped])
    assert len(seen) == len(swapped) == len(pictures)
    # each bench is one that the video shows, within the rounding of the light
    assert np.abs(seen[:, None] - np.unique(state)).min(1).max() < 4
    other = np.abs(seen - state) > 15
    assert 0.5 < other.mean() < 0.95, "four of five backgrounds are of another state"
    for tick in np.flatnonzero(other[10:-10])[::7] + 10:  # near the ends few pictures tell what moves
        inside = slice(column[tick] + 2, column[tick] + SIDE - 2)
        assert np.abs(swapped[tick][6:14, inside].astype(int) - (20, 20, 230)).max() < 4
    changes = np.flatnonzero(np.abs(np.diff(seen)) > 15) + 1
    # what is put onto the bench moves until it has been there for a while
    changes = changes[(changes + EVERY_S * HZ) % 100 > 2 * EVERY_S * HZ]
    assert np.diff(changes).min() >= LEAST_S * HZ, "another background stays for some seconds"


def test_no_trace_of_the_bench_is_left_around_what_moves() -> None:
    """A rim would tell the state of the bench after all."""
    pictures, state, column = bench_video(1)
    pictures[:, 4 + SIDE : 4 + SIDE + 8] = state[:, None, None, None]  # right below the square
    swapped = SwappedBackground(pictures, HZ, np.random.default_rng(1))
    for tick in range(100, 300):
        rim = swapped[tick][4 + SIDE + 2 : 4 + SIDE + 6, column[tick] : column[tick] + SIDE].mean()
        assert abs(rim - field(swapped[tick])) < 6


def test_the_light_of_the_picture_falls_on_the_other_background() -> None:
    pictures, state, _ = bench_video(2)
    pictures[150:160] = pictures[150:160] * 0.7
    swapped = SwappedBackground(pictures, HZ, np.random.default_rng(3))
    for tick, light in ((145, 1.0), (155, 0.7)):
        assert np.abs(field(swapped[tick]) - light * np.unique(state)).min() < 4


def test_the_random_numbers_decide_the_pictures() -> None:
    pictures, *_ = bench_video(3)
    one, same, other = (SwappedBackground(pictures, HZ, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(one[tick], same[tick]) for tick in range(0, 400, 9))
    assert any(not np.array_equal(one[tick], other[tick]) for tick in range(0, 400, 9))


def test_the_bench_before_the_first_step_is_a_background_too() -> None:
    """It is seen for two seconds. Nothing is then out of place, so the first step is no mark of an empty bench."""
    pictures, *_ = bench_video(4)
    pictures[:10, TOP:, LEFT:] = 200
    swapped = SwappedBackground(pictures, HZ, np.random.default_rng(0))
    assert any(abs(field(swapped[tick]) - 200) < 4 for tick in range(100, 400))


@pytest.mark.parametrize("ticks", [1, 2, 7])
def test_a_short_video_has_its_own_background(ticks: int) -> None:
    pictures = bench_video(4)[0][:ticks]
    swapped = SwappedBackground(pictures, HZ, np.random.default_rng(0))
    assert len(list(swapped)) == ticks
    assert all(picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8 for picture in swapped)
