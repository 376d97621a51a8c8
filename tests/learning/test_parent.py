"""Training that begins with an earlier run: what is taken over, what is not, and which runs are refused."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_hal.calib.held_out_file import read_held_out
from edge_hal.commands.options.train_inputs import choose_config, parent_of
from edge_hal.config import Config, load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.parent import HEADS, Parent, open_parent
from edge_hal.learning.train import train
from edge_hal.model.model_file import load_checkpoint
from edge_hal.model.pyramid import Pyramid
from tests.helpers.processes import contents
from tests.helpers.short_training import BRIEF, assert_same_run, weights
from tests.helpers.small_data import ACTIONS, CONFIG, RATE_HZ, write_small_data
from tests.helpers.small_models import random_input, save_picture_run, save_run, small_spec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned the small data well: data of other videos have the same directions."""
    folder = tmp_path_factory.mktemp("first")
    videos = load_dataset(write_small_data(folder / "data"), split=1, part="train", with_labels=True, rate_hz=RATE_HZ)
    return train(videos, load_config(str(CONFIG), ["learning.supervision=frames"]), folder / "run", 0, quiet)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("more") / "data", train=2, seed=9)


def quiet(*told: Any) -> None:
    pass


def learn(data: Path, out: Path, parent: Parent | None, *overrides: str, report: Any = quiet) -> Path:
    config = load_config(str(CONFIG), [*BRIEF, *overrides])
    videos = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ)
    return train(videos, config, out, 0, report, parent=parent)


