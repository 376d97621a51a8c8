"""Step lists as people write them: what makes other steps of them than was meant is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_hal.config import load_config
from edge_hal.learning.data.examine import examine
from edge_hal.learning.data.list_habits import doubtful, plain
from tests.helpers.small_data import CONFIG, write_small_data

WRITTEN = {
    "numbers": ({"a": ["1. take cup", "2. wipe", "3. take cup"]}, "'1. take cup' and '3. take cup'"),
    "bullets": ({"a": ["- take cup", "wipe"], "b": ["take cup", "wipe"]}, "'- take cup' and 'take cup'"),
    "case": ({"a": ["Take Cup", "wipe"], "b": ["take cup", "wipe"]}, "'Take Cup' and 'take cup'"),
    "dots": ({"a": ["wipe."], "b": ["wipe"]}, "'wipe' and 'wipe.'"),
    "commas": ({"a": ["wipe,", "take"], "b": ["wipe", "take"]}, "'wipe' and 'wipe,'"),
    "underscores": ({"a": ["take_cup"], "b": ["take  cup"]}, "'take  cup' and 'take_cup'"),
    "comment": ({"a": ["# monday", "wipe"]}, "1 line ('# monday')"),
    "one line": ({"a": ["wipe, take, place"]}, "1 line ('wipe, take, place')"),
    "tabs": ({"a": ["wipe\ttake"]}, "may hold several steps"),
    "times": ({"a": ["wipe;0.0;4.0", "take;4.0;9.0"]}, "2 lines"),
    "twice in a row": ({"monday": ["wipe", "wipe", "take"]}, "1 video (monday) name a step twice in a row"),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_habit_is_named_alone_and_says_what_to_do(case: str) -> None:
    lists, told = WRITTEN[case]
    [(what, todo)] = doubtful(lists)
    assert told in what and todo


@pytest.mark.parametrize(
    "names",
    [
        ["take cup", "wipe", "take lid"],
        ["2 screws", "4 screws"],  # a number without a sign is a part of the name
        ["G1", "G2", "-", "..."],
        ["screw, left", "screw, right"],
        ["Übung", "übungen"],
    ],
)
def test_plain_names_are_no_habit(names: list[str]) -> None:
    assert list(doubtful({"a": names, "b": names[::-1]})) == []
    assert len({plain(name) for name in names}) == len(names)


def test_check_and_train_tell_habits_before_what_follows_from_them(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data", train=3, test=1)
    (root / "mapping.txt").unlink()
    for name, steps in (("video0", "1. Take\n2. Wipe\n"), ("video1", "take.\nwipe.\n"), ("video2", "take\nwipe\n")):
        (root / "transcripts" / f"{name}.txt").write_text(steps)
        (root / "groundTruth" / f"{name}.txt").unlink()
    found = [problem.what for problem in examine(root, load_config(str(CONFIG)), 1).problems]
    alike = next(n for n, what in enumerate(found) if "'1. Take' and 'take' and 'take.'" in what)
    assert alike < next(n for n, what in enumerate(found) if "only one training video shows" in what)
