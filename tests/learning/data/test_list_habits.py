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
    "numbers alone": (
        {"a": ["1 cup", "2 wipe"], "b": ["1 wipe", "2 cup"]},
        "'1 cup' and '2 cup'; '1 wipe' and '2 wipe'",
    ),
    "numbers from 0": ({"a": ["0_cup", "1_lid"], "b": ["cup", "lid"]}, "'0_cup' and 'cup'; '1_lid' and 'lid'"),
    "numbers in brackets": ({"a": ["(1) take", "wipe"], "b": ["take", "wipe"]}, "'(1) take' and 'take'"),
    "counted steps": ({"a": ["Step 1: take", "Step 2: wipe"], "b": ["take", "wipe"]}, "'Step 1: take' and 'take'"),
    "boxes": ({"a": ["☐ take", "- [x] wipe"], "b": ["take", "wipe"]}, "'- [x] wipe' and 'wipe'; 'take' and '☐ take'"),
    "quotes": ({"a": ["“take”", "wipe"], "b": ["take", "wipe"]}, "'take' and '“take”'"),
    "signs that nobody sees": ({"a": ["take\u200b"], "b": ["take"]}, "'take' and 'take\\u200b'"),
    "dashes": ({"a": ["pick–up"], "b": ["pick-up"]}, "'pick-up' and 'pick–up'"),
    "bullets": ({"a": ["- take cup", "wipe"], "b": ["take cup", "wipe"]}, "'- take cup' and 'take cup'"),
    "case": ({"a": ["Take Cup", "wipe"], "b": ["take cup", "wipe"]}, "'Take Cup' and 'take cup'"),
    "dots": ({"a": ["wipe."], "b": ["wipe"]}, "'wipe' and 'wipe.'"),
    "commas": ({"a": ["wipe,", "take"], "b": ["wipe", "take"]}, "'wipe' and 'wipe,'"),
    "underscores": ({"a": ["take_cup"], "b": ["take  cup"]}, "'take  cup' and 'take_cup'"),
    "comment": ({"a": ["# monday", "wipe"]}, "1 line ('# monday')"),
    "one line": ({"a": ["wipe, take, place"]}, "1 line ('wipe, take, place')"),
    "tabs": ({"a": ["wipe\ttake"]}, "may hold several steps"),
    "columns of numbers": ({"a": ["wipe,0,2.5", "take,2.5,4"]}, "2 lines ('take,2.5,4', 'wipe,0,2.5')"),
    "times before": ({"a": ["0:05 wipe", "1:10 take"]}, "2 lines"),
    "times": ({"a": ["wipe;0.0;4.0", "take;4.0;9.0"]}, "2 lines"),
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
        ["2 screws", "1 screw"],
        ["screw M2,5", "turn left, 90 degrees"],
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
