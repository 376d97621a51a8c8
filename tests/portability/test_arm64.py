"""The runtime on an emulated arm64 machine, with the versions of JetPack 6, gives the events that it gives here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edge_hal.events import Transition
from tests.helpers.bundles import LABELS, vectors
from tests.helpers.processes import REPOSITORY
from tests.portability import arm64

FROZEN = REPOSITORY / "tests" / "data" / "0.1.0"
ROOT = REPOSITORY / "build" / "arm64"
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def root() -> Path:
    if arm64.missing():
        pytest.skip(f"not installed: {', '.join(arm64.missing())}; make services installs them")
    try:
        arm64.make_root(ROOT)
    except RuntimeError as error:
        pytest.skip(str(error))
    return ROOT


def check(root: Path, bundle: Path, source: str, *options: str, transitions: int) -> None:
    here, there = (arm64.stream(where, bundle, source, *options) for where in (None, root))
    assert sum(isinstance(event, Transition) for event in here) >= transitions
    assert arm64.largest_difference(here, there) <= TOLERANCE


@pytest.mark.slow
def test_vectors(root: Path, bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    np.save(tmp_path / "f.npy", vectors(np.repeat(rng.integers(0, len(LABELS), 60), 12).tolist()))
    check(root, bundle, f"features:{tmp_path}/f.npy@10", transitions=20)


@pytest.mark.slow
def test_a_trained_model_on_vectors(root: Path) -> None:
    check(root, FROZEN / "bundle", f"features:{FROZEN}/stream.npy@20", transitions=4)


@pytest.mark.slow
def test_a_trained_model_with_its_encoder_on_a_video(root: Path) -> None:
    """The demo's, where there is one."""
    demo = REPOSITORY / "demo"
    videos = sorted((demo / "videos").glob("*.mp4"))
    if not videos or not (demo / "bundle" / "manifest.json").exists():
        pytest.skip("no demo: make demo")
    check(root, demo / "bundle", str(videos[0]), transitions=4)


@pytest.mark.slow
def test_a_trained_model_with_its_encoder_on_pictures(root: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for number, picture in enumerate(np.load(FROZEN / "pictures" / "frames.npy")):
        cv2.imwrite(str(tmp_path / f"{number:05}.png"), picture)
    rate = json.loads((FROZEN / "pictures" / "bundle" / "manifest.json").read_text())["spec"]["model_hz"]
    check(root, FROZEN / "pictures" / "bundle", str(tmp_path), "--fps", str(rate), transitions=4)


HASHES = """
import hashlib, sys
from pathlib import Path
from edge_hal.media.video_file import VideoFile
for path in sys.argv[1:]:
    with VideoFile(Path(path)) as video:
        pictures = hashlib.sha256(b"".join(video.picture(frame).tobytes() for _, frame in video.frames()))
    print(path, pictures.hexdigest())
"""


@pytest.mark.slow
def test_a_video_of_any_kind_gives_the_same_pictures(root: Path, tmp_path: Path) -> None:
    av, cv2 = pytest.importorskip("av"), pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 256, (200, 280, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5)  # in all colours, so that each step of a decoder has to round
    frames = [np.ascontiguousarray(noise[at : at + 180, at : at + 240]) for at in range(20)]
    kinds = [("mpeg4", "yuv420p"), ("mpeg2video", "yuv420p"), ("mjpeg", "yuvj422p")]
    kinds += [("libx264", "yuv420p"), ("libx264", "yuv420p10le"), ("libx264", "yuv444p"), ("libvpx-vp9", "yuv420p")]
    for codec, pixels in kinds:
        with av.open(str(tmp_path / f"{codec}-{pixels}.mkv"), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 240, 180, pixels, 4_000_000
            for frame in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            out.mux(stream.encode(None))
    here, there = (arm64.output(where, "-c", HASHES, *map(str, sorted(tmp_path.iterdir()))) for where in (None, root))
    assert here == there and len(here.splitlines()) == len(kinds)


def test_a_difference_is_noticed(bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", vectors([0] * 20 + [1] * 20))
    events = arm64.stream(None, bundle, f"features:{tmp_path}/f.npy@10")
    last = max(number for number, event in enumerate(events) if isinstance(event, Transition))
    changed = events[last]
    assert isinstance(changed, Transition)
    moment = dataclasses.replace(changed.boundary, tick=changed.boundary.tick + 1)
    with pytest.raises(ValueError, match="on arm64"):
        arm64.largest_difference(events, [*events[:last], dataclasses.replace(changed, boundary=moment)])
