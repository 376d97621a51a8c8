"""Two cameras of one bench: they see the same work from other places, and each is blocked at times of its own."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")

from edge_hal.workbench.dataset import render_dataset, video_session
from edge_hal.workbench.render import blocks_of, iter_frames
from edge_hal.workbench.viewpoint import ABOVE, LEFT, RIGHT, Viewpoint, sample_blocks

SIZE = 64, 48
COUNT = 120


def filmed(viewpoint: Viewpoint, seed: int = 0) -> list[NDArray[np.uint8]]:
    session, look = video_session(seed, 0)
    return list(islice(iter_frames(session, look, *SIZE, viewpoint=viewpoint), COUNT))


def test_a_place_of_the_bench_is_seen_where_the_corners_say() -> None:
    bench = np.zeros((480, 640, 3), np.uint8)
    bench[:40, :40] = 255  # the top left corner
    seen = RIGHT.sees(bench)
    y, x = np.argwhere(seen[..., 0] > 128).mean(0)
    assert RIGHT.corners is not None
    corner_x, corner_y = RIGHT.corners[0]
    assert abs(x / 640 - corner_x) < 0.06 and abs(y / 480 - corner_y) < 0.06
    np.testing.assert_array_equal(ABOVE.sees(bench), bench)


def test_a_camera_that_nobody_blocks_sees_the_same_as_before_and_one_that_is_blocked_differs_then_only() -> None:
    session, look = video_session(0, 0)
    above, left = filmed(ABOVE), filmed(LEFT)
    blocks = blocks_of(session, look, LEFT)
    assert blocks and blocks_of(session, look, ABOVE) == []
    for k, (one, other) in enumerate(zip(above, left, strict=True)):
        covered = any(b.start_s <= k / session.fps <= b.start_s + b.length_s for b in blocks)
        assert covered or np.array_equal(one, other), k
    assert [b.start_s for b in blocks] != [b.start_s for b in blocks_of(session, look, RIGHT)]


def test_two_cameras_see_other_pictures_of_the_same_session_and_each_repeats_itself() -> None:
    right = filmed(RIGHT)
    assert np.mean(np.abs(right[10].astype(int) - filmed(LEFT)[10])) > 10
    for one, other in zip(right, filmed(RIGHT), strict=True):
        np.testing.assert_array_equal(one, other)


def test_about_a_quarter_of_the_time_is_blocked() -> None:
    shares = []
    for seed in range(300):
        blocks = sample_blocks(np.random.default_rng(seed), 60.0)
        shares.append(sum(block.length_s for block in blocks) / 60)
        assert all(b.start_s + b.length_s <= c.start_s for b, c in pairwise(blocks))
    assert 0.2 < np.mean(shares) < 0.32


@pytest.mark.slow
def test_data_sets_of_two_viewpoints_have_the_same_labels(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("views")
    left, right = (
        render_dataset(folder / name, 3, train=1, test=0, workers=1, viewpoint=viewpoint)
        for name, viewpoint in (("left", LEFT), ("right", RIGHT))
    )
    for part in ("groundTruth", "transcripts"):
        assert (left / part / "bench_000.txt").read_bytes() == (right / part / "bench_000.txt").read_bytes()
    films = [(each / "videos" / "bench_000.mp4").read_bytes() for each in (left, right)]
    assert films[0] != films[1]
