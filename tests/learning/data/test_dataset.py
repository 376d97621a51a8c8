"""The loader of the MS-TCN layout: what it accepts, and what it says of what it does not."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.metrics import transcript_of
from edge_hal.ticks import expand_labels, ticks_of

ACTIONS = ("none", "take screw", "drive", "inspect")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def make_set(root: Path, count: int = 4, width: int = 5, seed: int = 0) -> Path:
    """Videos v0 .. of random labels and lengths, features (D, T), one split."""
    rng = np.random.default_rng(seed)
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    names = [f"v{i}" for i in range(count)]
    for i, name in enumerate(names):
        labels = np.repeat(rng.permutation(4), rng.integers(10, 30, 4))
        labels = np.append(labels, np.full(i + 1, labels[-1]))
        write_labels(root, name, [ACTIONS[k] for k in labels])
        array = rng.normal(size=(width, labels.size)).astype(np.float32)
        np.save(root / "features" / f"{name}.npy", array)
    (root / "mapping.txt").write_text("".join(f"{i} {a}\n" for i, a in enumerate(ACTIONS)))
    (root / "splits" / "train.split1.bundle").write_text("v0.txt\nv1.txt\nv2.txt\n")
    (root / "splits" / "test.split1.bundle").write_text("v3.txt\n")
    return root


def write_labels(root: Path, name: str, names: list[str]) -> None:
    (root / "groundTruth" / f"{name}.txt").write_text("\n".join(names) + "\n")


def load(root: Path, **options: Any) -> Any:
    return load_dataset(root, **{"split": 1, "part": "train", **options})


def true_names(root: Path, name: str) -> list[str]:
    return (root / "groundTruth" / f"{name}.txt").read_text().split("\n")[:-1]


def test_reads_what_was_written(root: Path) -> None:
    got = load(root, with_labels=True, rate_hz=30.0, background="none")
    assert got.labels == ACTIONS and got.background == 0 and got.rate_hz == 30.0
    assert [video.name for video in got.videos] == ["v0", "v1", "v2"] and not got.notes
    for video in got.videos:
        stored = np.load(root / "features" / f"{video.name}.npy")
        assert np.array_equal(video.read(), stored.T) and video.read().dtype == np.float32
        assert [ACTIONS[k] for k in video.labels] == true_names(root, video.name)
        assert video.transcript == transcript_of(video.labels)
    assert [video.name for video in load(root, part="test").videos] == ["v3"]
    assert len(load(root, split=None)) == 4


def test_without_labels_only_transcripts_remain(root: Path) -> None:
    with_labels = load(root, with_labels=True)
    got = load(root)
    assert all(video.labels is None for video in got.videos)
    assert [v.transcript for v in got.videos] == [v.transcript for v in with_labels.videos]


def test_transcripts_make_frame_labels_unnecessary(root: Path) -> None:
    expected = [video.transcript for video in load(root).videos]
    (root / "transcripts").mkdir()
    for video in load(root, split=None).videos:
        text = "\r\n".join(ACTIONS[k] for k in video.transcript) + "\r\n\r\n"
        (root / "transcripts" / f"{video.name}.txt").write_bytes(text.encode())
        (root / "groundTruth" / f"{video.name}.txt").unlink()
    assert [video.transcript for video in load(root).videos] == expected
    with pytest.raises(EdgeHalError, match=r"3 files \(groundTruth/v0.txt, .* missing"):
        load(root, with_labels=True)


def test_a_transcript_that_contradicts_the_labels_is_reported(root: Path) -> None:
    (root / "transcripts").mkdir()
    (root / "transcripts" / "v1.txt").write_text("drive\ninspect\n")
    got = load(root, with_labels=True)
    assert got.videos[1].transcript == (2, 3) and "1 transcript (v1)" in got.notes[0]


def test_mapping_is_built_from_transcripts(root: Path) -> None:
    expected = [[ACTIONS[k] for k in video.transcript] for video in load(root).videos]
    (root / "transcripts").mkdir()
    for video in load(root, split=None).videos:
        text = "\n".join(ACTIONS[k] for k in video.transcript)
        (root / "transcripts" / f"{video.name}.txt").write_text(text)
    (root / "mapping.txt").unlink()
    got = load(root)
    assert got.labels == tuple(sorted(ACTIONS)) and "no mapping.txt" in got.notes[0]
    assert [[got.labels[k] for k in video.transcript] for video in got.videos] == expected


# Orientation ---------------------------------------------------------------------------------


def rewrite(root: Path, change: Any) -> None:
    for path in sorted((root / "features").glob("*.npy")):
        np.save(path, change(np.load(path)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_both_orientations_and_any_float(root: Path, dtype: Any) -> None:
    expected = [video.read() for video in load(root).videos]
    rewrite(root, lambda array: array.T.astype(dtype))
    for video, before in zip(load(root).videos, expected, strict=True):
        assert video.read().dtype == np.float32
        assert video.read() == pytest.approx(before, abs=2e-3)


def test_one_video_is_told_by_the_others_or_by_its_labels(tmp_path: Path) -> None:
    root = make_set(tmp_path / "a")
    assert load(root, part="test").videos[0].layout == "DT"
    lone = make_set(tmp_path / "b", count=1)
    (lone / "splits" / "train.split1.bundle").write_text("v0\n")
    assert load(lone, with_labels=True).videos[0].layout == "DT"
    rewrite(lone, np.transpose)
    assert load(lone, with_labels=True).videos[0].layout == "TD"


def test_a_square_set_needs_to_be_told(tmp_path: Path) -> None:
    root = make_set(tmp_path, count=1)
    square = np.arange(1600, dtype=np.float32).reshape(40, 40)
    np.save(root / "features" / "v0.npy", square)
    write_labels(root, "v0", ["drive"] * 20 + ["inspect"] * 20)
    with pytest.raises(EdgeHalError, match=r"--set data\.layout=DT"):
        load(root, split=None, with_labels=True)
    got = load(root, split=None, layout="TD").videos[0]
    assert np.array_equal(got.read(), square)
    got = load(root, split=None, layout="DT").videos[0]
    assert np.array_equal(got.read(), square.T)


# Splits --------------------------------------------------------------------------------------


def test_split_lines_as_people_write_them(root: Path) -> None:
    lines = "\ufeffv0.txt\r\n\r\ngroundTruth/v1.txt\r\n.\\groundTruth\\v2\r\n  \r\n"
    (root / "splits" / "train.split1.bundle").write_bytes(lines.encode())
    assert [video.name for video in load(root).videos] == ["v0", "v1", "v2"]


def test_names_with_dots_survive(root: Path) -> None:
    for folder, suffix in (("features", "npy"), ("groundTruth", "txt")):
        (root / folder / f"v0.{suffix}").rename(root / folder / f"cam.01-P03.{suffix}")
    (root / "splits" / "train.split1.bundle").write_text("cam.01-P03\nv1\n")
    assert [video.name for video in load(root).videos] == ["cam.01-P03", "v1"]


# Lengths -------------------------------------------------------------------------------------


def shorten_labels(root: Path, name: str, by: int) -> None:
    write_labels(root, name, true_names(root, name)[:-by])


def test_small_differences_are_cut_and_counted(root: Path) -> None:
    shorten_labels(root, "v1", 7)
    got = load(root, with_labels=True, rate_hz=10.0)
    video = got.videos[1]
    assert len(video.labels) == len(video.read()) == video.length == len(true_names(root, "v1"))
    assert "1 video (v1)" in got.notes[0] and "7 frames" in got.notes[0]
    unlabelled = load(root, rate_hz=10.0).videos[1]
    assert unlabelled.labels is None and unlabelled.length == video.length


def test_large_differences_are_refused(root: Path) -> None:
    shorten_labels(root, "v1", 11)
    with pytest.raises(EdgeHalError, match="v1"):
        load(root, with_labels=True, rate_hz=10.0)


# Bad input -----------------------------------------------------------------------------------


def break_labels(root: Path) -> None:
    names = true_names(root, "v1")
    names[2] = "take screws"
    write_labels(root, "v1", names)


def break_transcript(root: Path) -> None:
    (root / "transcripts").mkdir()
    (root / "transcripts" / "v2.txt").write_text("none\ndrve\n")


def remove_three(root: Path) -> None:
    for name in ("v0", "v1", "v2"):
        (root / "features" / f"{name}.npy").unlink()


def truncate(root: Path) -> None:
    path = root / "features" / "v1.npy"
    path.write_bytes(path.read_bytes()[:-9])


def other_width(root: Path) -> None:
    np.save(root / "features" / "v1.npy", np.zeros((7, 60), np.float32))


def append_split(root: Path) -> None:
    with open(root / "splits" / "train.split1.bundle", "a") as file:
        file.write("groundTruth/v0.txt\n")


FAULTS = {
    "label": (break_labels, ["v1", "line 3", "'take screws'", "'take screw'"]),
    "transcript": (break_transcript, ["v2", "line 2", "'drve'", "'drive'"]),
    "missing": (remove_three, ["3 files", "features/v0.npy", "features/v2.npy"]),
    "truncated": (truncate, ["v1.npy"]),
    "garbage": (lambda r: (r / "features" / "v1.npy").write_bytes(b"PK no"), ["v1.npy"]),
    "objects": (
        lambda r: np.save(r / "features" / "v1.npy", np.array([{}]), allow_pickle=True),
        ["v1.npy"],
    ),
    "vector": (lambda r: np.save(r / "features" / "v1.npy", np.zeros(9)), ["v1.npy", "(9,)"]),
    "width": (other_width, ["v1", "(7, 60)"]),
    "empty transcript": (lambda r: write_labels(r, "v2", []), ["v2", "empty"]),
    "binary labels": (
        lambda r: (r / "groundTruth" / "v0.txt").write_bytes(b"\xff\xfe\x00\x9f"),
        ["v0.txt"],
    ),
    "a text for a step": (
        lambda r: (r / "mapping.txt").write_text(f"0 none\n1 drive\n2 {'x' * 3000}\n"),
        ["name has 3000 characters", "1000"],
    ),
    "a step for each frame": (
        lambda r: (r / "mapping.txt").write_text("".join(f"{i} s{i}\n" for i in range(2000))),
        ["2000 different steps", "1024", "s0, s1, s2"],
    ),
    "labels with a gap": (
        lambda r: write_labels(r, "v1", [*true_names(r, "v1")[:4], "", *true_names(r, "v1")[5:]]),
        ["v1", "line 5", "is empty"],
    ),
    "UTF-16": (
        lambda r: (r / "groundTruth" / "v0.txt").write_text("none\n", encoding="utf-16"),
        ["v0.txt", "no text in UTF-8", "save it as UTF-8"],
    ),
    "escape sequence": (
        lambda r: (r / "groundTruth" / "v0.txt").write_text("none\n\x1b[31mdrive\n"),
        ["line 2", "v0.txt", "control character"],
    ),
    "pipe": (lambda r: ((r / "mapping.txt").unlink(), os.mkfifo(r / "mapping.txt")), ["mapping.txt"]),
    "no mapping": (lambda r: (r / "mapping.txt").unlink(), ["mapping.txt"]),
    "bad mapping": (lambda r: (r / "mapping.txt").write_text("none 0\n"), ["line 1", "none 0"]),
    "ids from 1": (
        lambda r: (r / "mapping.txt").write_text("1 none\n2 drive\n"),
        ["mapping.txt", "[1, 2]"],
    ),
    "repeated id": (
        lambda r: (r / "mapping.txt").write_text("0 none\n0 drive\n"),
        ["line 2", "0 drive"],
    ),
    "repeated video": (append_split, ["v0", "more than once"]),
    "no split": (
        lambda r: (r / "splits" / "train.split1.bundle").unlink(),
        ["train.split1.bundle", "test.split1.bundle"],
    ),
    "empty split": (
        lambda r: (r / "splits" / "train.split1.bundle").write_text("\n\n"),
        ["train.split1.bundle", "no video"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_error_that_names_it(root: Path, fault: Any) -> None:
    damage, named = FAULTS[fault]
    damage(root)
    with pytest.raises(EdgeHalError) as caught:
        load(root)
    assert caught.value.exit_code == 1
    assert all(text in str(caught.value) for text in named), str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_not_finite_is_named(root: Path, value: Any) -> None:
    path = root / "features" / "v1.npy"
    array = np.load(path)
    array[3, 17] = value
    np.save(path, array)
    video = load(root).videos[1]
    with pytest.raises(EdgeHalError, match="v1: feature 3 of frame 17"):
        video.read()


def test_many_missing_files_are_counted_not_listed(root: Path) -> None:
    lines = "".join(f"w{i}\n" for i in range(40))
    (root / "splits" / "train.split1.bundle").write_text(lines)
    with pytest.raises(EdgeHalError) as caught:
        load(root)
    assert "80 files" in str(caught.value) and str(caught.value).count("w") < 12


def test_folders_that_are_none(root: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", root / "mapping.txt", root / "splits"):
        with pytest.raises(EdgeHalError):
            load(path)
    with pytest.raises(EdgeHalError, match="nearest known step is 'inspect'"):
        load(root, background="inspec")


# Camera sets ---------------------------------------------------------------------------------


def write_clip(path: Path, frames: int, fps: float) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (32, 24))
    for i in range(frames):
        writer.write(np.full((24, 32, 3), i % 256, np.uint8))
    writer.release()


def test_camera_sets(root: Path, tmp_path: Path) -> None:
    (root / "videos").mkdir()
    for name in ("v0", "v1", "v2"):
        write_clip(root / "videos" / f"{name}.mp4", len(true_names(root, name)), 25.0)
    assert load(root).videos[0].kind == "features"
    got = load(root, with_labels=True, kind="video")
    assert got.rate_hz == 25.0
    for video in got.videos:
        assert video.length == len(video.labels) == len(true_names(root, video.name))
    with pytest.raises(EdgeHalError, match="read its frames"):
        got.videos[0].read()
    (root / "videos" / "v1.mp4").write_bytes(b"not a video")
    with pytest.raises(EdgeHalError, match=r"v1\.mp4"):
        load(root, kind="video")
    (root / "videos" / "v0.avi").write_bytes(b"")
    with pytest.raises(EdgeHalError, match="two files are called v0"):
        load(root, kind="video")


# Ticks ---------------------------------------------------------------------------------------

rates = st.sampled_from([1, 2, 3, 7.5, 10, 12.5, 15, 25, 29.97, 30, 60, 30000 / 1001, 0.5])


def exact(hz: float) -> Fraction:
    return Fraction(30000, 1001) if hz == 30000 / 1001 else Fraction(str(hz))


@settings(deadline=None)
@given(st.integers(1, 400), rates, rates)
def test_a_tick_sees_the_newest_frame_and_a_frame_the_newest_tick(length: int, rate_hz: Any, model_hz: Any) -> None:
    frame, tick = exact(rate_hz), exact(model_hz)
    ticks = ticks_of(length, rate_hz, model_hz)
    for k, i in enumerate(ticks.tolist()):
        assert i / frame <= k / tick < (i + 1) / frame
    assert len(ticks) / tick > (length - 1) / frame >= (len(ticks) - 1) / tick
    numbers = expand_labels(np.arange(len(ticks)), length, rate_hz, model_hz)
    for i, k in enumerate(numbers.tolist()):
        assert k / tick <= i / frame < (k + 1) / tick


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_there_and_back_moves_a_boundary_by_less_than_a_tick(length: int, every: int, seed: int) -> None:
    labels = np.repeat(np.arange(length), np.random.default_rng(seed).integers(6, 9, length))
    back = expand_labels(labels[ticks_of(labels.size, 30, 30 / every)], labels.size, 30, 30 / every)
    late = np.searchsorted(back, np.arange(length)) - np.searchsorted(labels, np.arange(length))
    assert late.min() >= 0 and late.max() < every
    assert np.array_equal(ticks_of(length, 30, 30), np.arange(length))


@pytest.mark.parametrize("hz", [0, -1, float("nan"), float("inf"), 1e-9])
def test_impossible_rates(hz: float) -> None:
    with pytest.raises(EdgeHalError):
        ticks_of(10, hz, 5)


@pytest.mark.parametrize("name", ["vts", "mocap6"])
def test_real_sets_load(shared_data: Path, name: str) -> None:
    got = load_dataset(shared_data / name, split=1, part="train", with_labels=True)
    assert all(video.labels is not None and len(video.labels) == video.length for video in got.videos)
    first = got.videos[0].read()
    assert first.shape == (got.videos[0].length, {"vts": 36, "mocap6": 12}[name])


def test_step_lists_as_people_write_them(root: Path) -> None:
    given = load(root, with_labels=False)
    folder = root / "transcripts"
    folder.mkdir()
    for name, suffix, end in (("v0", ".Txt", "\n\n"), ("v1", ".TXT", "\r\n \t\r\n")):
        steps = next(video.transcript for video in given.videos if video.name == name)
        text = end.join(given.labels[step] for step in steps)
        (folder / f"{name}{suffix}").write_bytes(b"\xef\xbb\xbf" + text.encode())
        (root / "groundTruth" / f"{name}.txt").unlink()
    assert [v.transcript for v in load(root, with_labels=False).videos] == [v.transcript for v in given.videos]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 drive\n10 inspect\n10 none\n", ["v0.txt, line 3", "'10 none' is a second stamp", "frame 10"]),
        ("", ["v0.txt is empty", "video v0 has no stamp"]),
        ("\n\n", ["v0.txt is empty", "video v0 has no stamp"]),
        ("10 inspect\n3 drive\n", []),
    ],
)
def test_stamps_that_are_doubled_or_missing_are_refused(root: Path, text: str, expected: list[str]) -> None:
    (root / "timestamps").mkdir()
    for number in range(3):
        (root / "timestamps" / f"v{number}.txt").write_text("3 drive\n")
    (root / "timestamps" / "v0.txt").write_text(text)
    if not expected:
        labels = load(root, with_labels=True, timestamps=True).videos[0].labels
        assert np.flatnonzero(labels >= 0).tolist() == [3, 10]
        return
    with pytest.raises(EdgeHalError) as caught:
        load(root, with_labels=True, timestamps=True)
    assert [part for part in expected if part not in str(caught.value)] == [], str(caught.value)


def test_videos_of_mistakes_are_marked_and_an_unknown_one_is_an_error(root: Path) -> None:
    shown = {video.name: video.shows for video in load(root, mistakes=["v1.mp4", "v3"]).videos}
    assert shown == {"v0": "procedure", "v1": "mistakes", "v2": "procedure"}  # v3 is a test video
    with pytest.raises(EdgeHalError, match="there is no video 'v_1', which 'mistakes' lists") as error:
        load(root, mistakes=["v_1"])
    assert "nearest known video is 'v1'" in error.value.why
    write_labels(root, "v2", [ACTIONS[0]] * len(true_names(root, "v2")))
    write_labels(root, "v0", [ACTIONS[1]] * len(true_names(root, "v0")))
    assert not load(root, mistakes=["v2"]).notes
    (note,) = load(root, mistakes=["v1"]).notes
    assert note.startswith("only videos of 'mistakes' show 2 steps (drive, inspect), so the procedure is learned")


def mark_harvested(root: Path, name: str) -> None:
    entry = {"session": "s", "begin_ns": 0, "end_ns": 1, "why": [], "bundle": "", "finished": True}
    (root / "harvested.json").write_text(json.dumps({"schema": 1, "videos": {name: entry}}))


def test_mistakes_that_have_no_effect_are_noted_when_training_reads_them(root: Path) -> None:
    (note,) = load(root, mistakes=["v3", "v1"]).notes
    assert note == "'mistakes' lists 1 video (v3) without effect: not in the training part"
    assert not load(root, part="test", mistakes=["v3"]).notes
    mark_harvested(root, "v1")
    found = load(root, mistakes=["v1"])
    assert [video.shows for video in found.videos] == ["procedure", "part", "procedure"]
    assert "'mistakes' lists 1 video (v1) without effect: harvested" in found.notes[0]


def test_it_is_noted_that_the_procedure_is_learned_from_parts_too(root: Path) -> None:
    for name, step in (("v0", 0), ("v1", 1), ("v2", 0)):
        write_labels(root, name, [ACTIONS[step]] * len(true_names(root, name)))
    mark_harvested(root, "v1")
    (note,) = load(root, mistakes=["v2"]).notes
    assert note == f"only harvested videos show 1 step ({ACTIONS[1]}), so the procedure is learned from all videos"
