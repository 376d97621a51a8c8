"""Training end to end: from step lists to events, the same from the same seed, whatever interrupts it, and without
a look at a frame label."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.commands.evaluate import ROWS
from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.scores import frame_labels
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.learning.fitted_decoder import labels_of_procedure
from edge_hal.learning.networks.world import World
from edge_hal.learning.run_directory import RunDirectory
from edge_hal.learning.train import train
from edge_hal.metrics import TransitionPoint, score_transitions, transitions_of
from edge_hal.model.model_file import load_checkpoint
from tests.helpers.processes import TIMEOUT_S, call, contents, finish, start, until_exists
from tests.helpers.short_training import BRIEF, assert_same_run, weights
from tests.helpers.small_data import ACTIONS, CONFIG, RATE_HZ, scramble_boundaries, write_small_data
from tests.helpers.streamed import streamed_timelines

pytestmark = pytest.mark.usefixtures("one_thread")

PROMISED = ("mof", "edit", "f1_10", "f1_25", "f1_50", "transition_f1", "delay_s_median",
            "boundary_error_s_median", "false_per_min")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "data")


def learn(data: Path, out: Path, *overrides: str, seed: int = 0, report: Any = None, split: int | None = 1) -> Path:
    config = load_config(str(CONFIG), [*BRIEF, *overrides])
    full = config.learning.supervision == "frames"
    videos = load_dataset(data, split=split, part="train", with_labels=full, rate_hz=RATE_HZ)
    return train(videos, config, out, seed, report or (lambda *told: None))


@pytest.mark.slow
def test_a_run_directory_holds_what_it_should_and_the_seed_decides_it(data: Path, tmp_path: Path) -> None:
    one, two, other = (learn(data, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    held = ["alignment.json", "config.yaml", "held_out.npz", "labels.json", "model.safetensors", "reference.npz"]
    assert sorted(contents(one)) == held
    assert_same_run(one, two)
    assert any(not np.array_equal(value, weights(other)[key]) for key, value in weights(one).items())
    found = json.loads((one / "alignment.json").read_text())
    for video in load_dataset(data, split=1, part="train").videos:
        segments = found[video.name]["segments"]
        assert tuple(ACTIONS.index(name) for name, _ in segments) == video.transcript
        starts = [frame for _, frame in segments]
        assert starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] < video.length
    with pytest.raises(EdgeHalError, match="complete run"):
        learn(data, one, seed=3)


def test_what_the_input_looks_like_is_learned_from_four_videos_on(data: Path, tmp_path: Path) -> None:
    trained = load_checkpoint(learn(data, tmp_path / "run", "decoder.unfamiliar_per_h=3"))
    assert trained.familiarity is not None and trained.decoder.unfamiliar_per_h == 3.0
    few = write_small_data(tmp_path / "few", train=3)
    with pytest.raises(EdgeHalError, match="unfamiliar_per_h has no effect"):
        learn(few, tmp_path / "without", "decoder.unfamiliar_per_h=3")
    assert not (tmp_path / "without" / "model.safetensors").exists()


def test_all_processes_look_at_the_directory_before_the_first_one_writes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late process would find what the first one had begun to write, and refuse the directory."""
    order: list[str] = []
    look = RunDirectory.__init__

    class Told(World):
        def wait(self) -> None:
            order.append("wait")

    def looked(run: RunDirectory, *given: Any) -> None:
        order.append("look")
        look(run, *given)

    def begun(run: RunDirectory) -> None:
        order.append("begin")
        raise Interrupted

    monkeypatch.setattr(RunDirectory, "__init__", looked)
    monkeypatch.setattr(RunDirectory, "begin", begun)
    videos = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ)
    with pytest.raises(Interrupted):
        train(videos, load_config(str(CONFIG), BRIEF), tmp_path / "run", 0, lambda *told: None, world=Told())
    assert order == ["look", "wait", "begin"]


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_stopped_after_every_epoch_a_run_ends_as_if_it_never_was(data: Path, tmp_path: Path) -> None:
    learn(data, tmp_path / "whole")
    seen: set[tuple[str, int]] = set()

    def stop_once_at_each(stage: str, done: int, total: int, remark: str) -> None:
        if stage in ("teacher", "student", "decoder") and (stage, done) not in seen:
            seen.add((stage, done))
            raise Interrupted

    attempts = 0
    while not (tmp_path / "pieces" / "model.safetensors").exists():
        attempts += 1
        try:
            learn(data, tmp_path / "pieces", report=stop_once_at_each)
        except Interrupted:
            assert (tmp_path / "pieces" / "last" / "settings.json").is_file()
    assert attempts == len(seen) + 1 == 4 + 3 + 2 + 1
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


