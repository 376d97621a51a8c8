"""Video files as they come: every frame that decodes is given at its own time, and the others are counted."""

from __future__ import annotations

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.media.stamps import Missing
from edge_hal.media.video_file import VideoFile
from edge_hal.rate import instant_ns
from tests.helpers.videos import number_of, numbered, rewrite, write_video

REGULAR = [100 * i for i in range(60)]
ROUNDING = 3
"""Of 255: the steps of a conversion to BGR round in another way elsewhere."""


def read(path: Path, **options: float) -> tuple[list[tuple[float, int | None]], Missing]:
    """(milliseconds, number) of each frame; None for a frame that cannot be decoded."""
    with VideoFile(path, **options) as video:
        found = [
            (t_ns / 1e6, None if frame is None else number_of(video.picture(frame))) for t_ns, frame in video.frames()
        ]
        return found, video.missing()


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def write_noise(path: Path, frames: int = 12) -> Path:
    """MPEG-4 of smooth noise in all colours, which moves."""
    noise = np.random.default_rng(0).integers(0, 256, (48 + frames, 64 + frames, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for index in range(frames):
            picture = np.ascontiguousarray(noise[index : index + 48, index : index + 64])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        out.mux(stream.encode(None))
    return path


def decoded(path: Path, idct: str) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"idct": idct}
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def times_ms(path: Path) -> list[float]:
    with VideoFile(path) as video:
        return (video.times_ns() / 1e6).tolist()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([33, 34, 40, 67, 100, 250]), min_size=40, max_size=80), st.data())
def test_frames_have_the_times_of_their_stamps_whatever_is_damaged_or_lost(
    tmp_path: Path, steps: list[int], data: st.DataObject
) -> None:
    stamps = [0, *np.cumsum(steps).tolist()]
    some = st.sets(st.integers(1, len(stamps) - 2), max_size=20)
    damaged, dropped = data.draw(some), data.draw(some)
    whole = write_video(tmp_path / "whole.mkv", stamps)
    path = rewrite(whole, tmp_path / "v.mkv", damaged=damaged, dropped=dropped)
    found, missing = read(path)
    kept = [(t, None if i in damaged else i) for i, t in enumerate(stamps) if i not in dropped]
    assert [number for _, number in found] == [number for _, number in kept]
    assert max(abs(t - expected) for (t, _), (expected, _) in zip(found, kept, strict=True)) <= 1.0
    assert missing.undecodable == len(damaged - dropped)
    assert times_ms(path) == [t for t, _ in found]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "mpeg4", {}),
        ("v.mp4", "mpeg4", {"bf": "2"}),
        ("v.avi", "mpeg4", {"bf": "2"}),
        ("v.mkv", "libx264", {"bf": "3"}),
        ("v.ts", "libx264", {"bf": "3"}),
        ("v.avi", "libx264", {"bf": "3"}),
        ("v.mov", "mjpeg", {}),
        ("v.mpg", "mpeg2video", {}),
        ("v.webm", "libvpx", {"deadline": "realtime"}),
    ],
)
def test_a_whole_file_of_any_kind_gives_all_frames_at_their_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any] | dict[str, str]
) -> None:
    rate = 25
    path = write_video(tmp_path / name, [40 * i for i in range(60)], codec=codec, rate=rate, options=options)
    found, missing = read(path)
    assert [number for _, number in found] == list(range(60)) and missing == Missing(60, 0, 0)
    assert [round(t * 1e6) for t, _ in found] == [instant_ns(i, Fraction(rate)) for i in range(60)]
    assert times_ms(path) == [t for t, _ in found]


def test_pictures_are_those_of_opencv_but_for_rounding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", REGULAR, codec="mpeg4")
    capture = cv2.VideoCapture(str(path))
    with VideoFile(path) as video:
        for _, frame in video.frames():
            assert largest_difference(video.picture(frame), capture.read()[1]) <= ROUNDING
    assert not capture.read()[0]


def test_each_block_of_four_pixels_has_the_colours_of_the_standard(tmp_path: Path) -> None:
    """ITU-R BT.601, in integers: libswscale rounds down several times."""
    path = write_noise(tmp_path / "v.mp4")
    with VideoFile(path) as video:
        for _, frame in video.frames():
            planes = frame.to_ndarray().astype(float)
            y = 255 / 219 * (planes[:48] - 16)
            u, v = (plane.reshape(24, 32).repeat(2, 0).repeat(2, 1) - 128.0 for plane in (planes[48:60], planes[60:]))
            u, v = 255 / 224 * u, 255 / 224 * v
            expected = np.stack([y + 1.772 * u, y - 0.344136 * u - 0.714136 * v, y + 1.402 * v], axis=-1)
            assert np.abs(video.picture(frame) - expected.clip(0, 255)).max() <= ROUNDING


