"""Cameras read by a process of their own: stopped, killed, frozen, unplugged, all for real."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.camera_backends import CameraRequest, pipeline
from edge_hal.runtime.sources.camera_process import BUFFERS, ReadingProcess, UnchangedTime
from edge_hal.runtime.sources.camera_source import refusals
from edge_hal.runtime.sources.credentials import has_password, read_auth, with_auth
from edge_hal.runtime.sources.file_readers import opencv
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.sources.source_spec import SourceSpec
from edge_hal.runtime.sources.watchdog import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    Backoff,
    CaptureClock,
    FreezeLimit,
    Limits,
)
from tests.helpers.camera_server import serving
from tests.helpers.sources import opened

TIMEOUT_S = 40
S = 10**9


def children(parent: int | None = None) -> list[int]:
    """Reading processes of a process, ours by default."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if (
            int(fields[1]) == (parent or os.getpid())
            and fields[0] != "Z"
            and b"edge_hal.runtime.sources.camera_process" in line
        ):
            found.append(int(entry.name))
    return found


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    def left() -> tuple[object, ...]:
        zombies = subprocess._active
        handles = len(os.listdir("/proc/self/fd"))
        return set(threading.enumerate()), handles, children(), list(zombies)

    before = left()
    yield
    assert left() == before


def until(source: Source, happened: Callable[[], object], taken: list[Frame] | None = None) -> list[Frame]:
    """Take frames until it has happened."""
    frames = [] if taken is None else taken
    end = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < end, f"it did not happen: {source.health()}"
        if (got := source.take(None)) is not None:
            frames.append(got[0])
    return frames


def connected(source: Source, number: int) -> bool:
    """Whether the source has connected so many times."""
    return bool(source.health()["connections"] == number)


def arrived(frames: list[Frame], count: int) -> bool:
    return len(frames) >= count


def check(frames: list[Frame], source: Source) -> None:
    """Stream time and numbers go on, and every frame is accounted for."""
    assert all(a.index < b.index and a.t_ns <= b.t_ns for a, b in pairwise(frames))
    assert all(a.captured_ns - b.captured_ns == a.t_ns - b.t_ns for a, b in pairwise(frames))
    intake = source.intake()
    taken = intake.captured - intake.superseded - intake.undecodable - intake.waiting
    assert len(frames) == taken


