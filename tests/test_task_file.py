"""task.yaml: what it may hold, and errors that name the line."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edge_hal.commands.options.train_inputs import choose_config
from edge_hal.errors import EdgeHalError
from edge_hal.task_file import read_task


def write(root: Path, text: str) -> Path:
    (root / "videos").mkdir(exist_ok=True)
    (root / "task.yaml").write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("steps: [a, b]\ntst: [v]\n", 2, "unknown key 'tst'\n  -> did you mean 'test'?"),
        ("# comment\n\nrate_hz: fast\n", 3, "'rate_hz'"),
        ("rate_hz: -1\n", 1, "'rate_hz'"),
        ("test: [v, w, v]\n", 1, "'v' twice"),
        ("test:\n  - v\n  - w\n  - v\n", 4, "'v' twice"),
        ("steps:\n- a\n- a\n", 3, "'a' twice"),
        ("steps: []\n", 1, "no steps"),
        ("rate_hz: 10\nrate_hz: 20\n", 2, "key 'rate_hz' twice"),
        ("settings:\n  learning: {restarts: 3}\n  learning.restarts: 4\n", 3, "'learning.restarts' twice"),
        ("encoder: own\nsettings:\n  model:\n    encoder.kind: own\n", 4, "line 1 sets it too"),
        ("rate_hz: 10\nsettings:\n  data.rate_hz: 20\n", 3, "'data.rate_hz' twice"),
        ("config: tinny\n", 1, "no preset and no file 'tinny'"),
        ("settings:\n  learning.restarts: 3\n  learning.restart: 3\n", 3, "did you mean 'restarts'?"),
        ("settings:\n  learning:\n    restarts: 3\n    seeds: 3\n", 4, "unknown key 'learning.seeds'"),
        ("settings:\n  learning.restarts: many\n", 2, "'learning.restarts'"),
        ("test: [v\nrate_hz: 3\n", 2, ""),
        ('steps: [a, ""]\n', 1, "'steps' ''"),
        ('steps:\n- a\n- " b"\n', 3, "' b'"),
        ('steps: [a, "b\\e[31m"]\n', 1, "control character"),
        ('steps: [a, "b\\nc"]\n', 1, "control character"),
        ('steps: [a, "\\ud800"]\n', 1, ""),
        ('test: ["v\\0"]\n', 1, "control character"),
        ('init: "a\\0b"\n', 1, "'init'"),
        ('encoder: "onnx:a\\0b"\n', 1, "'encoder'"),
        ("steps: [a, e\u0301, \u00e9]\n", 1, "twice"),
        ("- a\n- b\n", 1, "it holds no keys"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    with pytest.raises(EdgeHalError) as caught:
        read_task(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'task.yaml'}, line {line}: ")
    assert told in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["settings: &x {a: *x}", "settings: {a: &x [*x]}", "test: &x [*x]"])
def test_a_key_that_holds_itself_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(EdgeHalError, match="holds itself"):
        read_task(write(tmp_path, text))


def test_a_file_without_keys_is_a_task_and_a_folder_without_the_file_is_none(tmp_path: Path) -> None:
    assert read_task(tmp_path) is None
    task = read_task(write(tmp_path, "# nothing\n"))
    assert task is not None and task.overrides(pictures=True) == []


def test_names_are_composed(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, "steps: [a, e\u0301]\nbackground: e\u0301\ntest: [e\u0301]\n"))
    assert task is not None and task.file.steps == ("a", "\u00e9")
    assert task.file.background == "\u00e9" and task.file.test == ("\u00e9",)


@pytest.mark.parametrize("kind", ["dangling", "folder"])
def test_a_task_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "task.yaml"
    path.mkdir() if kind == "folder" else path.symlink_to("not mounted")
    with pytest.raises(EdgeHalError, match=r"cannot read .*task\.yaml"):
        read_task(tmp_path)


def test_its_encoder_is_that_of_videos_and_not_of_features(tmp_path: Path) -> None:
    write(tmp_path, "encoder: efficientnet-lite0@96\n")
    kinds: dict[tuple[str, str | None], str | None] = {}
    for folder in ("videos", "features"):  # where both are, features are read
        (tmp_path / folder).mkdir(exist_ok=True)
        for config in (None, "tiny"):
            encoder = choose_config(tmp_path, config, []).model.encoder
            kinds[folder, config] = None if encoder is None else encoder.kind
    lite = "efficientnet-lite0@96"
    assert [*kinds.values()] == [lite, lite, None, lite]
    encoder = choose_config(tmp_path, "tiny", ["model.encoder.kind=own"]).model.encoder
    assert encoder is not None and encoder.kind == "own"


def test_its_keys_reach_the_configuration_and_the_command_line_comes_last(tmp_path: Path) -> None:
    text = "background: off\nrate_hz: 12.5\nconfig: mine.yaml\n"
    text += "settings: {learning: {restarts: 3}, learning.dropout: 0.1}\n"
    preset = Path(__file__).parent.parent / "configs" / "jetson.yaml"
    (tmp_path / "mine.yaml").write_text(preset.read_text())
    root = write(tmp_path, text)
    config = choose_config(root, None, [])
    assert (config.data.background, config.data.rate_hz) == ("off", 12.5)
    assert (config.learning.restarts, config.learning.dropout) == (3, 0.1)
    assert config.model == choose_config(root, "jetson", []).model != choose_config(root, "tiny", []).model
    assert choose_config(root, None, ["learning.restarts=5"]).learning.restarts == 5


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in itertools.pairwise("abcdefghijklm")
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "stands for more than"),
        (LAUGHS.replace("[", "{k: [").replace("]", "]}"), "stands for more than"),
        ("test: !!binary aGVsbG8=\n", "line 1: a value with the tag !!binary"),
        ("test: [!!timestamp 2026-01-01]\n", "tag !!timestamp"),
        ("settings: !!set {a}\n", "tag !!set"),
        ("# " + "x" * 2_000_000, "has more than"),
        ("test: 5\n", "'test': it must be a list"),
        ("steps: {a: b}\n", "'steps': it must be a list"),
        ("rate_hz: fast\n", "'rate_hz': it must be a number"),
        ("settings: {learning.restarts: many}\n", "it must be a whole number"),
    ],
)
def test_a_hostile_or_odd_file_is_one_error_at_once(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(EdgeHalError) as caught:
        read_task(write(tmp_path, text))
    assert told in str(caught.value) and caught.value.exit_code == 2


def test_an_anchor_may_be_used_twice(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, "steps: &all [a, b]\ntest: *all\n"))
    assert task is not None and task.file.steps == task.file.test == ("a", "b")
