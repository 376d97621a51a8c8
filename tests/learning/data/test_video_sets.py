"""Data sets of video files as they come: variable rates, damage, names. Labels stay with their frames."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.spec import EncoderSpec
from tests.helpers.videos import number_of, rewrite, write_video

NUMBERS = [f"a{i}" for i in range(100)]


def make_video_set(root: Path, labels: dict[str, list[int]]) -> Path:
    """One action for each frame number, so that a label says which frame it is of."""
    for folder in ("videos", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    for name, numbers in labels.items():
        (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{NUMBERS[i]}\n" for i in numbers))
    (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NUMBERS)))
    return root


def shown(root: Path, model_hz: float) -> list[tuple[int, int]]:
    """(frame shown, frame labelled) at each tick of the only video."""
    videos = load_dataset(root, split=None, part="train", with_labels=True)
    (recording,) = read_recordings(videos, model_hz, EncoderSpec(48, 64, 8))
    assert recording.labels is not None
    pictures = [number_of(picture) for picture in np.asarray(recording.inputs)]
    return list(zip(pictures, recording.labels.tolist(), strict=True))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([33, 34, 67, 100]), min_size=40, max_size=80), st.sampled_from([4.0, 7.5, 10.0]))
def test_labels_of_a_variable_rate_stay_with_their_frames(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], model_hz: float
) -> None:
    stamps = [0, *np.cumsum(steps).tolist()]
    root = make_video_set(tmp_path_factory.mktemp("set"), {"v": list(range(len(stamps)))})
    write_video(root / "videos" / "v.mkv", stamps, rate=30)
    found = shown(root, model_hz)
    for tick, (picture, label) in enumerate(found):
        at_ms = 1000 * tick / model_hz
        assert stamps[picture] <= at_ms + 1 and (picture + 1 == len(stamps) or stamps[picture + 1] >= at_ms - 1)
        # The label is that of a frame shown at most one period of the claimed rate earlier; the rate is 10 Hz or more.
        assert label <= picture and (label + 1 == len(stamps) or stamps[label + 1] >= at_ms - 101)
    assert len(found) >= stamps[-1] / 1000 * model_hz - 1


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".webm", ".m4v"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_labels_stay_with_their_frames_where_others_are_missing(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    root = make_video_set(tmp_path_factory.mktemp("set"), {"v": list(range(80))})
    whole = write_video(root / "w.mkv", [100 * i for i in range(80)])
    start = data.draw(st.integers(1, 60))
    lost = range(start, start + data.draw(st.integers(1, 15)))
    path = root / "videos" / f"v{suffix}"
    if suffix == ".mkv":
        rewrite(whole, path, dropped=lost)
    elif suffix == ".avi":
        rewrite(whole, path, damaged=lost)
    else:
        rewrite(whole, root / "videos" / "v.mkv", damaged=lost, dropped=range(70, 80)).rename(path)
    for tick, (picture, label) in enumerate(shown(root, 10.0)):
        assert label == tick and picture == (start - 1 if tick in lost else tick)


def test_videos_that_lack_too_much_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_video_set(tmp_path, {name: list(range(80)) for name in ("cut", "good", "some")})
    whole = write_video(root / "videos" / "good.mkv", [100 * i for i in range(80)])
    rewrite(whole, root / "videos" / "some.mkv", damaged=range(10, 14))
    rewrite(whole, root / "videos" / "cut.mkv", damaged=range(10, 20), dropped=range(30, 40))
    videos = load_dataset(root, split=None, part="train")
    with pytest.raises(EdgeHalError, match=r"1 video \(cut\)") as caught:
        read_recordings(videos, 10.0, EncoderSpec(48, 64, 8), accept_damaged=False)
    assert "--accept-damaged" in caught.value.todo
    assert "video some: 5.0% of 80 frames are missing: 4 could not be decoded" in caplog.text
    assert "video cut: 25.0% of 80 frames are missing: 10 could not be decoded, 10 are not in the file" in caplog.text
    assert "good" not in caplog.text
    assert len(read_recordings(videos, 10.0, EncoderSpec(48, 64, 8))) == 3


def test_stamped_labels_stay_with_their_frames(tmp_path: Path) -> None:
    stamps = [0, *np.cumsum([33] * 30 + [100] * 30).tolist()]
    root = make_video_set(tmp_path, {"v": [0]})
    (root / "timestamps").mkdir()
    (root / "timestamps" / "v.txt").write_text("10 a10\n45 a45\n60 a60\n")
    (root / "transcripts").mkdir()
    (root / "transcripts" / "v.txt").write_text("a10\na45\na60\n")
    write_video(root / "videos" / "v.mkv", stamps, rate=30)
    (video,) = load_dataset(root, split=None, part="train", with_labels=True, timestamps=True).videos
    assert video.labels is not None and video.rate_hz == 30.0
    known = np.flatnonzero(video.labels >= 0)
    assert video.labels[known].tolist() == [10, 45, 60]
    assert np.abs(known / 30 - np.array([stamps[i] for i in (10, 45, 60)]) / 1000).max() <= 1 / 30 + 0.001


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_either_unicode_form_are_one_name(tmp_path: Path, forms: tuple[str, str]) -> None:
    files, texts = ((lambda name, form=form: unicodedata.normalize(form, name)) for form in forms)
    root = make_video_set(tmp_path, {files("caf\u00e9"): [0, 1], "b": [0, 1]})
    (root / "mapping.txt").write_text(files("0 \u00e9crou\n1 vis\n"))
    (root / "transcripts").mkdir()
    for name in (texts("caf\u00e9"), "b"):
        (root / "transcripts" / f"{name}.txt").write_text(texts("\u00e9crou\nvis\n"))
    (root / "splits" / "train.split1.bundle").write_text(texts("caf\u00e9.txt\n"))
    (root / "groundTruth" / (files("caf\u00e9") + ".txt")).write_text(files("\u00e9crou\nvis\n"))
    (root / "groundTruth" / "b.txt").write_text(files("\u00e9crou\nvis\n"))
    write_video(root / "videos" / (files("caf\u00e9") + ".mkv"), [0, 100])
    write_video(root / "videos" / "b.mkv", [0, 100])
    assert [v.transcript for v in load_dataset(root, split=None, part="train", with_labels=True).videos] == [(0, 1)] * 2
    assert [v.name for v in load_dataset(root, split=1, part="train").videos] == ["caf\u00e9"]


def test_hidden_files_are_ignored_and_others_named(tmp_path: Path) -> None:
    root = make_video_set(tmp_path, {"v": [0, 1]})
    write_video(root / "videos" / "v.mkv", [0, 100])
    for name in ("._v.mkv", ".DS_Store", "v.txt", "Thumbs.db"):
        (root / "videos" / name).write_bytes(b"no video")
    got = load_dataset(root, split=None, part="train")
    assert [video.name for video in got.videos] == ["v"]
    assert "2 other files (Thumbs.db, v.txt) ignored, not of a type of video (.mp4, " in got.notes[-1]
    (root / "videos" / "old").mkdir()
    assert (
        load_dataset(root, split=None, part="train")
        .notes[-1]
        .endswith("1 folder (old) ignored: subfolders are not read")
    )
    (root / "videos" / "v.mkv").unlink()
    with pytest.raises(
        EdgeHalError, match=r"has no file of a type of video .*: it has 2 other files .*; 1 folder \(old\)"
    ) as caught:
        load_dataset(root, split=None, part="train")
    assert "copy your recordings into" in caught.value.todo


def test_a_video_file_without_stamps_takes_the_configured_rate(tmp_path: Path) -> None:
    root = make_video_set(tmp_path, {"v": list(range(40))})
    write_video(root / "videos" / "v.mjpeg", [40 * i for i in range(40)], container="mjpeg")
    got = load_dataset(root, split=None, part="train", rate_hz=20.0)
    assert got.rate_hz == 20.0 and got.videos[0].length == 40 and "no time stamps" in got.notes[-1]
