"""What a check finds before a training: lists, lengths and parts that cannot be right."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.aspects import known_aspects, other_shapes
from edge_hal.learning.data.check_videos import inseparable
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.examine import examine, too_much
from edge_hal.learning.data.extraction import Sampling
from edge_hal.learning.data.media_files import read_times
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.data.training_cost import Cost, extraction_times
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.media.video_file import Aspect
from edge_hal.pictures.resize import same_shape
from tests.helpers.small_data import ACTIONS, CONFIG, write_small_data
from tests.helpers.videos import write_video

LISTS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=5)


@given(LISTS)
def test_a_chain_holds_the_steps_that_are_never_apart(lists: list[list[int]]) -> None:
    """Brute force: b follows a wherever a is, and a comes before b wherever b is."""
    seen = {step for steps in lists for step in steps}
    pairs = [pair for steps in lists for pair in itertools.pairwise(steps)]
    ends, starts = {steps[-1] for steps in lists}, {steps[0] for steps in lists}
    tied = {
        (a, b)
        for a, b in itertools.product(seen, seen)
        if (a, b) in pairs and a not in ends and b not in starts and all((x == a) == (y == b) for x, y in pairs)
    }
    chains = inseparable(lists)
    assert {pair for chain in chains for pair in itertools.pairwise(chain)} == tied
    assert len({step for chain in chains for step in chain}) == sum(map(len, chains))


def copy_of(name: str, other: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / "features" / f"{name}.npy", root / "features" / f"{other}.npy")


def lines(path: str, *names: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text("".join(f"{name}\n" for name in names))


def short(root: Path) -> None:
    path = root / "features" / "video1.npy"
    np.save(path, np.load(path)[:, :20])
    shutil.rmtree(root / "groundTruth")


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "in two parts": (
        lines("splits/test.split1.bundle", "video1.txt", "video3.txt"),
        "error",
        "1 video (video1) in the training and in the test part of split 1",
    ),
    "test without labels": (
        lambda root: (root / "groundTruth" / "video3.txt").unlink(),
        "warning",
        "the test part cannot be scored: 1 file (groundTruth/video3.txt) missing",
    ),
    "one content": (copy_of("video0", "video3"), "error", "2 videos (video0, video3) have the same content, in"),
    "twice": (copy_of("video0", "video1"), "warning", "2 videos (video0, video1) have the same content"),
    "seen once": (
        lambda root: [lines(f"transcripts/video{n}.txt", "grasp", "reach", "place")(root) for n in (0, 2)],
        "warning",
        "only one training video shows 1 step (turn)",
    ),
    "unknown step": (lines("transcripts/video1.txt", "reach", "grsp"), "error", "names the unknown step 'grsp'"),
    "no list": (
        lambda root: shutil.rmtree(root / "transcripts") or shutil.rmtree(root / "groundTruth"),
        "error",
        "missing",
    ),
    "without a video": (lines("transcripts/video9.txt", "reach"), "warning", "1 file (video9) in transcripts/ without"),
    "a step twice in a row": (
        lines("transcripts/video1.txt", *(ACTIONS[i] for i in (3, 3, 1, 0, 2))),
        "warning",
        "the step lists of 1 video (video1) name a step twice in a row",
    ),
    "a folder of lists": (
        lambda root: (root / "transcripts" / "old").mkdir(),
        "warning",
        "1 folder (old) in transcripts/ ignored: subfolders are not read",
    ),
    "two lists of a video": (
        lambda root: shutil.copy(root / "transcripts" / "video1.txt", root / "transcripts" / "video1.TXT"),
        "error",
        "two step lists are called video1: 'video1.TXT' and 'video1.txt'",
    ),
    "too short": (short, "error", "video video1 is too short for its"),
    "unreadable": (
        lambda root: (root / "features" / "video2.npy").write_bytes(b"no array"),
        "error",
        "cannot read the features",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_is_found(tmp_path: Path, case: str) -> None:
    make, level, told = CASES[case]
    root = write_small_data(tmp_path / "data", train=3, test=1)
    # Each step in at least two videos, and in different orders: nothing else is wrong.
    for name, order in (("video0", (0, 1, 2, 3)), ("video1", (3, 1, 0, 2)), ("video2", (1, 3, 2, 0))):
        lines(f"transcripts/{name}.txt", *(ACTIONS[i] for i in order))(root)
    config = load_config(str(CONFIG))
    assert examine(root, config, 1).problems == []
    make(root)
    found = examine(root, config, 1)
    assert {p.level for p in found.problems if told in p.what} == {level}, found.problems
    assert found.problems[0].level == level or level == "warning"


def test_labels_are_counted_by_what_they_cover(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)

    def told() -> str:
        return examine(root, load_config(str(CONFIG)), 1).rows["with labels"]

    assert told() == "0"
    (root / "labels").mkdir()
    first, second = ((root / "transcripts" / f"video{n}.txt").read_text().split()[0] for n in (0, 1))
    (root / "labels" / "video0.txt").write_text(f"3 {first}\n")  # a time stamp
    assert told() == "1: of some frames 1"
    (root / "labels" / "video1.csv").write_text(f"begin_s,end_s,step\n0,0.5,{second}\n")
    shutil.copy(root / "groundTruth" / "video2.txt", root / "labels")
    assert told() == "3: of all frames 1, of some frames 2"


def test_a_split_that_overlaps_is_named_although_it_is_not_trained_on(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    assert not [p for p in examine(root, load_config(str(CONFIG)), None).problems if "split 1" in p.what]
    lines("splits/test.split1.bundle", "video1.txt")(root)
    (found,) = [p for p in examine(root, load_config(str(CONFIG)), None).problems if "split 1" in p.what]
    assert found.level == "warning" and "video1" in found.what


def test_several_unreadable_videos_are_all_named_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=5, test=1)
    for name in ("video1", "video3"):
        (root / "features" / f"{name}.npy").write_bytes(b"")
    found = examine(root, load_config(str(CONFIG)), 1)
    errors = [problem.what for problem in found.problems if problem.level == "error"]
    assert len(errors) == 2 and "video1" in errors[0] and "video3" in errors[1]
    assert found.rows["steps"].startswith("4: ") and found.cost is not None


def test_missing_lists_are_one_error_and_unreadable_ones_an_error_each(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=5, test=1)
    shutil.rmtree(root / "groundTruth")
    for name in ("video1", "video2", "video4"):
        (root / "transcripts" / f"{name}.txt").unlink()
    [error] = [p for p in examine(root, load_config(str(CONFIG)), 1).problems if p.level == "error"]
    assert error.what.startswith("3 files (") and "3 of 5 videos" in error.what and "one step" in error.todo
    (root / "mapping.txt").unlink()  # now each list must be read to know the steps
    for name in ("video0", "video3"):
        (root / "transcripts" / f"{name}.txt").write_bytes("greifen über\n".encode("latin-1"))
    errors = [p.what for p in examine(root, load_config(str(CONFIG)), 1).problems if p.level == "error"]
    assert len(errors) == 3 and "video0.txt" in errors[1] and "video3.txt" in errors[2]


@pytest.mark.parametrize("written", ["VIDEO1.txt", "video1.mp4.txt", "video_1.txt"])
def test_a_list_under_nearly_the_name_of_a_video_is_named_with_it(tmp_path: Path, written: str) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    (root / "transcripts" / "video1.txt").rename(root / "transcripts" / written)
    [told] = [p for p in examine(root, load_config(str(CONFIG)), 1).problems if "without a video" in p.what]
    assert f"is {written} meant for video1?" in told.todo


def test_a_step_list_among_the_frame_labels_is_recognised(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    shutil.copy(root / "transcripts" / "video1.txt", root / "groundTruth" / "video1.txt")
    (root / "transcripts" / "video1.txt").unlink()
    [error] = [p for p in examine(root, load_config(str(CONFIG)), 1).problems if p.level == "error"]
    assert "frame labels" in error.what and "belongs in transcripts/" in error.todo


def test_one_step_gives_no_transition(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    shutil.rmtree(root / "groundTruth")
    (root / "mapping.txt").unlink()
    for name in ("video0", "video1", "video2", "video3"):
        (root / "transcripts" / f"{name}.txt").write_text("work\n")
    told = [p.what for p in examine(root, load_config(str(CONFIG)), 1).problems]
    assert "there is one step, work: no transition can be learned" in told
    assert not [what for what in told if "looks and durations" in what]


def test_each_problem_is_told_once(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    (root / "features" / "notes.docx").write_text("x")
    told = [p.what for p in examine(root, load_config(str(CONFIG)), 1).problems if "notes.docx" in p.what]
    assert len(told) == 1


def filmed_task(root: Path, stamps_ms: dict[str, list[int]]) -> Path:
    (root / "videos").mkdir(parents=True)
    (root / "transcripts").mkdir()
    (root / "task.yaml").write_text("")
    for number, (name, stamps) in enumerate(stamps_ms.items()):
        write_video(root / "videos" / f"{name}.mkv", stamps)
        steps = ("take", "place") if number % 2 else ("place", "take")
        (root / "transcripts" / f"{name}.txt").write_text("".join(f"{step}\n" for step in steps))
    return root


def test_a_damaged_video_is_an_error_before_anything_is_decoded(tmp_path: Path) -> None:
    """The same that training says after all videos were read, unless such files are accepted."""
    whole = [100 * i for i in range(60)]
    paused = [100 * i + 600_000 * (i > 30) for i in range(60)]
    root = filmed_task(tmp_path / "task", {"whole": whole, "paused": paused})
    config = load_config("tiny")
    [error] = [p for p in examine(root, config, None).problems if p.level == "error"]
    assert "1 video (paused) with more than 10% of the frames missing" in error.what
    assert "--accept-damaged" in error.todo
    assert not [p for p in examine(root, config, None, accept_damaged=True).problems if p.level == "error"]
    videos = load_dataset(root, split=None, part="train")
    with pytest.raises(EdgeHalError) as caught:
        read_recordings(
            videos, 10, config.model.encoder.spec(10) if config.model.encoder else None, accept_damaged=False
        )
    assert error.what == f"{caught.value.what}: {caught.value.why}"


def filmed(aspects: dict[str, Aspect | None]) -> VideoSet:
    videos = [Video(name, Path(name), "video", (0,), 20, aspect=aspect) for name, aspect in sorted(aspects.items())]
    return VideoSet(("take",), tuple(videos))


@given(usual=st.floats(0.4, 2.5), factor=st.floats(0.5, 2), names=st.permutations("abcde"))
def test_videos_of_another_shape_than_most_are_named(usual: float, factor: float, names: list[str]) -> None:
    shown = dict(zip(names, (usual * factor, usual, usual, usual), strict=False))
    videos = filmed({name: Aspect(shown[name], 1.0) if name in shown else None for name in names})
    found, aspects = other_shapes(videos), known_aspects(videos)
    if max(factor, 1 / factor) < 1.149:
        assert found is None
    elif max(factor, 1 / factor) > 1.151:
        assert found is not None
        assert f"in 1 video ({names[0]} ({usual * factor:.2f})): width over height is {usual:.2f} in most" in found
    assert all(any(same_shape(x, y) for y in aspects) for x in (*shown.values(), 1.0))


def test_of_two_shapes_in_equal_numbers_one_is_named_and_both_are_known() -> None:
    videos = filmed({name: Aspect(*2 * ((9 / 16 if name in "cd" else 16 / 9),)) for name in "abcd"})
    found = other_shapes(videos)
    assert found is not None and "in 2 videos (c (0.56), d (0.56))" in found
    assert known_aspects(videos) == [0.56, 1.78]
    torch = pytest.importorskip("torch")
    from edge_hal.learning.outcome import provenance_of

    told = [provenance_of(load_config("tiny"), 0, each, torch.device("cpu")) for each in (videos, filmed({"a": None}))]
    assert told[0]["picture_aspects"] == [0.56, 1.78] and "picture_aspects" not in told[1]


def test_a_phone_that_was_turned_is_told_before_training(tmp_path: Path) -> None:
    root = filmed_task(tmp_path / "task", {name: [100 * i for i in range(20)] for name in "abc"})
    write_video(root / "videos" / "b.mkv", [100 * i for i in range(20)], size=(48, 64))
    [told] = [p for p in examine(root, load_config("tiny"), None).problems if "another shape" in p.what]
    assert told.level == "warning" and "b (0.75)" in told.what and "1.33 in most" in told.what


def test_a_video_of_another_kind_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small videos and a large one, the estimate is not that of small ones alone."""
    stamps = [100 * i for i in range(20)]
    root = filmed_task(tmp_path / "task", {name: stamps for name in ("a", "b", "c", "large")})
    large = root / "videos" / "large.mkv"
    large.write_bytes(large.read_bytes() + bytes(20 * large.stat().st_size))
    measured = []

    def speed(video: Video, _: Sampling) -> float:
        measured.append(video.name)
        return 1.0 if video.name == "large" else 100.0

    monkeypatch.setattr("edge_hal.learning.data.training_cost.extraction_speed", speed)
    videos = load_dataset(root, split=None, part="train").videos
    times = extraction_times(videos, Sampling(10, 48, 64))
    seconds = [video.length / (video.rate_hz or 1) for video in videos]
    assert times == pytest.approx([seconds[0] / 100, seconds[1] / 100, seconds[2] / 100, seconds[3]])
    assert len(measured) == 2 and "large" in measured