def events_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "rtsp"])
def test_a_camera_that_dies_and_comes_back_is_read_again(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(protocol) as (server, port), nothing_left_behind():
        with opened(f"{protocol}://127.0.0.1:{port}/cam", limits=Limits(stall_s=2)) as source:
            frames: list[Frame] = []
            until(source, lambda: len(frames) >= 5, frames)
            server.kill()
            until(source, lambda: source.health()["state"] == "lost", frames)
            number = frames[-1].index
            with serving(protocol, port):
                until(source, lambda: frames[-1].index > number + 5, frames)
            check(frames, source)
        assert source.health()["connections"] == 2
    assert frames[0].data.shape == (48, 64, 3) and frames[0].data.dtype == np.uint8
    assert "opening it again in" in events_of(caplog)


def test_what_to_do_without_a_camera_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with opened("63", limits=Limits()) as source:
        until(source, lambda: events_of(caplog).count("opening it again in") >= 2)
    assert events_of(caplog).count("see: edge-hal cameras") == 1


def test_the_first_connect_may_take_as_long_as_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    """The time of the stream begins with the first frame that was captured, which a later one may have replaced."""
    with serving("http") as (server, port):
        server.kill()
        server.wait()
        with nothing_left_behind(), opened(f"http://127.0.0.1:{port}/cam") as source:
            frames = until(source, lambda: source.health()["lost"])
            served_ns = time.monotonic_ns()
            with serving("http", port):
                until(source, lambda: frames, frames)
            assert 0 <= frames[0].t_ns < time.monotonic_ns() - served_ns
            assert frames[0].index > 0 or frames[0].t_ns == 0
    assert f"cannot open the camera http://127.0.0.1:{port}/cam" in events_of(caplog)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/cam", "rtsp://127.0.0.1:9/cam", "97", "fault:unplug@0s:{video}"])
def test_a_failed_connect_leaves_nothing_behind(uri: str, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((5, 3), np.float32))
    uri = uri.format(video=f"features:{tmp_path}/f.npy@10")
    with nothing_left_behind():
        try:
            with opened(uri, vector_size=3, limits=Limits(give_up_s=1.5)) as source:
                until(source, lambda: source.ended)
        except EdgeHalError as error:
            told = str(error.with_traceback(None))
        assert children() == []
    assert "cannot open" in told or "there is no camera 97" in told


def test_what_hangs_while_it_opens_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, nothing_left_behind():
        limits = Limits(open_s=1.0, give_up_s=0.5)  # OpenCV itself would wait ten seconds
        with (
            pytest.raises(EdgeHalError, match="does not open"),
            opened(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam", limits=limits) as source,
        ):
            until(source, lambda: source.ended)


def test_a_hanging_read_is_killed_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with serving("http") as (_, port), nothing_left_behind():
        with opened(f"http://127.0.0.1:{port}/cam", limits=Limits(stall_s=1)) as source:
            frames = until(source, lambda: source.health()["state"] == "running")
            [child] = children()
            os.kill(child, signal.SIGSTOP)  # as good as a read() that does not return
            until(source, lambda: source.health()["connections"] == 2, frames)
            until(source, lambda: frames[-1].t_ns > 2 * S, frames)
            [replaced] = children()
            assert replaced != child
            check(frames, source)
        assert children() == []
    assert "it hangs" in events_of(caplog)


@pytest.mark.slow
def test_a_reading_process_that_is_killed_is_replaced_at_any_moment() -> None:
    """Four times, at random: every frame that arrived is whole and counted."""
    rng = random.Random(4)
    with (
        serving("http", fps=100) as (_, port),
        nothing_left_behind(),
        opened(f"http://127.0.0.1:{port}/cam") as source,
    ):
        frames: list[Frame] = []
        for number in range(1, 5):
            until(source, partial(connected, source, number), frames)
            more = len(frames) + rng.randrange(20)
            until(source, partial(arrived, frames, more), frames)
            [child] = children()
            os.kill(child, signal.SIGKILL)
        until(source, lambda: source.health()["connections"] == 5, frames)
        check(frames, source)
    for frame in frames:
        assert 30 < frame.data.mean() < 210 and 5 < frame.data.std() < 40


def test_a_machine_out_of_handles_is_a_reason_to_try_again() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        serving("http") as (_, port),
        nothing_left_behind(),
        opened(f"http://127.0.0.1:{port}/cam") as source,
    ):
        frames = until(source, lambda: source.intake().captured)
        [child] = children()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            os.kill(child, signal.SIGKILL)
            until(source, lambda: "Too many open files" in str(source.health()["lost"]), frames)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(source, lambda: source.health()["connections"] == 2, frames)
        check(frames, source)


def test_a_frozen_picture_is_reported_and_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    with serving("http", still=True) as (_, port), nothing_left_behind():
        limits = Limits(still_s=0.5)
        with opened(f"http://127.0.0.1:{port}/cam", limits=limits) as source:
            frames = until(source, lambda: source.health()["connections"] == 3)
            check(frames, source)
    told = [record.getMessage() for record in caplog.records if "frozen" in record.getMessage()]
    assert len(told) == 2 and "the same for 0.5 s" in told[0] and "the same for 1.0 s" in told[1]


def test_nobody_who_reads_dies_when_the_reader_is_killed() -> None:
    """kill -9 of the parent: its child ends by itself."""
    code = (
        "import sys\n"
        "from edge_hal.runtime.open_source import open_source\n"
        "from edge_hal.runtime.sources.source_spec import SourceSpec\n"
        "with open_source(SourceSpec.parse(sys.argv[1])) as source:\n"
        "    while source.take(None) is None: pass\n"
        "    print('reading', flush=True)\n"
        "    while True: source.take(None)\n"
    )
    with serving("http") as (_, port):
        command = [sys.executable, "-c", code, f"http://127.0.0.1:{port}/cam"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None and parent.stdout.readline() == "reading\n"
            [child] = children(parent.pid)
            parent.kill()
        end = time.monotonic() + TIMEOUT_S
        while Path(f"/proc/{child}").exists() and time.monotonic() < end:
            os.sched_yield()
        assert not Path(f"/proc/{child}").exists()


# --- buffers ------------------------------------------------------------------------------------


def test_without_a_free_buffer_frames_are_dropped_and_counted_never_torn(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(300, dtype=np.float32)[:, None], 1000, axis=1)
    np.save(tmp_path / "f.npy", rows)
    request = CameraRequest(SourceSpec.parse(f"fault:drop=0%:features:{tmp_path}/f.npy@300"), vector_size=1000)
    heard, waker = Pipe(duplex=False)
    with nothing_left_behind(), ReadingProcess(request) as process:
        number, lost, finished = 0, 0, False
        held: list[Any] = []
        while not finished:
            message = process.receive(0.1 if len(held) == BUFFERS else TIMEOUT_S, heard)
            if message is None:  # a tenth of a second without a free buffer: the child drops what it reads
                assert len(held) == BUFFERS
            elif "buffer" in message:
                held.append(message)
                assert len({entry["buffer"] for entry in held}) == len(held) <= BUFFERS
            else:
                finished, last = message.get("finished", False), message.get("lost", 0)
            if message is None or finished:
                for entry in held:
                    number, lost = number + entry["lost"], lost + entry["lost"]
                    assert (process.picture(entry) == number).all()
                    number += 1
                held = []
        assert number + last == 300 and lost > 50
    heard.close()
    waker.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["same", "one", "new"]), min_size=1, max_size=30), st.integers(1, 10**9))
