"""A task folder on the command line: made, checked, trained, and found again by the commands that follow."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from edge_hal.commands.check import print_table
from edge_hal.commands.options.run_values import _bundle
from edge_hal.commands.options.task import tell
from edge_hal.commands.progress import Stages
from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.check_videos import Problem
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.run_directory import RunDirectory
from edge_hal.learning.train import train
from edge_hal.task_file import read_task
from edge_hal.task_folder import newest_bundle, newest_run, runs
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.processes import Command, Done, call, contents, finish, start, until_exists
from tests.helpers.small_data import CONFIG, write_small_data


def in_a_child(root: Path, *arguments: str) -> Done:
    return Done(*call(*arguments, cwd=root))


def small_task(root: Path, task: str = "test: [video3]\nrate_hz: 20\n") -> Path:
    write_small_data(root, train=3, test=1)
    shutil.rmtree(root / "splits")
    (root / "task.yaml").write_text(task)
    return root


class Interrupted(Exception):
    pass


def interrupt(stage: str, done: int, total: int, text: str) -> None:
    """The progress of a training that is interrupted as soon as it has begun."""
    if stage != "read":
        raise Interrupted


def begin(root: Path, seed: int = 0) -> Path:
    """The run of such a training."""
    videos = load_dataset(root, split=None, part="train", rate_hz=20)
    with pytest.raises(Interrupted):
        train(videos, load_config(str(CONFIG)), None, seed, interrupt, task=root)
    return runs(root)[-1]


def test_init_makes_a_folder_that_check_understands_and_refuses_a_full_one(tmp_path: Path, command: Command) -> None:
    done = command("init", "task", "--encoder", "own")
    assert done.returncode == 0 and "edge-hal check task" in done.stdout
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == [
        *("README.md", "labels", "task.yaml", "transcripts", "videos"),
    ]
    before = contents(tmp_path / "task")
    again = command("init", "task", "--encoder", "own")
    assert again.returncode == 2 and "task is not empty" in again.stderr
    assert contents(tmp_path / "task") == before
    checked = command("check", "task")
    assert checked.returncode == 1 and "videos is empty" in checked.stderr


def test_an_init_that_is_interrupted_while_it_measures_leaves_no_folder(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(budget_ms: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_hal.evaluation.encoder_costs.within_budget", interrupted)
    assert command("init", "task").returncode == 130
    assert not (tmp_path / "task").exists()
    assert command("init", "task", "--encoder", "own").returncode == 0


def test_an_init_that_cannot_write_leaves_nothing_and_works_again(tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    full = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
    full += "runpy.run_module('edge_hal', {}, '__main__')"
    for name in ("new", "empty"):
        code, _, err = call("init", name, "--encoder", "own", code=full, cwd=tmp_path)
        assert code == 1 and "make room" in err
        assert (tmp_path / name).exists() == (name == "empty")
        again = command("init", name, "--encoder", "own")
        assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_init_measures_once_which_encoder_this_machine_can_run(tmp_path: Path, command: Command) -> None:
    """What it chose stands in task.yaml, so that all commands agree on it."""
    from edge_hal.evaluation.encoder_costs import PREFERRED

    done = command("init", "task")
    assert done.returncode == 0, done.stderr
    task = read_task(tmp_path / "task")
    assert task is not None and task.file.encoder in (PREFERRED, "own")
    assert f"encoder: {task.file.encoder}. " in done.stdout
    refused = command("init", "other", "--encoder", "resnet")
    assert refused.returncode == 2 and "there is no such kind" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_every_key_that_task_yaml_shows_is_valid(tmp_path: Path) -> None:
    from edge_hal.commands.init import TASK
    from edge_hal.task_file import TaskFile

    keys = (*TaskFile.model_fields, "  model")
    lines = [line.removeprefix("# ") for line in TASK.format(encoder="own", why="").splitlines()]
    lines = [line for line in lines if line.startswith(keys) and ":" in line]
    (tmp_path / "task.yaml").write_text("\n".join(lines))
    task = read_task(tmp_path)
    assert task is not None and task.file.model_fields_set == set(TaskFile.model_fields)


def test_mistakes_of_task_yaml_are_read_and_checked(tmp_path: Path, command: Command) -> None:
    root = small_task(tmp_path / "task")
    with (root / "task.yaml").open("a") as file:
        file.write("mistakes: [video1.npy]\n")
    task = read_task(root)
    assert task is not None and 'data.mistakes=["video1.npy"]' in task.overrides(pictures=False)
    done = command("check", "task")
    assert done.returncode == 0 and "1: the procedure is not learned from them" in done.stdout
    with (root / "task.yaml").open("a") as file:
        file.write("settings: {data.mistakes: [video2]}\n")
    done = command("check", "task")
    assert done.returncode == 2 and "line 4: 'data.mistakes' twice" in done.stderr, done.stderr
    lines = (root / "task.yaml").read_text().replace("video1.npy", "vidoe1").splitlines()[:-1]
    (root / "task.yaml").write_text("\n".join(lines))
    done = command("check", "task")
    assert done.returncode == 1 and "there is no video 'vidoe1', which 'mistakes' lists" in done.stderr, done.stderr
    assert "-> correct the name, or take it out of the list" in done.stderr


def test_the_parts_of_a_task_folder(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task")

    def names(part: str) -> list[str]:
        return [video.name for video in load_dataset(root, split=None, part=part).videos]  # type: ignore[arg-type]

    assert (names("train"), names("test")) == (["video0", "video1", "video2"], ["video3"])
    with pytest.raises(EdgeHalError, match="no valid part"):
        names("valid")
    (root / "task.yaml").write_text("")
    (root / "groundTruth" / "video2.txt").unlink()
    assert names("train") == ["video0", "video1", "video2", "video3"]
    assert names("test") == ["video0", "video1", "video3"]  # those that can be scored
    assert "may have been trained on" in load_dataset(root, split=None, part="test").notes[0]
    shutil.rmtree(root / "groundTruth")
    with pytest.raises(EdgeHalError, match="nothing to score"):
        names("test")
    (root / "task.yaml").write_text("test: [vidoe3]\n")
    with pytest.raises(EdgeHalError, match="vidoe3") as caught:
        names("train")
    assert "'video3'" in str(caught.value)


def test_a_missing_list_is_named_where_the_user_writes_it(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task")
    for folder in ("transcripts", "groundTruth"):
        (root / folder / "video1.txt").unlink()
    for labelled, expected in ((False, "transcripts"), ({"video1"}, "labels")):
        with pytest.raises(EdgeHalError, match=rf"1 file \({expected}/video1.txt\) missing"):
            load_dataset(root, split=None, part="train", with_labels=labelled)


def test_a_file_in_labels_that_does_not_count_is_named_with_what_is_missing(tmp_path: Path, command: Command) -> None:
    """Its labels were accepted, and it has no other list."""
    root = small_task(tmp_path / "task")
    for name in ("video1", "video3"):
        for folder in ("transcripts", "groundTruth"):
            (root / folder / f"{name}.txt").unlink()
    (root / "labels").mkdir()
    (tmp_path / "corrected").mkdir()
    for path in (root / "labels" / "video1.csv", root / "labels" / "video3.csv", tmp_path / "corrected" / "video0.csv"):
        path.write_text("begin_s,end_s,step\n0,1,turn\n")
    done = command("train", "task", "--labels", "corrected")
    assert done.returncode == 1 and "transcripts/video1.txt) missing" in done.stderr
    assert "labels/video1.csv does not count" in done.stderr and "--labels replaces it" in done.stderr
    with pytest.raises(EdgeHalError) as caught:
        load_dataset(root, split=None, part="test", with_labels=True)
    assert "labels/video3.csv does not count: it is no .txt with a step for each frame" in caught.value.why


def test_steps_of_task_yaml_decide_the_numbers(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task", "steps: [turn, place, reach, grasp]\n")
    (root / "mapping.txt").unlink()
    videos = load_dataset(root, split=None, part="train")
    assert videos.labels == ("turn", "place", "reach", "grasp")
    (root / "task.yaml").write_text("steps: [turn, place, reach]\n")
    with pytest.raises(EdgeHalError, match="unknown step 'grasp'"):
        load_dataset(root, split=None, part="train")


def test_labels_of_the_user_are_used_without_being_asked_for(tmp_path: Path) -> None:
    from edge_hal.commands.options.train_inputs import labelled_videos, own_labels

    def labelled(*settings: str) -> object:
        config = load_config(str(CONFIG), settings)
        return labelled_videos(root, config, None, 0, own_labels(root, config, None))

    root = small_task(tmp_path / "task")
    assert labelled() == set()  # groundTruth/ alone is for scores
    (root / "labels").mkdir()
    truth = (root / "groundTruth" / "video1.txt").read_text().split()
    (root / "labels" / "video1.txt").write_text("turn\n" * len(truth))
    (root / "transcripts" / "video1.txt").write_text("turn\n")
    assert labelled() == {"video1"}
    more = labelled("learning.labelled=[video0]")
    assert more == {"video0", "video1"}
    own = own_labels(root, load_config(str(CONFIG)), None)
    videos = load_dataset(root, split=None, part="train", with_labels={"video1"}, own_labels=own)
    (one,) = [video for video in videos.videos if video.labels is not None]
    assert one.name == "video1" and set(one.labels.tolist()) == {2}  # of labels/, not of groundTruth/


def test_an_unfinished_run_is_taken_again_only_by_the_same_training(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task")
    assert begin(root) == begin(root) == root / "runs" / "1"
    assert begin(root, seed=7) == root / "runs" / "2"
    (root / "runs" / "2" / "model.safetensors").touch()
    assert begin(root, seed=7) == root / "runs" / "3"
    (root / "transcripts" / "video0.txt").write_text("reach\nturn\n")
    assert begin(root, seed=7) == root / "runs" / "4"
    (root / "runs" / "9").mkdir()
    (root / "runs" / "notes").mkdir()
    assert begin(root) == root / "runs" / "9"  # empty: the number is free
    assert begin(root, seed=1) == root / "runs" / "10"
    (root / "runs" / "11" / "last").mkdir(parents=True)
    assert begin(root) == root / "runs" / "11"  # it was interrupted before it had begun


@pytest.mark.slow
def test_a_run_that_is_being_written_is_not_begun_by_another_process(tmp_path: Path) -> None:
    """Both would go on with each other's weights."""
    root, command = small_task(tmp_path / "task"), ("train", "task", "--config", str(CONFIG))
    first = start(*command, cwd=tmp_path)
    until_exists(root / "runs" / "1" / "last" / "settings.json", first)
    first.send_signal(signal.SIGSTOP)
    before = contents(root)
    second = in_a_child(tmp_path, *command)
    first.kill()
    assert second.returncode == 1 and "another training is writing task/runs/1" in second.stderr
    assert contents(root) == before
    finish(first)
    again = in_a_child(tmp_path, *command)
    assert again.returncode == 0 and [run.name for run in runs(root)] == ["1"], again.stderr