@pytest.mark.parametrize("epochs, least, expected", [(2, 0, 2), (2, 7, 7), (9, 7, 9), (0, 7, 0)])
def test_few_videos_are_seen_often_enough(data: Path, tmp_path: Path, epochs: int, least: int, expected: int) -> None:
    told: list[tuple[int, int]] = []

    def report(stage: str, done: int, total: int, remark: str) -> None:
        if stage == "student":
            told.append((done, total))
        elif stage == "decoder":
            raise Interrupted  # what comes later has no effect on the student

    # The videos of `data` make one step an epoch.
    settings = (f"epochs={epochs}", f"least_steps={least}", "batch=99")
    with pytest.raises(Interrupted):
        learn(data, tmp_path / "run", *(f"learning.student.{setting}" for setting in settings), report=report)
    assert told == [(number, expected) for number in range(1, expected + 1)]


@pytest.mark.slow
def test_a_damaged_stage_file_starts_the_stage_over(data: Path, tmp_path: Path) -> None:
    learn(data, tmp_path / "whole")

    def stop(stage: str, done: int, total: int, remark: str) -> None:
        if (stage, done) == ("student", 2):
            raise Interrupted

    with pytest.raises(Interrupted):
        learn(data, tmp_path / "run", report=stop)
    file = tmp_path / "run" / "last" / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert_same_run(tmp_path / "whole", learn(data, tmp_path / "run"))


def test_a_run_is_not_resumed_on_other_videos_settings_or_seed(data: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, remark: str) -> None:
        if stage == "teacher":
            raise Interrupted

    with pytest.raises(Interrupted):
        learn(data, tmp_path / "run", report=stop)
    other = shutil.copytree(data, tmp_path / "other")
    (other / "transcripts" / "video0.txt").write_text("reach\nturn\n")
    before = contents(tmp_path / "run")
    again = shutil.copytree(data, tmp_path / "again")  # features of the same lengths, extracted anew
    features = again / "features" / "video0.npy"
    np.save(features, np.load(features) + np.float32(0.5))
    changes: tuple[dict[str, Any], ...] = ({"seed": 1}, {"split": None}, {"data": other}, {"data": again})
    for change in changes:
        with pytest.raises(EdgeHalError, match="other settings or videos"):
            learn(**{"data": data, "out": tmp_path / "run", **change})
    with pytest.raises(EdgeHalError, match="other settings or videos"):
        learn(data, tmp_path / "run", "learning.dropout=0.2")
    assert contents(tmp_path / "run") == before


def test_a_folder_of_a_training_that_had_not_begun_is_used(data: Path, tmp_path: Path) -> None:
    def stop(*told: object) -> None:
        raise Interrupted

    (tmp_path / "run" / "last").mkdir(parents=True)
    with pytest.raises(Interrupted):
        learn(data, tmp_path / "run", report=stop)
    (tmp_path / "other" / "last" / "kept").mkdir(parents=True)
    with pytest.raises(EdgeHalError, match="no run"):
        learn(data, tmp_path / "other", report=stop)