def test_the_estimate_grows_with_the_work(tmp_path: Path) -> None:
    few, many = (write_small_data(tmp_path / str(n), train=n, test=1) for n in (3, 12))
    config, longer = load_config(str(CONFIG)), load_config(str(CONFIG), ["learning.restarts=400"])
    costs = [examine(*given, 1).cost for given in ((few, config), (many, config), (many, longer))]
    times = [cost.train_s for cost in costs if cost is not None]
    assert len(times) == 3 and times[0] < times[1] < times[2]


def test_what_no_disk_and_no_memory_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is that of the cache, which is not made for this."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    asked: list[Path] = []
    usage = shutil.disk_usage

    def of(path: Path) -> Any:
        asked.append(path)
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", of)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.yaml").touch()
    (tmp_path / "home").mkdir()
    for folder, disk, cache in (("data", "home", "home/edge-hal/videos"), ("task", "task", "task/.cache")):
        told = [problem.what for problem in too_much(Cost(0.0, 0.0, 0, 1 << 60), tmp_path / folder)]
        assert len(told) == 1 and f"into {tmp_path / cache}," in told[0] and asked.pop() == tmp_path / disk
        assert not (tmp_path / cache).exists()
    assert too_much(Cost(0.0, 0.0, 1 << 20, 1 << 20), tmp_path) == []
    memory, disk = sorted(problem.what for problem in too_much(Cost(0.0, 0.0, 1 << 60, 1 << 60), tmp_path))[::-1]
    assert "GB of memory" in memory and "extraction writes about" in disk


def test_a_video_of_which_most_is_missing_is_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", [100 * i for i in range(60)])
    paused = write_video(tmp_path / "paused.mkv", [100 * i + 600_000 * (i > 30) for i in range(60)])
    assert read_times(whole, None).notes == []
    [note] = read_times(paused, None).notes
    assert "frames are missing" in note and "did the recording pause?" in note