def test_a_run_that_another_training_has_begun_meanwhile_stays_its_own(tmp_path: Path) -> None:
    """Both looked at the directory before either wrote into it."""
    videos = load_dataset(small_task(tmp_path / "task"), split=None, part="train", rate_hz=20)
    path, config = tmp_path / "run", load_config(str(CONFIG))
    first, second = (RunDirectory(path, config, seed, videos) for seed in (0, 1))
    with first, second:
        first.begin()
        before = contents(path)
        with pytest.raises(EdgeHalError, match="an unfinished run with other settings"):
            second.begin()
        assert contents(path) == before


@pytest.mark.parametrize("name", ["__version__", "torch.__version__"])
def test_another_version_does_not_continue_a_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_task(tmp_path / "task")
    assert begin(root) == root / "runs" / "1"
    monkeypatch.setattr(f"edge_hal.learning.run_directory.{name}", "0.1")
    assert begin(root) == root / "runs" / "2"
    videos = load_dataset(root, split=None, part="train", rate_hz=20)
    with pytest.raises(EdgeHalError, match="of another version"):
        train(videos, load_config(str(CONFIG)), root / "runs" / "1", 0, interrupt)


def test_labels_that_changed_are_another_training(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task")
    config = load_config(str(CONFIG))
    for expected, change in (("1", "reach"), ("2", "turn")):
        path = root / "groundTruth" / "video0.txt"
        path.write_text("\n".join([change] * 30 + path.read_text().split()[30:]))
        videos = load_dataset(root, split=None, part="train", rate_hz=20, with_labels={"video0"})
        with pytest.raises(Interrupted):
            train(videos, config, None, 0, interrupt, task=root)
        assert runs(root)[-1].name == expected


def test_commands_take_the_newest_that_is_complete(tmp_path: Path) -> None:
    root = small_task(tmp_path / "task")
    with pytest.raises(EdgeHalError, match="nothing was trained"):
        newest_run(root)
    for number in (1, 2, 9, 10):
        (root / "runs" / str(number)).mkdir(parents=True)
    with pytest.raises(EdgeHalError, match="10 is not finished"):
        newest_run(root)
    for number in (1, 9):
        (root / "runs" / str(number) / "model.safetensors").touch()
    assert newest_run(root).name == "9" and newest_run(tmp_path) == tmp_path
    with pytest.raises(EdgeHalError, match="no bundle yet"):
        newest_bundle(root)
    for number in (1, 2):
        known_bundle(root / "runs" / str(number) / "bundle")
    assert newest_bundle(root) == root / "runs" / "2" / "bundle"
    np.save(tmp_path / "f.npy", vectors([0, 1, 2] * 10))
    source = ("--camera", "features:f.npy@10", "--pace", "asap", "--pub", "tcp://127.0.0.1:*", "--json")
    for arguments in (("task",), ("--bundle", "task")):
        done = in_a_child(tmp_path, "run", *arguments, *source)
        assert done.returncode == 0, done.stderr
        assert "task/runs/2/bundle" in done.stderr
    for wrong in ((root, Path("b")), (tmp_path / "f.npy", None)):
        with pytest.raises(EdgeHalError) as caught:
            _bundle(*wrong)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["train", "check"])
