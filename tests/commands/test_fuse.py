"""`edge-hal fuse`: the weights of views for `station.yaml`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.kept_posteriors import keep
from tests.helpers.processes import Command


def test_it_prints_the_line_for_the_station(command: Command, tmp_path: Path) -> None:
    keep(tmp_path / "l", 1, 1.5)
    keep(tmp_path / "r", 2, 0.5)
    words = ("fuse", f"left={tmp_path}/l", f"right={tmp_path}/r")
    code, out, err = command(*words).all
    assert code == 0, err
    assert "1 held out videos: left" in out
    code, told, err = command(*words, "--json").all
    assert code == 0, err
    fitted = json.loads(told)
    weights = fitted["weights"]
    assert f"weights: {{left: {weights['left']:g}, right: {weights['right']:g}}}" == out.splitlines()[-1]
    assert fitted["right_fitted"] >= fitted["right_alone"]["left"] > fitted["right_alone"]["right"] > 1 / 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("left={}/l",), "one view has nothing to be combined with"),
        (("left={}/l", "{}/r"), "a view is NAME=RUN_DIR"),
        (("left={}/l", "left={}/r"), "a view stands twice"),
        (("left={}/l", "right="), "a view is NAME=RUN_DIR"),
        (("left={}/l", "a:b={}/r"), "'a:b' cannot name a stream"),
        (("left={}/l", "right={}/none"), "keeps no posteriors"),
        (("left={}/l", "right={}/other"), "their steps differ"),
    ],
)
def test_what_is_wrong_is_told(command: Command, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    for name, actions in (("l", ("cut", "fold", "glue")), ("r", ("cut", "fold", "glue")), ("other", ("a", "b", "c"))):
        keep(tmp_path / name, 1, 1.0, actions)
    code, out, err = command("fuse", *(word.format(tmp_path) for word in words)).all
    assert code == 2 and expected in err and not out and "Traceback" not in err