@pytest.mark.parametrize("made_by", [b"Lavc", b"XviD"])
def test_the_inverse_dct_is_that_of_the_encoder_and_reproducible(tmp_path: Path, made_by: bytes) -> None:
    """A file of Xvid needs its own: with another one the error grows up to the next key frame."""
    path = write_noise(tmp_path / "v.mp4")
    data = path.read_bytes()
    start = data.find(b"Lavc")
    assert start > 0
    path.write_bytes(data[:start] + made_by + data[start + 4 :])
    needed = "simple" if made_by == b"Lavc" else "xvid"
    with VideoFile(path) as video:
        found = [frame.to_ndarray() for _, frame in video.frames()]
    assert np.array_equal(found, decoded(path, needed))
    assert not np.array_equal(found, decoded(path, "xvid" if needed == "simple" else "simple"))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["v.mkv", "v.avi", "v.ts"])
def test_a_file_that_was_cut_off_gives_what_is_left(tmp_path: Path, name: str, share: float) -> None:
    codec = "libx264" if name == "v.ts" else "mjpeg"
    path = write_video(tmp_path / name, REGULAR, codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    found, missing = read(path)
    numbers = [number for _, number in found if number is not None]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 60 * share / 2
    assert all(t == 100.0 * number for t, number in found if number is not None)
    if name == "v.avi" and share < 0.9:  # its header announces the number of frames
        assert missing.announced == 60 == len(found) + missing.undelivered


@pytest.mark.parametrize("count", [1, 20, 500])
def test_a_header_that_claims_another_number_of_frames_is_not_believed(tmp_path: Path, count: int) -> None:
    path = write_video(tmp_path / "v.avi", REGULAR)
    data = bytearray(path.read_bytes())
    for tag, at in ((b"avih", 24), (b"strh", 40)):
        start = data.find(tag) + at
        data[start : start + 4] = count.to_bytes(4, "little")
    path.write_bytes(data)
    found, missing = read(path)
    assert [number for _, number in found] == list(range(60))
    assert missing.undelivered == max(0, count - 60) and missing.announced == max(60, count)


def test_a_file_without_a_duration_is_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    with open(path, "wb") as file:

        class Pipe:
            """Cannot seek, so that no duration is written."""

            def write(self, data: bytes) -> int:
                return file.write(data)

        with av.open(Pipe(), "w", format="matroska") as out:
            stream = out.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            for index in range(60):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index), format="bgr24")))
            out.mux(stream.encode(None))
    found, missing = read(path)
    assert [number for _, number in found] == list(range(60)) and missing == Missing(60, 0, 0)


@pytest.mark.parametrize("first", [0, 1, 20])
def test_damage_at_the_beginning_keeps_the_times(tmp_path: Path, first: int) -> None:
    path = rewrite(write_video(tmp_path / "w.mkv", REGULAR), tmp_path / "v.mkv", damaged=range(first))
    found, missing = read(path)
    assert found == [(100.0 * i, None if i < first else i) for i in range(60)] and missing.undecodable == first


@pytest.mark.parametrize("damaged", [{1}, {0, 7, 8, 30}, set(range(20, 50)), {59}])
def test_damage_in_a_container_without_stamps_keeps_the_times(tmp_path: Path, damaged: Any) -> None:
    path = rewrite(write_video(tmp_path / "w.avi", REGULAR), tmp_path / "v.avi", damaged=damaged)
    found, missing = read(path)
    assert found == [(100.0 * i, None if i in damaged else i) for i in range(60)]
    assert missing == Missing(60, len(damaged), 0)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed: make services")
def test_frames_before_the_cut_of_an_edited_clip_are_not_shown(tmp_path: Path) -> None:
    """The clip begins amid a group of pictures: the first frames are in the file, only to decode the others."""
    whole = write_video(tmp_path / "w.mp4", REGULAR, codec="libx264", options={"g": "60"})
    path = tmp_path / "v.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "1.05", "-i", whole, "-c", "copy", path], check=True)
    with av.open(str(path)) as container:
        hidden = sum(packet.is_discard for packet in container.demux(video=0))
    found, missing = read(path)
    first = found[0][1]
    assert first in (10, 11) and hidden >= 10
    assert found == [(100.0 * i, i + first) for i in range(60 - first)] and missing == Missing(60 - first, 0, 0)
    assert times_ms(path) == [t for t, _ in found]


@pytest.mark.parametrize("start_ms", [0, 1600, 3_600_000])
def test_time_begins_at_the_first_frame(tmp_path: Path, start_ms: int) -> None:
    path = write_video(tmp_path / "v.mkv", [start_ms + t for t in REGULAR])
    found, missing = read(path)
    assert found == [(100.0 * i, i) for i in range(60)] and missing == Missing(60, 0, 0)


def test_recordings_that_were_joined_go_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", REGULAR, codec="libx264")
    path.write_bytes(path.read_bytes() * 2)
    found, _ = read(path)
    assert [number for _, number in found] == [*range(60)] * 2
    assert [t for t, _ in found] == [100.0 * i for i in range(120)]