def test_a_video_in_training_and_test_is_one_error(tmp_path: Path, name: str, command: Command) -> None:
    root = small_task(tmp_path / "task")
    shutil.copy(root / "features" / "video0.npy", root / "features" / "video3.npy")
    shutil.copy(root / "groundTruth" / "video0.txt", root / "groundTruth" / "video3.txt")
    done = command(name, "task", "--config", str(CONFIG))
    assert done.returncode == 1
    assert "2 videos (video0, video3) have the same content, in training and in test" in done.stderr
    assert "Traceback" not in done.stderr and not (root / "runs").exists()


def test_a_check_prints_a_table_or_json_and_exits_with_1_only_if_training_cannot_work(
    tmp_path: Path, command: Command
) -> None:
    root = small_task(tmp_path / "task")
    good = command("check", "task", "--config", str(CONFIG), "--json")
    assert good.returncode == 0
    found = json.loads(good.stdout)
    assert found["rows"]["videos"].endswith("4 in task, 3 to train on") and found["estimate"]["train_s"] > 0
    (root / "features" / "video1.npy").write_bytes(b"")
    bad = command("check", "task", "--config", str(CONFIG))
    assert bad.returncode == 1 and "error: cannot read the features" in bad.stdout
    assert "training cannot work" in bad.stderr and bad.stderr.count("->") == 1