def test_the_unchanged_time_compares_every_bit(changes: list[str], step_ns: int) -> None:
    rng, unchanged = np.random.default_rng(1), UnchangedTime()
    picture, now_ns, since_ns = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), 0, 0
    assert unchanged.update(picture, 0) == 0
    for change in changes:
        now_ns += step_ns
        picture = picture.copy()
        if change == "one":  # one bit of one pixel is enough
            picture[rng.integers(60), rng.integers(80), rng.integers(3)] ^= 1
        elif change == "new":
            picture = rng.integers(0, 256, picture.shape, dtype=np.uint8)
        since_ns = since_ns if change == "same" else now_ns
        assert unchanged.update(picture, now_ns) == now_ns - since_ns
    assert unchanged.update(np.zeros(4, np.float32), now_ns + 1) == 0
    assert unchanged.update(np.zeros(4, np.float32), now_ns + 2) == 0  # vectors may repeat


# --- policy --------------------------------------------------------------------------------------


def test_pauses_grow_with_jitter_and_shrink_after_a_sound_time() -> None:
    backoff = Backoff(random.Random(3))
    pauses = [backoff.next_delay_s(0.1) for _ in range(30)]
    assert 0.5 * FIRST_RETRY_S <= pauses[0] <= 1.5 * FIRST_RETRY_S
    assert all(0.5 * LONGEST_RETRY_S <= pause <= 1.5 * LONGEST_RETRY_S for pause in pauses[8:])
    assert len({round(pause, 6) for pause in pauses}) == 30
    assert backoff.next_delay_s(60.0) <= 1.5 * FIRST_RETRY_S


def test_a_scene_that_is_still_by_nature_is_opened_ever_less_often() -> None:
    freeze = FreezeLimit(2.0)
    vain = [next(s for s in range(1, 10_000) if freeze.reached(s * S)) for _ in range(12)]
    assert vain[:5] == [2, 4, 8, 16, 32] and vain[-1] == 600
    assert not freeze.reached(0) and freeze.reached(2 * S)
    assert not FreezeLimit(0).reached(10**15)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200_000_000), st.integers(0, 30_000_000), st.sampled_from([0, 0, 0, -S, S, 5 * S])),
        min_size=1,
        max_size=40,
    )
)
def test_stream_time_follows_the_clock_whatever_the_stamps_do(frames: list[tuple[int, int, Any]]) -> None:
    """Each frame: time since the last, its way here, and a step of the camera's clock."""
    clock, now_ns, shift_ns, last_ns, began_ns, stepped = CaptureClock(), 10 * S, 0, 0, None, 0
    for gap_ns, way_ns, step_ns in frames:
        now_ns += gap_ns
        shift_ns += step_ns
        t_ns, found_ns = clock.stream_ns(now_ns - way_ns + shift_ns, now_ns)
        began_ns = clock.first_ns if began_ns is None else began_ns
        stepped += bool(found_ns)
        assert t_ns >= last_ns and began_ns is not None and began_ns + t_ns <= now_ns
        last_ns = t_ns
        if not any(step for *_, step in frames):
            assert began_ns + t_ns == max(now_ns - way_ns, began_ns + t_ns) and not found_ns
    assert clock.steps == stepped <= sum(bool(step) for *_, step in frames) + 1


def test_a_step_of_the_clock_moves_no_frame_by_more_than_its_way() -> None:
    clock = CaptureClock()
    for number in range(300):
        now_ns = 50 * S + number * 33_000_000
        shift_ns = 0 if number < 100 else -S if number < 200 else 3 * S
        t_ns, found_ns = clock.stream_ns(now_ns - 2_000_000 + shift_ns, now_ns)
        assert abs(t_ns - number * 33_000_000) <= 2_000_000
        assert (found_ns != 0) == (number in (100, 200))