def renamed(data: Path, to: Path, names: dict[str, str]) -> Path:
    """The same videos, with other names for some steps."""
    shutil.copytree(data, to)
    for path in [to / "mapping.txt", *(to / "transcripts").iterdir(), *(to / "groundTruth").iterdir()]:
        words = [" ".join(names.get(word, word) for word in line.split()) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{line}\n" for line in words))
    return to


def test_everything_but_the_rows_of_other_steps_is_taken_over(tmp_path: Path) -> None:
    spec = replace(small_spec(), other_lags_s=(0.3, 0.5), lag_s=0.1)
    parent = open_parent(save_run(tmp_path / "run", spec, seed=1))
    new_spec = replace(spec, labels=("polish", "turn", "reach"))
    pyramid = Pyramid(new_spec)
    before = {key: value.clone() for key, value in pyramid.state_dict().items()}
    parent.begin(pyramid)
    old, new = parent.checkpoint.pyramid.state_dict(), pyramid.state_dict()
    heads = {key for key in new if key.split(".")[-2] in HEADS}
    assert len(heads) == 6
    assert all(torch.equal(new[key], old[key]) for key in new.keys() - heads)
    for key in heads:
        rows, kept, began = (x.unflatten(0, (-1, n)) for x, n in ((new[key], 3), (old[key], 4), (before[key], 3)))
        assert torch.equal(rows[:, 0], began[:, 0])
        assert torch.equal(rows[:, 1], kept[:, 2]) and torch.equal(rows[:, 2], kept[:, 0])


def test_known_steps_are_found_without_a_search(first: Path, more: Path, tmp_path: Path) -> None:
    stages: set[str] = set()
    parent = open_parent(first)
    run = learn(more, tmp_path / "run", parent, report=lambda stage, *_: stages.add(stage))
    assert not {"starter", "teacher"} & stages
    truth = {video.name: video.labels for video in load_dataset(more, split=1, part="train", with_labels=True).videos}
    for name, entry in json.loads((run / "alignment.json").read_text()).items():
        starts = [frame for _, frame in entry["segments"]]
        steps = [ACTIONS.index(step) for step, _ in entry["segments"]]
        found = np.repeat(steps, np.diff([*starts, entry["frames"]]))
        labels = truth[name]
        assert labels is not None and (found == labels[: len(found)]).mean() > 0.9
    made = load_checkpoint(run)
    assert made.provenance["init"] == "run" and made.provenance["init_sha256"] == parent.sha256
    assert torch.equal(made.front_end.mean, parent.front_end.mean)


def test_other_steps_are_searched_and_begin_with_the_weights(first: Path, more: Path, tmp_path: Path) -> None:
    stages: set[str] = set()
    other = renamed(more, tmp_path / "data", {"grasp": "polish"})
    at_once = "learning.student.epochs=0"
    run = learn(other, tmp_path / "run", open_parent(first), at_once, report=lambda stage, *_: stages.add(stage))
    assert "starter" in stages
    old, new = weights(first), weights(run)
    assert np.array_equal(old["pyramid.levels.0.entry.weight"], new["pyramid.levels.0.entry.weight"])
    rows = old["pyramid.levels.0.frame.weight"] == new["pyramid.levels.0.frame.weight"]
    assert rows.all(1).tolist() == [True, False, True, True]


@pytest.mark.slow
def test_decisions_are_fitted_on_students_that_know_none_of_the_videos(
    first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A parent that was trained on them does not help the folds: they are those of a training without it."""
    settings = [*BRIEF, "learning.supervision=frames", "learning.student.epochs=2"]
    own, other = first.parent / "data", write_small_data(tmp_path / "other", train=4, seed=6)
    found = dict[tuple[Path, bool], Any]()
    for number, (data, parent) in enumerate(((own, None), (own, open_parent(first)), (other, open_parent(first)))):
        videos = load_dataset(data, split=1, part="train", with_labels=True, rate_hz=RATE_HZ)
        caplog.clear()
        run = train(videos, load_config(str(CONFIG), settings), tmp_path / str(number), 0, quiet, parent=parent)
        found[data, parent is not None] = read_held_out(run).log_posteriors
        assert ("run was trained on 6 videos (video0" in caplog.text) == (data == own and parent is not None)
    for name, rows in found[own, False].items():
        np.testing.assert_array_equal(found[own, True][name], rows)
    sure = [np.mean([rows.max(1).mean() for rows in found[key].values()]) for key in ((own, True), (other, True))]
    assert sure[1] > sure[0]  # videos that it does not know: the folds begin with its weights


def test_a_video_that_labels_have_cut_is_known_again(first: Path, tmp_path: Path) -> None:
    parent = open_parent(first)
    videos = load_dataset(first.parent / "data", split=1, part="train", rate_hz=RATE_HZ).videos
    for frames in (0, 3, -3):
        longer = [replace(video, length=video.length + frames) for video in videos]
        assert parent.trained_on(longer) == [video.name for video in videos]
    assert parent.trained_on([replace(video, length=2 * video.length) for video in videos]) == []
    assert parent.trained_on([replace(video, name=f"other{video.name}") for video in videos]) == []


def test_the_pictures_are_encoded_by_the_graph_of_the_run(tmp_path: Path) -> None:
    parent = open_parent(save_picture_run(tmp_path / "run"))
    parent.encoder("own").write(tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == (tmp_path / "run" / "encoder.onnx").read_bytes()
    model = parent.model
    assert model.encoder is not None and model.encoder.spec(parent.spec.model_hz) == parent.spec.encoder


def test_the_model_of_the_configuration_is_that_of_the_run(first: Path, more: Path) -> None:
    parent = parent_of(more, first)
    assert parent is not None
    config = choose_config(more, None, [f"data.rate_hz={RATE_HZ}"], parent.model)
    parent.check(config.model.spec(ACTIONS, None, 6))
    assert config.learning == load_config("kinematics").learning


OTHER_LEVELS = [
    {"window": 6, "width": 16, "heads": 2, "blocks": 1},
    {"stride": 4, "window": 4, "width": 32, "heads": 2},
]


@pytest.mark.parametrize(
    "asked, why",
    [
        (f"model.levels={json.dumps(OTHER_LEVELS)}", "levels is"),
        ("model.model_hz=5", "model_hz is 10.0 there, and 5.0 here"),
        ("model.baseline_s=8", "front_end.baseline is 0 there, and 80 here"),
        ("model.encoder={}", "it has no encoder, and the configuration the encoder own"),
    ],
)
def test_another_model_is_refused_before_anything_is_written(
    first: Path, more: Path, tmp_path: Path, asked: str, why: str
) -> None:
    with pytest.raises(EdgeHalError, match="cannot begin with run") as refused:
        learn(more, tmp_path / "out", open_parent(first), asked)
    assert why in refused.value.why and "leave out --config" in refused.value.todo
    assert not (tmp_path / "out").exists()


def test_a_run_that_reads_pictures_is_refused_for_features(tmp_path: Path, more: Path) -> None:
    run = save_picture_run(tmp_path / "run")
    with pytest.raises(EdgeHalError, match=r"it reads video files, and .* has features"):
        parent_of(more, run)


def test_a_run_of_other_vectors_is_refused(first: Path, tmp_path: Path) -> None:
    parent = open_parent(save_run(tmp_path / "run", small_spec(size=5)))
    config = Config.model_validate({**load_config(str(CONFIG)).model_dump(), "model": parent.model.model_dump()})
    videos = load_dataset(write_small_data(tmp_path / "data", train=2), split=1, part="train", rate_hz=RATE_HZ)
    with pytest.raises(EdgeHalError, match="it reads vectors of 5 numbers, and these have 6"):
        train(videos, config, tmp_path / "out", 0, quiet, parent=parent)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_damaged_or_has_no_weights_is_refused(tmp_path: Path, more: Path) -> None:
    run = save_run(tmp_path / "run", small_spec(), reference=random_input(30))
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EdgeHalError, match="no edge-hal checkpoint"):
        parent_of(more, run)
    (run / "model.safetensors").unlink()
    with pytest.raises(EdgeHalError, match=r"it has no model\.safetensors"):
        parent_of(more, run)
    (run / "model.safetensors").write_bytes(whole)
    (run / "alignment.json").write_text("{")
    with pytest.raises(EdgeHalError, match=r"cannot begin with .* cannot read the alignment"):
        parent_of(more, run)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.yaml").write_text("")
    with pytest.raises(EdgeHalError, match="no complete run"):
        parent_of(more, tmp_path / "task")


def test_task_yaml_names_the_run_and_the_option_comes_before_it(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_run(tmp_path / name, small_spec(), seed=seed)
    (tmp_path / "task" / "features").mkdir(parents=True)
    (tmp_path / "task" / "task.yaml").write_text("init: ../a\n")
    named, given = parent_of(tmp_path / "task", None), parent_of(tmp_path / "task", tmp_path / "b")
    assert named is not None and named.name == "a" and given is not None and given.name == "b"
    assert named.sha256 != given.sha256


def test_a_run_is_not_resumed_from_another_model(first: Path, more: Path, tmp_path: Path) -> None:
    stop = KeyboardInterrupt()

    def interrupt(stage: str, *_: Any) -> None:
        if stage == "student":
            raise stop

    with pytest.raises(KeyboardInterrupt):
        learn(more, tmp_path / "run", open_parent(first), report=interrupt)
    before = contents(tmp_path / "run")
    with pytest.raises(EdgeHalError, match="other settings or videos"):
        learn(more, tmp_path / "run", None)
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_run(first: Path, more: Path, tmp_path: Path) -> None:
    parent = open_parent(first)
    learn(more, tmp_path / "whole", parent)
    seen: set[tuple[str, int]] = set()

    def stop_once_at_each(stage: str, done: int, *_: Any) -> None:
        if stage in ("student", "decoder") and (stage, done) not in seen:
            seen.add((stage, done))
            raise KeyboardInterrupt

    while not (tmp_path / "pieces" / "model.safetensors").exists():
        with suppress(KeyboardInterrupt):
            learn(more, tmp_path / "pieces", parent, report=stop_once_at_each)
    assert len(seen) == 3 + 2
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")
