"""Frames in any order are those of a file that is read from its begin."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV")

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.media_files import read_times
from edge_hal.media.frame_reader import FrameReader
from edge_hal.media.video_file import VideoFile
from edge_hal.rate import instant_ns
from tests.helpers.videos import write_video

FRAMES = 240
KINDS = {
    "h264 with B-frames": ("a.mp4", "libx264", {"g": "25", "bf": "3", "x264-params": "open-gop=1"}),
    "mpeg4": ("a.avi", "mpeg4", {"g": "40"}),
    "motion JPEG": ("a.mkv", "mjpeg", {}),
    "one key frame": ("a.mp4", "libx264", {"g": "1000", "bf": "2"}),
    "no stamps": ("a.m4v", "mpeg4", {"g": "30"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_any_order_are_those_of_one_pass(tmp_path: Path, kind: str) -> None:
    name, codec, options = KINDS[kind]
    path = tmp_path / name
    hole = range(100, 115) if path.suffix in (".mp4", ".mkv") else range(0)
    shown = [50 * index for index in range(FRAMES) if index not in hole]
    write_video(path, shown, codec=codec, rate=20, options=options)
    times = read_times(path, 20.0)
    with VideoFile(path, unstamped_hz=20.0) as video:
        passed = [(t_ns, video.picture(frame)) for t_ns, frame in video.frames() if frame is not None]
    assert len(passed) > 200
    reader = FrameReader(path, times.rate, 20.0)
    rng = np.random.default_rng(0)
    order = [0, times.length - 1, 0, 5, 6, 7, 6, 130, 129, 110, *rng.integers(0, times.length, 40).tolist()]
    for number in order:
        wanted_ns = instant_ns(number, times.rate)
        expected = [picture for t_ns, picture in passed if t_ns <= wanted_ns][-1]
        np.testing.assert_array_equal(reader.picture(number), expected, f"frame {number} of {kind}")
    reader.close()


def test_a_file_that_is_no_video_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(EdgeHalError, match="not a video"):
        FrameReader(tmp_path / "a.mp4", Fraction(20))