def test_vectors_that_were_extracted_are_those_that_training_looks_for(
    tmp_path: Path, command: Command, picture_bundle: Path
) -> None:
    """A run directory holds a copy of the encoder without the notes of its exporter; eval reads by this copy."""
    from edge_hal.config import Encoder
    from edge_hal.learning.data.extraction import Sampling
    from edge_hal.learning.data.video_cache import VideoCache
    from edge_hal.learning.data.video_set import Video
    from edge_hal.learning.encoders.choose import open_pretrained
    from tests.helpers.videos import write_video

    (tmp_path / "task" / "videos").mkdir(parents=True)
    size = len(LABELS)
    (tmp_path / "task" / "task.yaml").write_text(
        f"settings:\n  model.encoder: {{height: 16, width: 16, size: {size}}}\n  model.model_hz: 5\n"
    )
    path = write_video(tmp_path / "task" / "videos" / "a.mkv", [100 * i for i in range(20)])
    (tmp_path / "task" / "transcripts").mkdir()
    (tmp_path / "task" / "transcripts" / "a.txt").write_text("one\ntwo\n")
    graph = picture_bundle / "encoder.fp32.onnx"

    def rows() -> dict[str, str]:
        done = command("check", "task", "--encoder", f"onnx:{graph}", "--json")
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, str] = json.loads(done.stdout)["rows"]
        return found

    assert "times as fast as the video), 0 MB" in rows()["extraction (estimate)"]
    done = command("extract", "task", "--encoder", f"onnx:{graph}")
    assert done.returncode == 0 and f"vectors of {size}" in done.stdout, done.stderr
    assert rows()["extraction (estimate)"] == "nothing: all videos are in the cache"
    open_pretrained(Encoder(kind=f"onnx:{graph}")).write(tmp_path / "encoder.onnx")
    cache = VideoCache(tmp_path / "task" / ".cache")
    found = cache.get(Sampling(5.0, 16, 16, tmp_path / "encoder.onnx").key(Video("a", path, "video", (), 20, 10.0)))
    assert found is not None and found.values.shape == (10, size)
    copy = Sampling(5.0, 16, 16, tmp_path / "encoder.onnx", 1).key(Video("a", path, "video", (), 20, 10.0))
    assert cache.get(copy) is not None
    next((tmp_path / "task" / ".cache").glob(f"{copy}*")).unlink()
    assert "0 MB" in rows()["extraction (estimate)"]  # a copy is missing
    assert command("extract", "task", "--clear").returncode == 0
    assert list((tmp_path / "task" / ".cache").iterdir()) == []