def test_a_video_may_have_as_many_steps_as_the_alignment_has_samples_and_no_more(data: Path, tmp_path: Path) -> None:
    """Three seconds, looked at twice a second."""
    root = shutil.copytree(data, tmp_path / "short")
    path = root / "features" / "video1.npy"
    np.save(path, np.load(path)[:, : round(3 * RATE_HZ)])
    steps = [*ACTIONS, *ACTIONS][:7]
    (root / "transcripts" / "video1.txt").write_text("\n".join(steps[:6]))
    found = json.loads((learn(root, tmp_path / "run") / "alignment.json").read_text())
    assert [name for name, _ in found["video1"]["segments"]] == steps[:6]
    (root / "transcripts" / "video1.txt").write_text("\n".join(steps))
    with pytest.raises(EdgeHalError, match=r"video1 is too short for its 7 steps: it lasts 3\.0 s"):
        learn(root, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("labels", ["damaged", *(pytest.param(x, marks=pytest.mark.slow) for x in ("none", "moved"))])
def test_no_frame_label_is_read(tmp_path: Path, labels: str) -> None:
    """The same weights without any frame label, with files that cannot be parsed, and with every boundary moved; then
    also where the step lists come from the frame labels."""
    data = write_small_data(tmp_path / "data", train=4)  # the fewest of which some are held out
    expected = learn(data, tmp_path / "expected")
    other = shutil.copytree(data, tmp_path / "other")
    if labels == "none":
        shutil.rmtree(other / "groundTruth")
    elif labels == "damaged":
        for path in (other / "groundTruth").iterdir():
            path.write_bytes(b"\xff\x00 no action at all\n")
    else:
        assert scramble_boundaries(other, seed=1) > 0.2
    assert_same_run(expected, learn(other, tmp_path / "other-run"))
    if labels == "moved":
        shutil.rmtree(other / "transcripts")
        assert_same_run(expected, learn(other, tmp_path / "collapsed-run"))


def test_frame_supervision_does_read_them(data: Path, tmp_path: Path) -> None:
    """The other way round: what the test before would miss if labels had no effect at all."""
    moved = shutil.copytree(data, tmp_path / "moved")
    scramble_boundaries(moved, seed=1)
    runs = [learn(root, tmp_path / f"run{i}", "learning.supervision=frames") for i, root in enumerate((data, moved))]
    one, two = (weights(run) for run in runs)
    assert any(not np.array_equal(one[key], two[key]) for key in one)
    found = json.loads((runs[0] / "alignment.json").read_text())
    for video in load_dataset(data, split=1, part="train", with_labels=True).videos:
        assert video.labels is not None
        starts = [0, *(np.flatnonzero(np.diff(video.labels)) + 1)]
        told = [frame for _, frame in found[video.name]["segments"]]
        assert told == pytest.approx(starts, abs=RATE_HZ / 10)  # to a tick of the model


# As processes --------------------------------------------------------------------------------


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(data), "--split", "1", "--out", str(out), "--config", str(CONFIG), *more]


@pytest.mark.slow
def test_killed_and_interrupted_the_same_command_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    more = ["--set", "learning.teacher.realign_every=2", "--seed", "5"]
    whole = start(*command(data, tmp_path / "whole", *more))
    run = tmp_path / "run"
    process = start(*command(data, run, *more))
    until_exists(run / "last" / "teacher.safetensors", process)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130 and out == "" and "Traceback" not in err, err
    assert not (run / "model.safetensors").exists()
    again = shlex.split(err.splitlines()[-1])
    assert again == ["edge-hal", *command(data, run, *more)]

    code, _, err = call("export", "--ckpt", str(run), "--out", str(tmp_path / "bundle"))
    assert code == 1 and "not complete" in err and not (tmp_path / "bundle").exists()

    process = start(*again[1:])
    until_exists(run / "last" / "student.safetensors", process)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL and not (run / "model.safetensors").exists()

    code, out, err = call(*again[1:])
    assert code == 0 and "edge-hal export --ckpt" in out, err
    assert finish(whole)[0] == 0
    assert_same_run(tmp_path / "whole", run)
    assert not (run / "last").exists()