# --- credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "rtsp"])
def test_credentials_reach_the_camera_and_nothing_else(
    protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "pa:ss/w@rd#1"
    file = tmp_path / "auth"
    file.write_text(f"tom:{secret}\n")
    file.chmod(0o600)
    caplog.set_level(logging.DEBUG)
    with serving(protocol, auth=f"tom:{secret}") as (server, port):
        uri = f"{protocol}://127.0.0.1:{port}/cam"
        with opened(uri, auth=read_auth(file)) as source:
            until(source, lambda: source.intake().captured)
            [child] = children()
            for name in ("cmdline", "environ", "comm"):
                assert b"w@rd" not in Path(f"/proc/{child}/{name}").read_bytes()
            server.kill()
            until(source, lambda: source.health()["state"] == "lost")
            told = source.name + str(source.health()) + events_of(caplog)
        assert "w@rd" not in told and "w%40rd" not in told and "tom" not in told
    with serving(protocol, auth="tom:other") as (_, port):
        uri = f"{protocol}://127.0.0.1:{port}/cam"
        with (
            pytest.raises(EdgeHalError) as error,
            opened(uri, auth=read_auth(file), limits=Limits(give_up_s=0.1)) as source,
        ):
            until(source, lambda: source.ended)
        assert "w@rd" not in str(error.value)
    monkeypatch.setenv("EDGE_HAL_CAMERA_AUTH", "ann:x")
    assert read_auth(None) == "ann:x" and read_auth(file) == f"tom:{secret}"


def test_a_password_in_an_address_draws_a_warning_and_is_masked_for_ps() -> None:
    code = (
        "import sys\n"
        "from edge_hal.runtime.open_source import open_source\n"
        "from edge_hal.runtime.sources.source_spec import SourceSpec\n"
        "source = open_source(SourceSpec.parse(sys.argv[1]))\n"
        "print(open('/proc/self/cmdline').read().replace(chr(0), ' '), source.name)\n"
    )
    for prefix in ("", "fault:drop=1%:"):
        command = [sys.executable, "-c", code, f"{prefix}rtsp://tom:s3cr:et@127.0.0.1:9/cam"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert "*@127.0.0.1:9/cam" in done.stdout and "s3cr" not in done.stdout + done.stderr
        assert "--camera-auth" in done.stderr and "tom" not in done.stdout + done.stderr


def test_credentials_others_can_read_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    for text, mode, expected in [
        ("tom:x", 0o644, "others"),
        ("tomx", 0o600, "one line"),
        ("a:b\nc:d", 0o600, "one line"),
    ]:
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(EdgeHalError, match=expected) as error:
            read_auth(file)
        assert "tomx" not in str(error.value) and "chmod 600" in error.value.todo
    with pytest.raises(EdgeHalError, match="cannot read"):
        read_auth(tmp_path / "none")


def test_addresses_are_told_from_passwords() -> None:
    assert has_password("rtsp://tom:x@h/") and has_password("rtsp://tom:a/b@h/") and has_password("http://a:1@h")
    for uri in ("rtsp://h:554/stream@1", "rtsp://tom@h/x", "rtsp://h/x", "0", "a:b@c.mp4", "http://h:80/a?b=c@d"):
        assert not has_password(uri)
    assert with_auth("rtsp://h:5/x", "a b:c@d") == "rtsp://a%20b:c%40d@h:5/x"
    assert with_auth("rtsp://own:pw@h/x", "a:b") == "rtsp://own:pw@h/x"
    spec = SourceSpec.parse("gst:rtspsrc location=rtsp://tom:x@h user-pw=secret ! decodebin ! appsink")
    assert spec.log_name == "gst:rtspsrc ! decodebin ! appsink" and spec.has_password


# --- pipelines and devices -----------------------------------------------------------------------


def test_pipelines_say_what_opencv_lacks_or_are_tried() -> None:
    cv2 = opencv()
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    for uri in ("gst:videotestsrc ! videoconvert ! appsink", "csi:0", "fault:drop=1%:csi:1"):
        with nothing_left_behind():
            try:
                opened(uri)
                raise AssertionError
            except EdgeHalError as error:
                assert "GStreamer" in str(error) and "JetPack" in error.todo


def test_a_csi_camera_is_a_pipeline_with_what_was_asked() -> None:
    text = pipeline(CameraRequest(SourceSpec.parse("csi:1"), width=1280, height=720, fps=30.0))
    assert "sensor-id=1" in text and "width=1280,height=720,framerate=30/1 !" in text
    assert "framerate=30000/1001" in pipeline(CameraRequest(SourceSpec.parse("csi:0"), fps=29.97002997))
    plain = pipeline(CameraRequest(SourceSpec.parse("csi:0")))
    assert plain.startswith("nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM) !")
    assert pipeline(CameraRequest(SourceSpec.parse("gst:a ! b"))) == "a ! b"


def test_what_a_camera_refuses_is_named() -> None:
    asked = {"width": 1280, "height": 720, "fps": 30.0, "fourcc": "MJPG"}
    assert refusals(asked, {"width": 1280, "height": 720, "fps": 29.97, "fourcc": "MJPG"}) == []
    texts = refusals(asked, {"width": 640, "height": 720, "fps": 15.0, "fourcc": "YUYV"})
    assert [text.split()[0] for text in texts] == ["width", "fps", "fourcc"] and "640" in texts[0]
    assert refusals({"width": None}, {"width": 5}) == [] and refusals(asked, {}) == []
