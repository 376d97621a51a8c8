"""`edge-hal harvest` on recordings of real runs: what is taken, that it is taken once, and when training uses it."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_hal.commands.harvest import harvest
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.harvested import read_harvested
from edge_hal.learning.data.labels.folder import read_label_folder, read_own_labels
from edge_hal.learning.data.media_files import read_times
from edge_hal.media.video_file import VideoFile
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.material import UNCERTAIN
from tests.helpers.films import ALMOST_GREEN, BLUE, GREEN, RED, write_film
from tests.helpers.loops import recorded
from tests.helpers.processes import Command, call, contents, finish, start

FILM = [(BLUE, 100), (ALMOST_GREEN, 30), (RED, 220), (ALMOST_GREEN, 40), (BLUE, 60)]
"""Transitions to green at 10 s and at 35 s are uncertain."""


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory, picture_bundle: Path) -> Path:
    """`film.avi`, and recordings of runs: `tape` whole, `ring` in pieces, `old` without the source's pictures."""
    root = tmp_path_factory.mktemp("tapes")
    film = write_film(root / "film.avi", FILM)
    options = RunOptions(picture_bundle, str(film), pace="asap", record=root / "tape", record_pictures="source")
    recorded(options)
    recorded(replace(options, record=root / "ring", record_around=Retention(4.0, 10**9)))
    recorded(replace(options, record=root / "old", record_pictures="encoder"))
    return root


@pytest.fixture
def task(tmp_path: Path, tapes: Path) -> Path:
    """A task folder with one video and its list, beside copies of the recordings."""
    for name in ("tape", "ring", "old"):
        shutil.copytree(tapes / name, tmp_path / name)
    root = tmp_path / "task"
    for name in ("videos", "transcripts", "labels"):
        (root / name).mkdir(parents=True)
    shutil.copy(tapes / "film.avi", root / "videos" / "whole.avi")
    (root / "transcripts" / "whole.txt").write_text("blue\ngreen\nred\ngreen\nblue\n")
    (root / "task.yaml").write_text("")
    return root


def test_what_is_doubtful_by_default_is_what_a_run_keeps() -> None:
    assert inspect.signature(harvest).parameters["below"].default == UNCERTAIN


def test_stretches_are_videos_with_true_times_and_the_runs_own_segments(
    task: Path, tapes: Path, command: Command
) -> None:
    done = command("harvest", "tape", "--into", "task", "--around", "3s")
    assert done.returncode == 0 and "2 stretches taken" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("uncertain: ") == 2 and "--blur-faces" in done.stdout
    taken = read_harvested(task)
    assert [(entry.begin_ns, entry.finished) for entry in taken.values()] == [(7 * 10**9, True), (32 * 10**9, True)]
    with VideoFile(tapes / "film.avi") as film:
        source = {t_ns: film.picture(frame) for t_ns, frame in film.frames()}
    suggested = read_label_folder(task / "suggestions")
    for name, entry in taken.items():
        path = task / "videos" / f"{name}.mp4"
        times = read_times(path, None)
        assert times.rate_hz == 10.0 and times.constant_rate and times.times_ns[0] == 0
        with VideoFile(path) as video:
            seen = [(t_ns, video.picture(frame)) for t_ns, frame in video.frames()]
            assert video.missing().share == 0
        for t_ns, picture in seen:
            assert np.abs(picture.astype(int) - source[entry.begin_ns + t_ns]).mean() < 4
        assert len(seen) == round((entry.end_ns - entry.begin_ns) / 1e8)
        marks = suggested[name].marks
        assert marks is not None and marks[0].begin == 0 and marks[-1].end == pytest.approx(len(seen) / 10)
        for mark in marks:
            colours = {"blue": 0, "green": 1, "red": 2}
            middle = source[entry.begin_ns + round((mark.begin + (mark.end or 0)) * 5) * 10**8]
            assert middle.mean(axis=(0, 1)).argmax() == colours[mark.step]
    assert command("check", "task").stdout.count("left out, with suggestions only") == 1


def test_nothing_is_taken_twice_whatever_the_options(task: Path, command: Command) -> None:
    first = command("harvest", "ring", "--into", "task", "--most", "1")
    assert "1 stretch taken" in first.stdout and "skipped: 1 stretches more" in first.stdout
    second = command("harvest", "ring", "--into", "task")
    assert "1 stretch taken" in second.stdout and "skipped: 1 doubts were taken before" in second.stdout
    before = contents(task)
    for more in ((), ("--around", "9s"), ("--around", "1s")):
        again = command("harvest", "ring", "ring", "--into", "task", *more)
        assert "0 stretches taken" in again.stdout and "2 doubts were taken before" in again.stdout
    assert contents(task) == before
    name = next(iter(read_harvested(task)))
    (task / "videos" / f"{name}.mp4").unlink()  # the user did not want it
    assert "0 stretches taken" in command("harvest", "ring", "--into", "task").stdout
    wider = command("harvest", "ring", "--into", "task", "--below", "0.99")
    intervals = sorted((entry.begin_ns, entry.end_ns) for entry in read_harvested(task).values())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(intervals)), wider.stdout