@pytest.mark.parametrize(("name", "codec", "container"), [("v.h264", "libx264", "h264"), ("v.mjpeg", "mjpeg", "mjpeg")])
def test_a_file_without_stamps_is_told_and_takes_a_frame_rate(
    tmp_path: Path, name: str, codec: str, container: str
) -> None:
    path = write_video(tmp_path / name, REGULAR, codec=codec, container=container)
    with VideoFile(path) as video:
        assert not video.stamped and "no time stamps" in video.notes[0]
    for option in ("fps", "unstamped_hz"):
        found, _ = read(path, **{option: 20.0})
        assert found == [(50.0 * i, i) for i in range(60)]


def test_the_rate_of_the_user_replaces_stamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", [t * 3 for t in REGULAR])
    assert read(path, fps=20.0)[0] == [(50.0 * i, i) for i in range(60)]
    assert read(path, unstamped_hz=20.0)[0] == [(300.0 * i, i) for i in range(60)]
    for fps in (0.0, -25.0, float("nan"), float("inf"), 90_000.0):
        with pytest.raises(EdgeHalError, match="frames per second"):
            VideoFile(path, fps=fps)


def test_stamps_that_are_all_the_same_are_none(tmp_path: Path) -> None:
    source = write_video(tmp_path / "w.avi", REGULAR)
    path = tmp_path / "v.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = 0
                packet.stream = stream
                new.mux(packet)
    with VideoFile(path) as video:
        assert not video.stamped
    assert [number for _, number in read(path, unstamped_hz=10.0)[0]] == list(range(60))


@pytest.mark.parametrize(
    "name", [b"caf\xe9.mkv", b"a:b.mkv", b"f_%03d.mkv", b"-i.mkv", b"concat.mkv", "é e\u0301.mkv".encode()]
)
def test_any_name_can_be_opened(tmp_path: Path, name: Any) -> None:
    path = tmp_path / os.fsdecode(name)
    try:
        write_video(tmp_path / "plain.mkv", REGULAR).rename(path)
    except OSError:
        pytest.skip("this file system refuses such names")
    assert len(read(path)[0]) == 60


def test_the_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "cover.png"), picture)
    with av.open(str(tmp_path / "song.mp3"), "w") as out:
        sound, cover = out.add_stream("mp3", rate=44100), out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 8, 8, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 44100
        packets = [*cover.encode(av.VideoFrame.from_ndarray(picture)), *cover.encode(None)]
        for packet in [*packets, *sound.encode(silence), *sound.encode(None)]:
            out.mux(packet)
    with pytest.raises(EdgeHalError, match="cover picture, no video"):
        VideoFile(tmp_path / "song.mp3")


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_pictures_of_phones_are_turned_upright(tmp_path: Path, angle: int) -> None:
    """The rotation is a matrix in the header of the track (ISO/IEC 14496-12, tkhd)."""
    path = write_video(tmp_path / "v.mp4", REGULAR[:5], codec="mpeg4")
    data = bytearray(path.read_bytes())
    turn = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[angle]
    start = data.find(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 12, 16), turn, strict=True):
        data[start + place : start + place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    expected = cv2.VideoCapture(str(path)).read()[1]
    with VideoFile(path) as video:
        picture = video.picture(next(video.frames())[1])
    assert expected.shape == ((64, 48, 3) if angle != 180 else (48, 64, 3))
    assert largest_difference(picture, expected) <= ROUNDING
    with VideoFile(path) as video:
        assert video.aspect() == (expected.shape[1] / expected.shape[0],) * 2


@pytest.mark.parametrize("pixel", [Fraction(1), Fraction(4, 3), Fraction(16, 15)])
def test_the_aspect_is_that_of_what_is_shown(tmp_path: Path, pixel: Fraction) -> None:
    """Recorders store pixels that are not square (ITU-R BT.601). The times do not depend on whether it was asked."""
    path = write_video(tmp_path / "v.mp4", REGULAR, codec="mpeg4", size=(48, 64), pixel=pixel)
    with VideoFile(path) as asked, VideoFile(path) as other:
        assert asked.aspect() == pytest.approx((float(48 / 64 * pixel), 48 / 64))
        assert asked.times_ns().tolist() == other.times_ns().tolist()
        assert other.aspect() == asked.aspect()


def test_a_file_whose_pictures_cannot_be_decoded_has_no_aspect(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", REGULAR[:40])
    data = path.read_bytes()
    for marker in (b"\xff\xd8\xff", b"\xff\xc0", b"\xff\xda"):  # begin of a JPEG, of its frame and of its scan
        data = data.replace(marker, bytes(len(marker)))
    path.write_bytes(data)
    with VideoFile(path) as video:
        assert len(video.times_ns()) == 40 and video.aspect() is None