def test_what_is_extracted_is_what_the_run_of_task_yaml_sees(tmp_path: Path, command: Command) -> None:
    from edge_hal.learning.data.extraction import Sampling
    from edge_hal.learning.data.video_cache import VideoCache
    from edge_hal.learning.data.video_set import Video
    from edge_hal.learning.parent import open_parent
    from tests.helpers.small_models import save_picture_run
    from tests.helpers.videos import write_video

    parent = open_parent(save_picture_run(tmp_path / "run"))
    (tmp_path / "task" / "videos").mkdir(parents=True)
    (tmp_path / "task" / "task.yaml").write_text("init: ../run\n")
    path = write_video(tmp_path / "task" / "videos" / "a.mkv", [100 * i for i in range(20)])
    done = command("extract", "task")
    assert done.returncode == 0, done.stderr
    assert parent.spec.encoder is not None
    key = Sampling.of(parent.spec.model_hz, parent.spec.encoder).key(Video("a", path, "video", (), 20, 10.0))
    assert VideoCache(tmp_path / "task" / ".cache").get(key) is not None
    (tmp_path / "task" / "task.yaml").write_text("init: ../run\nencoder: onnx:other.onnx\n")
    other = command("extract", "task")
    assert other.returncode == 2 and "cannot begin with run" in other.stderr