KILLED = """
import os, sys
from edge_hal import cli
real, left = os.replace, int(sys.argv.pop(1))
def replace(*a):
    global left
    left -= 1
    if left < 0: os._exit(9)
    real(*a)
os.replace = replace
sys.argv[0] = "edge-hal"
cli.main()
"""


@pytest.mark.slow
def test_a_harvest_that_was_killed_anywhere_ends_as_if_it_had_not(task: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(task, tmp_path / "other")
    command("harvest", "tape", "--into", "other")
    expected = {path.relative_to("other"): data for path, data in relative(tmp_path, "other").items()}
    for step in range(20):
        shutil.copytree(task, tmp_path / "again")
        code, _, err = call(str(step), "harvest", "tape", "--into", "again", code=KILLED, cwd=tmp_path)
        assert code in (0, 9), err
        command("check", "again")  # reads whatever is there
        if code == 9:
            assert " taken into again" in command("harvest", "tape", "--into", "again").stdout
        found = {path.relative_to("again"): data for path, data in relative(tmp_path, "again").items()}
        assert found == expected, step
        shutil.rmtree(tmp_path / "again")
        if code == 0:
            break
    assert step == 8  # two stretches, four files each


def relative(root: Path, folder: str) -> dict[Path, bytes]:
    found = {path.relative_to(root): path.read_bytes() for path in (root / folder).rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if ".cache" not in path.parts}


def test_a_run_that_goes_on_keeps_its_newest_doubt_until_it_ends(
    task: Path, tmp_path: Path, picture_bundle: Path, command: Command
) -> None:
    film = write_film(tmp_path / "live.avi", [(BLUE, 15), (ALMOST_GREEN, 15), (BLUE, 600)])
    arguments = ("--bundle", str(picture_bundle), "--camera", str(film), "--pub", "tcp://127.0.0.1:*")
    with start("run", *arguments, "--record", "live", "--record-pictures", "source", cwd=tmp_path) as run:
        assert run.stdout is not None
        while "green" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGSTOP)
        done = command("harvest", "live", "--into", "task")
        assert "0 stretches taken" in done.stdout and "skipped: 1 doubts are still being recorded" in done.stdout
        run.send_signal(signal.SIGKILL)
        finish(run)
    done = command("harvest", "live", "--into", "task")
    assert "1 stretch taken" in done.stdout and "-> green" in done.stdout


def test_older_and_broken_recordings_are_told_and_the_others_are_used(
    task: Path, tmp_path: Path, command: Command
) -> None:
    before = contents(task)
    old = command("harvest", "old", "--into", "task")
    assert old.returncode == 1 and "no pictures of the source" in old.stderr
    assert "--record-pictures source" in old.stderr
    broken = pieces(tmp_path / "ring")[0]
    (broken / "pictures.jsonl").write_text("nonsense\n")
    nothing = command("harvest", str(broken), "--into", "task")
    assert nothing.returncode == 1 and "is no recording" in nothing.stderr
    missing = command("harvest", "nowhere", "--into", "task")
    assert missing.returncode == 1 and "is no recording that can be read: it has no log.jsonl" in missing.stderr
    assert "Error" not in missing.stderr
    no_task = command("harvest", "ring", "--into", "old")
    assert no_task.returncode == 2 and "edge-hal init FOLDER" in no_task.stderr  # init refuses a full one
    assert contents(task) == before
    done = command("harvest", "old", "ring", "--into", "task")
    assert done.returncode == 0 and "2 stretches taken" in done.stdout
    assert done.stdout.count("no pictures of the source") == 1 and done.stdout.count("is no recording") == 1


