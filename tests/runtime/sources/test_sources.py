from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.rate import exact_rate, instant_ns
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.faults import FaultScript
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.sources.slot import LatestFrameSlot
from edge_hal.runtime.sources.source_spec import SourceKind, SourceSpec
from edge_hal.runtime.sources.watchdog import Limits
from tests.helpers import videos
from tests.helpers.sources import opened


def write_video(path: Path, frames: int, fps: float = 30.0, codec: str = "MJPG") -> Path:
    """Frame i is grey of brightness 4 i + 10."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 4 * index + 10, np.uint8))
    writer.release()
    return path


def drain(source: Source) -> list[tuple[Frame, int]]:
    taken = []
    while source.ended is None:
        if (got := source.take(None)) is not None:
            taken.append(got)
    return taken


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    threads, handles = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    yield
    assert set(threading.enumerate()) == threads
    assert len(os.listdir("/proc/self/fd")) == handles


def refused(uri: str, pace: str = "asap", **options: float | None) -> EdgeHalError:
    try:
        opened(uri, pace, **options)
    except EdgeHalError as error:  # not pytest.raises: what it keeps would hold handles open
        return error.with_traceback(None)
    raise AssertionError(f"{uri} was opened")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "codec", "fps"), [("avi", "MJPG", 30.0), ("mp4", "mp4v", 12.5)])
def test_a_video_asap_gives_every_frame_in_order(tmp_path: Path, suffix: str, codec: str, fps: float) -> None:
    path = write_video(tmp_path / f"v.{suffix}", 40, fps, codec)
    with opened(str(path), "asap") as source:
        taken = drain(source)
        assert source.ended == "eof" and source.take(None) is None
        assert source.period_ns == round(1e9 / fps) and not source.live
        intake = source.intake()
    frames = [frame for frame, _ in taken]
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.t_ns for frame in frames] == [instant_ns(i, exact_rate(fps)) for i in range(40)]
    assert {missed for _, missed in taken} == {0}
    brightness = [frame.data.mean() for frame in frames]
    assert np.abs(np.array(brightness) - (4 * np.arange(40) + 10)).max() < 4
    assert frames[0].data.dtype == np.uint8 and frames[0].data.shape == (48, 64, 3)
    assert (intake.captured, intake.superseded, intake.waiting) == (40, 0, 0)


def test_a_truncated_video_simply_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 60)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with opened(str(path), "asap") as source:
        count = len(drain(source))
    assert source.ended == "eof" and 10 < count < 60


def test_files_that_are_no_videos_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "warm.avi", 2)
    refused(str(tmp_path / "missing.mp4"))  # OpenCV opens what it keeps open before we count
    text = tmp_path / "text.mp4"
    text.write_bytes(b"this is no video\n" * 100)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    header = tmp_path / "header.avi"
    header.write_bytes(write_video(tmp_path / "v.avi", 5).read_bytes()[:300])
    for path, expected in [
        (tmp_path / "missing.mp4", "there is no such file"),
        (text, "not a video"),
        (empty, "empty"),
        (header, "header.avi"),
    ]:
        for pace in ("asap", "realtime"):
            with nothing_left_behind():
                error = refused(str(path), pace)
            assert expected in str(error) and error.todo and error.exit_code == 1


@pytest.mark.parametrize("claimed", [0.0, float("nan"), float("inf"), 90_000.0, -25.0])
def test_a_frame_rate_that_cannot_be_is_refused(tmp_path: Path, claimed: float) -> None:
    path = write_video(tmp_path / "v.avi", 5)
    error = refused(str(path), fps=claimed)
    assert "frames per second" in str(error) and "--fps" in error.todo
    with opened(str(path), "asap", fps=20.0) as source:
        assert [frame.t_ns for frame, _ in drain(source)] == [i * 50_000_000 for i in range(5)]


VARIABLE_MS = [0, 20, 40, 60, 160, 260, 360, 380, 400, 700]


@pytest.mark.parametrize("pace", ["asap", "realtime"])
def test_times_are_those_of_the_file_and_damage_is_counted(
    tmp_path: Path, pace: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = videos.write_video(tmp_path / "whole.mkv", VARIABLE_MS)
    path = videos.rewrite(whole, tmp_path / "v.mkv", damaged={0, 4, 9})
    with opened(str(path), pace) as source:
        frames = [frame for frame, _ in drain(source)]
    kept = [i for i in range(10) if i not in (0, 4, 9)]
    assert {frame.index for frame in frames} <= set(kept) and frames[-1].index == kept[-1]
    assert all(frame.t_ns == VARIABLE_MS[frame.index] * 10**6 for frame in frames)
    assert all(videos.number_of(frame.data) == frame.index for frame in frames)
    intake = source.intake()
    assert intake.captured == 10 == len(frames) + intake.superseded + intake.undecodable and intake.undecodable == 3
    assert pace == "realtime" or len(frames) == 7
    assert "30.0% of 10 frames are missing: 3 could not be decoded" in caplog.text


def test_stream_time_never_passes_a_frame_that_is_still_to_come(tmp_path: Path) -> None:
    path = videos.write_video(tmp_path / "v.mkv", VARIABLE_MS)
    with opened(str(path), "realtime") as source:
        latest_ns = 0
        while source.ended is None:
            latest_ns = max(latest_ns, source.now_ns())
            if (taken := source.take(latest_ns + 5_000_000)) is not None:
                assert taken[0].t_ns >= latest_ns
                latest_ns = taken[0].t_ns
        assert latest_ns == 700_000_000


def test_what_a_file_lacks_or_does_not_say_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = videos.write_video(tmp_path / "v.h264", [100 * i for i in range(30)], codec="libx264", container="h264")
    with opened(str(path), "asap") as source:
        assert len(drain(source)) == 30
    assert "no time stamps" in caplog.text
    caplog.clear()
    cut = videos.write_video(tmp_path / "v.avi", [100 * i for i in range(60)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with opened(str(cut), "asap") as source:
        drain(source)
    assert "of 60 frames are missing" in caplog.text


# --- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_come_row_by_row_whichever_way_they_lie(tmp_path: Path, transposed: bool, dtype: Any) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 7)).astype(dtype)
    np.save(tmp_path / "f.npy", rows.T if transposed else rows)
    with opened(f"features:{tmp_path}/f.npy@12.5", "asap", vector_size=7) as source:
        frames = [frame for frame, _ in drain(source)]
    assert np.array_equal([frame.data for frame in frames], rows.astype(np.float32))
    assert frames[0].data.dtype == np.float32 and frames[0].data.flags.owndata
    assert [frame.t_ns for frame in frames] == [80_000_000 * i for i in range(50)]


def test_square_features_are_read_as_time_by_size(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32)
    np.save(tmp_path / "f.npy", rows)
    with opened(f"features:{tmp_path}/f.npy@1", "asap", vector_size=6) as source:
        assert np.array_equal([frame.data for frame, _ in drain(source)], rows)


def test_a_vector_that_is_not_finite_is_counted_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.ones((10, 3), np.float32)
    rows[4, 1], rows[7, 0] = np.nan, np.inf
    np.save(tmp_path / "f.npy", rows)
    for pace in ("asap", "realtime"):
        with opened(f"features:{tmp_path}/f.npy@500", pace, vector_size=3) as source:
            frames = [frame for frame, _ in drain(source)]
            intake = source.intake()
        assert (intake.captured, intake.undecodable) == (10, 2)
        assert len(frames) + intake.superseded == 8
        assert not {4, 7} & {frame.index for frame in frames}
        assert all(frame.t_ns == 2_000_000 * frame.index for frame in frames)
        assert "2 of 10 vectors were left out: they hold numbers that are not finite" in caplog.text
        caplog.clear()


def test_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((5, 4), np.float32))
    np.save(tmp_path / "cube.npy", np.zeros((5, 4, 3), np.float32))
    np.save(tmp_path / "truth.npy", np.zeros((5, 4), np.bool_))
    np.save(tmp_path / "none.npy", np.zeros((0, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "f.npy").read_bytes()[:150])
    (tmp_path / "junk.npy").write_bytes(os.urandom(64))
    for name, expected in [
        ("gone.npy@5", "there is no such file"),
        ("cube.npy@5", "(5, 4, 3)"),
        ("truth.npy@5", "bool"),
        ("none.npy@5", "(0, 4)"),
        ("objects.npy@5", "cannot read"),
        ("cut.npy@5", "cannot read"),
        ("junk.npy@5", "cannot read"),
        ("f.npy", "@"),
        ("f.npy@", "@"),
        ("f.npy@fast", "@"),
        ("f.npy@0", "frames per second"),
        ("f.npy@nan", "frames per second"),
    ]:
        with nothing_left_behind():
            error = refused(f"features:{tmp_path}/{name}", vector_size=4)
        assert expected in str(error) and error.todo, name
    error = refused(f"features:{tmp_path}/f.npy@5", vector_size=9)
    assert "(5, 4)" in str(error) and "9" in str(error)


# --- pace, threads, slot -------------------------------------------------------------------------


def test_realtime_keeps_the_newest_and_counts_the_rest(tmp_path: Path) -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "f.npy", rows)
    with opened(f"features:{tmp_path}/f.npy@500", "realtime", vector_size=3) as source:
        [reader] = [thread for thread in threading.enumerate() if thread.name == "edge-hal-source"]
        reader.join()  # a loop that takes nothing until the file is over
        intake = source.intake()
        assert (intake.captured, intake.superseded, intake.waiting) == (20, 19, 1)
        [(frame, missed)] = drain(source)
    assert (frame.index, missed, source.ended) == (19, 19, "eof")
    assert np.array_equal(frame.data, rows[19])
    assert source.now_ns() <= frame.t_ns + 2_000_000


def test_realtime_never_hands_a_frame_over_before_its_time(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((30, 3), np.float32))
    with opened(f"features:{tmp_path}/f.npy@200", "realtime", vector_size=3) as source:
        frames = [frame for frame, _ in drain(source)]
    first = frames[0]
    for frame in frames:
        assert frame.captured_ns - first.captured_ns >= frame.t_ns - first.t_ns - 5_000_000


def test_nothing_is_read_before_the_start_and_closing_early_is_clean(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((5, 3), np.float32))
    with nothing_left_behind():
        source = opened(f"features:{tmp_path}/f.npy@1", "realtime", vector_size=3)
        assert source.intake().captured == 0
        source.close()
        source.close()
    with (
        nothing_left_behind(),
        opened(f"features:{tmp_path}/f.npy@0.1", "realtime", vector_size=3) as source,
    ):
        assert source.take(None) is not None  # the next frame is ten seconds away: closing does not wait


def test_wake_ends_a_wait() -> None:
    slot = LatestFrameSlot()
    slot.wake()
    assert slot.get(None) is None  # would wait for ever
    waiter = threading.Thread(target=slot.get, args=(None,))
    waiter.start()
    slot.close()
    waiter.join(timeout=10)
    assert not waiter.is_alive() and slot.get(None) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["put", "put_after_lost", "superseded", "undecodable", "get", "close"]), max_size=40))
def test_the_slot_accounts_for_every_frame(actions: list[str]) -> None:
    slot = LatestFrameSlot()
    put = taken = missed_total = 0
    for action in actions:
        if action in ("put", "put_after_lost"):  # two more were lost on the way
            accepted = slot.put(Frame(put, put, put, np.zeros(1)), 2 * (action == "put_after_lost"))
            assert accepted != slot.closed
            put += accepted
        elif action == "undecodable":
            slot.add_undecodable()
        elif action == "superseded":
            slot.add_superseded(3)
        elif action == "close":
            slot.close()
        elif (got := slot.get(0)) is not None:
            frame, missed = got
            taken += 1
            missed_total += missed
            assert frame.index == put - 1  # always the newest
        intake = slot.intake()
        assert intake.captured == taken + intake.superseded + intake.undecodable + intake.waiting
        assert missed_total <= intake.superseded
    slot.put(Frame(put, put, put, np.zeros(1)))
    while (got := slot.get(0)) is not None:
        missed_total += got[1]
    assert missed_total == slot.intake().superseded or slot.closed


# --- cameras and addresses -----------------------------------------------------------------------


def test_no_such_camera_says_what_is_there() -> None:
    try:
        with nothing_left_behind(), opened("96", limits=Limits(give_up_s=0.1)) as source:
            drain(source)
        raise AssertionError
    except EdgeHalError as error:
        assert "no camera 96" in str(error) and "/dev/video" in str(error) and "--camera FILE" in error.todo


def test_cameras_cannot_wait_and_odd_schemes_are_named() -> None:
    assert refused("0", "asap").exit_code == 2
    assert refused("ftp://host/x.mp4", "realtime").exit_code == 2
    assert refused("x.mp4", "fast").exit_code == 2


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["rtsp", "http", "odd"]),
    st.sampled_from(["", "fault:drop=1%:"]),
)
def test_what_may_be_logged_of_an_address_holds_no_secret(password: str, scheme: str, prefix: str) -> None:
    text = f"{prefix}{scheme}://tomtom:{password}@camera.example:554/path?key=hidden#part"
    shown = f"{scheme}://camera.example:554/path"
    if scheme == "odd":
        assert refused(text).what in (f"cannot open the source {shown}", f"cannot open the source {scheme}://***")
        return
    spec = SourceSpec.parse(text)
    assert spec.log_name in (prefix + shown, f"{prefix}{scheme}://***")  # the latter if it may be a port and a query
    assert "tomtom" not in repr(spec)


# --- the text of --camera --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "target", "live", "may_be_vectors"),
    [
        ("0", SourceKind.DEVICE, "0", True, False),
        ("/dev/video12", SourceKind.DEVICE, "12", True, False),
        ("rtsp://h:554/x", SourceKind.ADDRESS, "rtsp://h:554/x", True, False),
        ("https://h/x", SourceKind.ADDRESS, "https://h/x", True, False),
        ("gst:a ! b", SourceKind.GSTREAMER, "a ! b", True, False),
        ("csi:1", SourceKind.CSI, "1", True, False),
        ("a b/c@d.mp4", SourceKind.PATH, "a b/c@d.mp4", False, False),
        ("features:a:b@c.npy@12.5", SourceKind.FEATURES, "a:b@c.npy", False, True),
        ("replay:some/folder", SourceKind.RECORDING, "some/folder", False, True),
    ],
)
def test_a_text_is_parsed_into_what_it_names(
    text: str, kind: Any, target: str, live: bool, may_be_vectors: bool
) -> None:
    spec = SourceSpec.parse(text)
    assert (spec.kind, spec.target, spec.log_name) == (kind, target, text)
    assert (spec.live, spec.may_be_vectors, spec.has_password, spec.faults) == (live, may_be_vectors, False, None)
    assert spec.rate == (exact_rate(12.5) if kind is SourceKind.FEATURES else None)
    if kind is SourceKind.RECORDING:
        return
    faulty = SourceSpec.parse(f"fault:drop=5%,seed=3:{text}")
    assert faulty.faults == FaultScript(drop=0.05, seed=3)
    assert faulty == replace(spec, faults=faulty.faults, log_name=f"fault:drop=5%,seed=3:{text}")


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://h/x", "features:f.npy", "features:@", "fault:0", "fault:dup", "fault:dup:", "fault:party:0"),
        *("fault:dup:fault:dup:0", "fault:dup:replay:folder", "", " "),
        *("replay:", "replay: ", "gst:", "csi:", "csi:x", "csi:-1", "csi:0 ! a", "rtsp://", "http:// ", "features:@10"),
        *("features:f.npy@0", "features:f.npy@1e9", "features:f.npy@nan"),
    ],
)
def test_a_text_that_names_no_source_is_wrong_use(text: str) -> None:
    with pytest.raises(EdgeHalError) as caught:
        SourceSpec.parse(text)
    assert caught.value.exit_code == 2 and caught.value.what and caught.value.todo


def test_a_video_over_http_is_read_like_a_camera_until_it_is_over(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 25)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://tom:s3cret@127.0.0.1:{server.server_port}/v.avi"
        with opened(uri) as source:
            taken = drain(source)
            intake = source.intake()
        server.shutdown()
    assert source.ended == "eof" and source.live and "s3cret" not in source.name
    frames = [frame for frame, _ in taken]
    assert intake.captured == 25 == len(frames) + intake.superseded
    assert frames[-1].t_ns <= source.now_ns()
    assert len({frame.captured_ns - frame.t_ns for frame in frames}) == 1


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_of_pictures_is_a_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in (3, 0, 12, 7):
        cv2.imwrite(str(tmp_path / f"{index:04d}.png"), np.full((20, 30, 3), 10 * index, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "0009.png").write_bytes(b"no picture either")
    (tmp_path / "._0003.png").write_bytes(b"hidden")
    cv2.imwrite(str(tmp_path / "0011.png"), np.zeros((9, 9, 3), np.uint8))
    with opened(str(tmp_path), "asap", fps=4.0) as source:
        frames = [frame for frame, _ in drain(source)]
    assert [int(frame.data[0, 0, 0]) for frame in frames] == [0, 30, 70, 0, 120]
    assert [frame.t_ns for frame in frames] == [0, 250_000_000, 500_000_000, 1_000_000_000, 1_250_000_000]
    assert source.intake().captured == 6 and source.intake().undecodable == 1
    assert "ignored, no pictures: notes.txt" in caplog.text and "._" not in caplog.text
    assert refused(str(tmp_path)).exit_code == 2 and "--fps" in refused(str(tmp_path)).todo
    (tmp_path / "empty").mkdir()
    for fps in (4.0, None):  # a rate is not asked for where there is nothing
        assert "holds no picture" in str(refused(str(tmp_path / "empty"), fps=fps))


@pytest.mark.parametrize("name", ["f_{}.png", "{}.JPEG", "Bild ({}).bmp", "f{}.jpe", "f{}.dib", "f{}.ppm", "f{}.webp"])
def test_pictures_come_in_natural_order_whatever_their_type(tmp_path: Path, name: str) -> None:
    for index in range(12):
        ok, data = cv2.imencode(Path(name).suffix.lower(), np.full((20, 30, 3), 20 * index, np.uint8))
        assert ok
        (tmp_path / name.format(index)).write_bytes(data.tobytes())
    with opened(str(tmp_path), "asap", fps=10.0) as source:
        found = [round(frame.data.mean() / 20) for frame, _ in drain(source)]
    assert found == list(range(12))


def test_pictures_and_videos_may_have_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system refuses such names")
    (folder / os.fsdecode(b"\xe9.png")).write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    write_video(tmp_path / "v.avi", 5).rename(folder / os.fsdecode(b"\xe9.avi"))
    for path, count, fps in ((folder, 1, 10.0), (folder / os.fsdecode(b"\xe9.avi"), 5, None)):
        with opened(str(path), "asap", fps=fps) as source:
            assert len(drain(source)) == count
            assert source.name.encode() and "\ufffd" in source.name


@pytest.mark.parametrize("text", ["{pipe}", "features:{pipe}@10", "/dev/zero"])
def test_a_pipe_or_a_device_is_no_file_and_nobody_waits_for_it(tmp_path: Path, text: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    error = refused(text.format(pipe=tmp_path / "pipe"))
    assert "it is a pipe, a device or a socket" in error.why and error.todo