def test_clearing_the_cache_of_a_folder_that_is_not_there_clears_nothing(tmp_path: Path, command: Command) -> None:
    from edge_hal.files.user_folders import cache_folder

    kept = cache_folder() / "videos" / "of-another-folder.ticks"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(b"rows")
    (tmp_path / "file").touch()
    for name, why in (("tsak", "there is no such folder"), ("file", "file is no folder")):
        done = command("extract", name, "--clear")
        assert done.returncode == 2 and why in done.stderr and kept.exists()


@pytest.mark.parametrize(
    ("asked", "code", "why"),
    [
        (("decoder.margin=0.1", "decoder.decide_hz=2"), 2, "decoder.decide_hz has no effect here"),
        (("learning.student.copies=1",), 2, "learning.student.copies has no effect here"),
        (("learning.swap_backgrounds=true",), 2, "learning.swap_backgrounds has no effect here"),
        (("model.model_hz=5",), 1, "model_hz is 10.0 there, and 5.0 here"),
    ],
)
def test_a_check_refuses_what_a_training_refuses_at_once(
    asked: tuple[str, ...], code: int, why: str, tmp_path: Path, command: Command
) -> None:
    from tests.helpers.small_models import save_run, small_spec

    save_run(tmp_path / "run", small_spec(size=6))
    small_task(tmp_path / "task", "test: [video3]\nrate_hz: 20\ninit: ../run\n")
    settings = [word for setting in asked for word in ("--set", setting)]
    assert "cannot begin with" not in command("check", "task").stdout
    for each, expected in (("check", code), ("train", 2)):
        done = command(each, "task", *settings)
        told = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == expected and why in told, (each, done)


def test_scores_of_a_folder_without_parts_are_of_all_videos(tmp_path: Path, command: Command) -> None:
    from tests.helpers.small_models import save_run, small_spec

    write_small_data(tmp_path / "data", train=2, test=1)
    run = save_run(tmp_path / "run", small_spec(size=6))
    (run / "config.yaml").write_text(load_config(str(CONFIG)).to_yaml())
    done = command("eval", "data", "--ckpt", "run")
    assert done.returncode == 0 and done.stdout.startswith("all videos (3), stream"), done
    assert "the model may have been trained on them" in done.stderr
    refused = command("eval", "data", "--ckpt", "run", "--part", "valid")
    assert refused.returncode == 2 and "--part valid without --split" in refused.stderr
    of_split = command("eval", "data", "--ckpt", "run", "--split", "1")
    assert of_split.returncode == 0 and of_split.stdout.startswith("1 videos, test, stream"), of_split
    assert "may have been trained" not in of_split.stderr


@pytest.mark.slow
def test_a_model_does_not_depend_on_the_cache(tmp_path: Path) -> None:
    """Pictures decoded for this training only, into a new cache, and read from a full one."""
    from edge_hal.learning.data.video_cache import VideoCache
    from edge_hal.learning.train import train
    from edge_hal.workbench import render_dataset
    from tests.helpers.short_training import BRIEF, assert_same_run

    data = render_dataset(tmp_path / "data", 3, 3, 0, workers=1)
    settings = ["learning.encoder.epochs=1", "learning.student.least_steps=3", "learning.workers=1"]
    config, videos = load_config("tiny", [*BRIEF, *settings]), load_dataset(data, split=None, part="train")
    (tmp_path / "cache").mkdir()
    cache = VideoCache(tmp_path / "cache")
    runs = [
        train(videos, config, tmp_path / name, 0, lambda *_: None, cache=given)
        for name, given in (("without", None), ("new", cache), ("full", cache))
    ]
    for run in runs[1:]:
        assert_same_run(runs[0], run)
        assert (run / "encoder.onnx").read_bytes() == (runs[0] / "encoder.onnx").read_bytes()


def test_a_video_that_cannot_be_trained_on_is_no_test_video(tmp_path: Path, command: Command) -> None:
    root = small_task(tmp_path / "task")
    shutil.copy(root / "features" / "video0.npy", root / "features" / "video1.npy")
    shutil.rmtree(root / "groundTruth")
    (root / "transcripts" / "video1.txt").unlink()
    found = json.loads(command("check", "task", "--config", str(CONFIG), "--json").stdout)["problems"]
    assert [each["what"] for each in found if each["level"] == "error"] == [
        f"1 file (transcripts/video1.txt) missing under {Path('task')}: 1 of 3 videos cannot be used without that",
    ]