@pytest.fixture(scope="module")
def place(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, `full` (trained with frame labels) and `bundle`, made by the commands."""
    root = tmp_path_factory.mktemp("commands")
    processes = [
        start(*command(data, root / "run")),
        start(*command(data, root / "full", "--supervision", "frames")),
    ]
    for process in processes:
        code, out, err = finish(process)
        assert code == 0 and "trained on 6 videos" in out, err
    code, _, err = call("export", "--ckpt", str(root / "run"), "--out", str(root / "bundle"))
    assert code == 0, err
    return root


def evaluate(data: Path, *more: str) -> dict[str, dict[str, float | None]]:
    code, out, err = call("eval", str(data), "--split", "1", "--json", *more)
    assert code == 0, err
    scores: dict[str, dict[str, float | None]] = json.loads(out)
    for name, column in scores.items():
        of_stream = {key for key, _ in ROWS} if name != "floor" and "--stage" not in more else set()
        assert set(PROMISED) | of_stream <= set(column)
        assert all(isinstance(value, dict) or value is None or math.isfinite(value) for value in column.values())
    assert scores["floor"]["delay_s_median"] is None
    return scores


@pytest.mark.slow
def test_eval_scores_what_was_learnt_beside_floor_and_full_supervision(data: Path, place: Path) -> None:
    scores = evaluate(data, "--ckpt", str(place / "run"), "--full", str(place / "full"))
    assert list(scores) == ["floor", "ours", "full"]
    for name in ("ours", "full"):
        found, floor = scores[name]["transition_f1"], scores["floor"]["transition_f1"]
        assert found is not None and floor is not None and found > max(0.85, floor)
    aligned = evaluate(data, "--ckpt", str(place / "run"), "--stage", "alignment")
    right, floor = aligned["ours"]["mof"], aligned["floor"]["mof"]
    assert right is not None and floor is not None and right > max(90, floor)
    assert aligned["ours"]["delay_s_median"] is None


@pytest.mark.slow
def test_a_listener_hears_the_transitions_that_eval_scored(data: Path, place: Path, tmp_path: Path) -> None:
    """Train, export, run and listen, each a process; the events of the test videos give eval's scores."""
    videos = load_dataset(data, split=1, part="test", with_labels=True, rate_hz=RATE_HZ)
    expected = streamed_timelines(place / "run", videos)
    heard: list[list[TransitionPoint]] = []
    for number, video in enumerate(videos.videos):
        endpoint = f"ipc://{tmp_path}/{number}"
        listener = start("listen", "--connect", endpoint, "--stream", "line", "--json", "--until-end")
        code, out, err = call(
            *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{video.path}@{RATE_HZ:g}"),
            *("--pub", endpoint, "--pace", "asap", "--stream", "line", "--wait-subscribers", "1", "--json"),
        )
        assert code == 0, err
        code, lines, err = finish(listener)
        assert code == 0, err
        events = [json.loads(line) for line in lines.splitlines()]
        moved = [event for event in events if event["type"] == "transition"]
        assert moved[0]["from"] is None and moved[0]["to"] == ACTIONS[expected[number].labels[0]]
        heard.append(
            [
                TransitionPoint(ACTIONS.index(e["to"]), e["boundary"]["t_ns"] / 1e9, e["decision"]["t_ns"] / 1e9)
                for e in moved[1:]
            ]
        )
        summary = json.loads(out.splitlines()[-1])
        assert summary["captured"] == video.length and summary["dropped"]["decimated"] == video.length // 2
        for told, wanted in zip(heard[-1], expected[number].points, strict=True):
            assert told.label == wanted.label
            assert (told.boundary_s, told.decision_s) == pytest.approx((wanted.boundary_s, wanted.decision_s))
    scores = evaluate(data, "--ckpt", str(place / "run"))["ours"]
    found = score_transitions(
        heard,
        [transitions_of(y, RATE_HZ) for y in frame_labels(videos)],
        [len(y) / RATE_HZ for y in frame_labels(videos)],
    )
    assert {key: scores[key] for key in vars(found)} == pytest.approx(vars(found))


@pytest.mark.slow
def test_progress_goes_to_standard_error_and_results_can_be_piped(data: Path, place: Path) -> None:
    code, out, err = call("eval", str(data), "--split", "1", "--ckpt", str(place / "run"), "--json")
    assert code == 0 and len(out.splitlines()) == 1 and "ours: 2/2" in err
    closed = start("eval", str(data), "--split", "1", "--ckpt", str(place / "run"))
    assert closed.stdout is not None and closed.stderr is not None
    closed.stdout.close()  # as `| head -0` would
    assert "Traceback" not in closed.stderr.read()
    closed.wait(timeout=TIMEOUT_S)


def test_the_procedure_is_learned_from_whole_videos_that_show_all_steps() -> None:
    whole, part, other = np.array([0, 0, 1, 2]), np.array([1, 2]), np.array([2, 3])
    videos = [
        Video(name, Path(name), "video", (), 4, shows="procedure" if name == "whole" else "part")
        for name in ("whole", "part", "other")
    ]
    assert labels_of_procedure([whole, part], VideoSet(("a", "b", "c", "d"), tuple(videos[:2]))) == [whole]
    every = labels_of_procedure([whole, part, other], VideoSet(("a", "b", "c", "d"), tuple(videos)))
    assert every == [whole, part, other]  # only a part shows d