def test_a_damaged_picture_costs_its_stretch_only(task: Path, tmp_path: Path, command: Command) -> None:
    rows = [json.loads(line) for line in (tmp_path / "tape" / "pictures.jsonl").read_text().splitlines()]
    offset = sum(row["bytes"] for row in rows[:100])
    with (tmp_path / "tape" / "pictures.mjpeg").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(16))
    done = command("harvest", "tape", "--into", "task")
    assert done.returncode == 0 and "1 stretch taken" in done.stdout and "is damaged at byte" in done.stdout
    assert [entry.begin_ns // 10**9 for entry in read_harvested(task).values()] == [30]
    assert len(list((task / "videos").iterdir())) == 2


def test_gaps_split_stretches(task: Path, tmp_path: Path, picture_bundle: Path, command: Command) -> None:
    film = write_film(tmp_path / "gap.avi", [(BLUE, 150), (RED, 150)])
    camera = f"fault:unplug@10s+3s:{film}"
    options = RunOptions(picture_bundle, camera, pace="asap", record=tmp_path / "gap", record_pictures="source")
    recorded(options)
    done = command("harvest", "gap", "--into", "task", "--around", "2s")
    assert done.returncode == 0 and done.stdout.count("gap: ") == 2, done.stdout
    spans = [(entry.begin_ns / 1e9, entry.end_ns / 1e9) for entry in read_harvested(task).values()]
    assert sorted(round(end - begin) for begin, end in spans) == [2, 2] or len(spans) == 2
    assert all(end <= 10.5 or begin >= 12.5 for begin, end in spans), spans


def test_training_reads_a_video_once_its_suggestions_are_accepted(task: Path, command: Command) -> None:
    command("harvest", "tape", "--into", "task")
    first, second = read_harvested(task)

    def loaded() -> dict[str, tuple[str, ...]]:
        own = read_own_labels(task)
        videos = load_dataset(task, split=None, part="train", with_labels=set(own), own_labels=own)
        told = [note for note in videos.notes if "suggestions only" in note]
        assert bool(told) == (len(videos) < 3)
        assert all((video.shows == "procedure") == (video.name == "whole") for video in videos.videos)
        return {v.name: tuple(videos.labels[step] for step in v.transcript) for v in videos.videos}

    assert list(loaded()) == ["whole"]
    (task / "suggestions" / f"{first}.csv").rename(task / "labels" / f"{first}.csv")
    assert loaded() == {"whole": ("blue", "green", "red", "green", "blue"), first: ("blue", "green", "red")}
    (task / "transcripts" / f"{second}.txt").write_text("red\ngreen\nblue\n")
    assert set(loaded()) == {"whole", first, second}
    (task / "transcripts" / f"{second}.txt").unlink()
    text = (task / "suggestions" / f"{second}.csv").read_text()
    (task / "labels" / "corrected.csv").write_text(text)  # all videos in one table, as a tool may export them
    assert set(loaded()) == {"whole", first, second}
    (task / "labels" / "corrected.csv").unlink()
    (task / "task.yaml").write_text(f"test: [{first}, {second}]\n")  # nothing to accept: it is left out all the same
    assert not load_dataset(task, split=None, part="train").notes


def test_a_folder_that_would_never_use_the_videos_is_refused(task: Path, command: Command) -> None:
    (task / "features").mkdir()
    np.save(task / "features" / "whole.npy", np.zeros((4, 100), np.float32))
    before = contents(task)
    done = command("harvest", "tape", "--into", "task")
    assert done.returncode == 2 and "learns from features" in done.stderr and contents(task) == before
    (task / "task.yaml").write_text("config: tiny\n")  # reads the videos beside the features
    assert "2 stretches taken" in command("harvest", "tape", "--into", "task").stdout


def test_blur_faces_needs_a_detector(task: Path, command: Command) -> None:
    before = contents(task)
    done = command("harvest", "tape", "--into", "task", "--blur-faces")
    detector = hasattr(cv2, "CascadeClassifier") and any(Path(cv2.data.haarcascades).glob("*.xml"))
    if detector:
        assert done.returncode == 0 and "0 faces blurred" in done.stdout
    else:
        assert done.returncode == 2 and "no detector" in done.stderr and "opencv-python-headless<5" in done.stderr
        assert contents(task) == before


@pytest.mark.slow
def test_a_training_ignores_suggestions_and_takes_them_once_accepted(task: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_film(task / "videos" / f"{name}.avi", [(BLUE, 50), (GREEN, 60), (RED, 70)])
        (task / "transcripts" / f"{name}.txt").write_text("blue\ngreen\nred\n")
    assert call("harvest", "tape", "--into", "task", cwd=tmp_path)[0] == 0
    quick = ("restarts=2", "workers=1", "encoder.epochs=1", "student.epochs=1", "student.least_steps=3")
    brief = [f"learning.{setting}" for setting in quick]
    train = ("train", "task", *(word for setting in brief for word in ("--set", setting)))
    code, out, err = call(*train, cwd=tmp_path)
    assert code == 0 and "trained on 3 videos" in out and "2 videos" in err and "suggestions only" in err, err
    for path in list((task / "suggestions").iterdir()):
        path.rename(task / "labels" / path.name)
    code, out, err = call(*train, cwd=tmp_path)
    assert code == 0 and "trained on 5 videos" in out and "runs/2" in out, err
    assert os.path.isfile(task / "runs" / "2" / "model.safetensors")