def test_a_training_prints_the_first_warnings_and_stops_at_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = [Problem("warning", f"fault {number}", "todo") for number in range(5)]
    tell(warnings, Path("task"))
    told = capsys.readouterr().err.splitlines()
    shown = [line for number in range(3) for line in (f"warning: fault {number}", "  -> todo")]
    assert told == [*shown, "2 more warnings: edge-hal check task"]
    with pytest.raises(EdgeHalError, match="worse"):
        tell([*warnings, Problem("error", "worse", "todo")], Path("task"))
    with pytest.raises(EdgeHalError, match="worse: 1 more: edge-hal check task"):
        tell([Problem("error", "worse", "todo"), Problem("error", "also bad", "todo")], Path("task"))


def test_out_and_ckpt_are_asked_for_where_there_is_no_task_folder(tmp_path: Path, command: Command) -> None:
    write_small_data(tmp_path / "data", train=3, test=1)
    for name, option in (("train", "--out"), ("eval", "--ckpt"), ("calibrate", "--ckpt")):
        done = command(name, "data")
        assert done.returncode == 2 and f"{option} is missing" in done.stderr, done.stderr
    assert command("export").returncode == 2


@pytest.mark.slow
def test_from_an_empty_folder_to_events(tmp_path: Path) -> None:
    """Videos are rendered; the training is interrupted once; nothing names a run."""
    from edge_hal.workbench import render_dataset

    render_dataset(tmp_path / "rendered", 3, 4, 1, workers=1)
    assert in_a_child(tmp_path, "init", "task", "--encoder", "own").returncode == 0
    for path in (tmp_path / "rendered" / "videos").iterdir():
        shutil.copy(path, tmp_path / "task" / "videos")
        shutil.copy(tmp_path / "rendered" / "transcripts" / f"{path.stem}.txt", tmp_path / "task" / "transcripts")
    (tmp_path / "task" / "groundTruth").mkdir()
    shutil.copy(tmp_path / "rendered" / "groundTruth" / "bench_004.txt", tmp_path / "task" / "groundTruth")
    (tmp_path / "task" / "task.yaml").write_text(
        "test: [bench_004]\nsettings:\n  learning:\n    restarts: 2\n    encoder.epochs: 1\n"
        "    teacher: {warm_epochs: 1, epochs: 1}\n    student: {epochs: 1, least_steps: 3}\n"
    )
    assert in_a_child(tmp_path, "check", "task").returncode == 0
    task = tmp_path / "task"
    child = start("train", "task", cwd=tmp_path)
    until_exists(task / "runs" / "1" / "last" / "settings.json", child)
    child.send_signal(signal.SIGINT)
    assert Done(*finish(child)).returncode == 130
    for command in (("train", "task"), ("export", "task"), ("eval", "task", "--json")):
        done = in_a_child(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ours"]["mof"] > 0
    assert [path.name for path in (task / "runs").iterdir()] == ["1"]
    run = (
        "run",
        "task",
        "--camera",
        str(task / "videos" / "bench_004.mp4"),
        "--pace",
        "asap",
        "--pub",
        "tcp://127.0.0.1:*",
    )
    live = in_a_child(tmp_path, *run)
    assert live.returncode == 0 and "ticks:" in live.stdout, live.stderr


def test_names_with_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "[/x], tighten [M4], a:smile:b"
    print_table({"steps": odd}, [Problem("warning", f"steps {odd}", f"see {odd}")])
    with Stages() as report:
        report("stage [/x]", 1, 1, "[M4] :smile:")
    out, err = capsys.readouterr()
    assert out.count(odd) == 3 and "stage [/x]: 1/1 [M4] :smile:" in err
