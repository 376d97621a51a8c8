"""Step lists made wrong: what each change may do to them, whose lists are changed, and one run to its end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.learning.data.dataset import load_dataset
from tests.helpers.processes import REPOSITORY
from tests.helpers.small_data import ACTIONS, write_small_data

BRIEF = (
    "data.rate_hz=20",
    "learning.restarts=2",
    "learning.teacher.warm_epochs=1",
    "learning.teacher.epochs=1",
    "learning.student.epochs=1",
    "learning.student.least_steps=0",
)
KINDS = ("swapped", "missing", "additional")
seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1)
lists = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def imperfect() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        spec = importlib.util.spec_from_file_location("imperfect", REPOSITORY / "benchmarks" / "imperfect.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def is_subsequence(some: list[str], whole: list[str]) -> bool:
    left = iter(whole)
    return all(step in left for step in some)


@given(st.integers(1, 40), shares, seeds)
def test_swapped_neighbours_stay_within_one_place(imperfect: ModuleType, count: int, share: float, seed: int) -> None:
    steps = [str(number) for number in range(count)]  # all different, so that each can be followed
    done = imperfect.swapped(steps, share, ACTIONS, np.random.default_rng(seed))
    assert sorted(done) == sorted(steps)
    assert all(abs(int(step) - place) <= 1 for place, step in enumerate(done))
    if share == 1:
        assert [int(step) for step in done[: count // 2 * 2]] == [place ^ 1 for place in range(count // 2 * 2)]


@given(lists, shares, seeds)
def test_missing_steps_leave_the_others_in_order_and_one_at_least(
    imperfect: ModuleType, steps: list[str], share: float, seed: int
) -> None:
    done = imperfect.missing(steps, share, ACTIONS, np.random.default_rng(seed))
    assert done and is_subsequence(done, steps)
    if share == 1:
        assert len(done) == 1


@given(lists, shares, seeds)
def test_additional_steps_come_between_those_that_were_there(
    imperfect: ModuleType, steps: list[str], share: float, seed: int
) -> None:
    done = imperfect.additional(steps, share, ACTIONS, np.random.default_rng(seed))
    assert is_subsequence(steps, done) and len(done) <= 2 * len(steps) and set(done) <= set(ACTIONS)
    if share == 1:
        assert done[::2] == steps


@pytest.mark.parametrize("kind", KINDS)
@given(lists, shares, seeds)
def test_a_share_of_none_changes_nothing_and_the_given_list_stays(
    imperfect: ModuleType, kind: str, steps: list[str], share: float, seed: int
) -> None:
    before = list(steps)
    change = imperfect.KINDS[kind]
    assert change(steps, 0.0, ACTIONS, np.random.default_rng(seed)) == before
    once, again = (change(tuple(steps), share, ACTIONS, np.random.default_rng(seed)) for _ in range(2))
    assert once == again and steps == before


@pytest.mark.parametrize(("kind", "mean"), [("swapped", 1.0), ("missing", 0.7), ("additional", 1.3)])
def test_the_share_is_the_share(imperfect: ModuleType, kind: str, mean: float) -> None:
    steps = [str(number) for number in range(20_000)]
    done = imperfect.KINDS[kind](steps, 0.3, ["new"], np.random.default_rng(0))
    assert len(done) / len(steps) == pytest.approx(mean, abs=0.02)
    if kind == "swapped":  # a pair that changes places moves on by two, so a little less than 0.3 of the pairs
        moved = sum(step != str(place) for place, step in enumerate(done)) / 2
        assert moved / len(steps) == pytest.approx(0.3 / 1.3, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_lists_of_training_videos_change_and_only_in_the_copy(
    tmp_path: Path, imperfect: ModuleType, kind: str
) -> None:
    root = write_small_data(tmp_path / "data")
    listed = {path.name: path.read_text() for path in (root / "transcripts").iterdir()}
    made = []
    for number, (share, seed) in enumerate([(0.5, 1), (0.5, 1), (0.5, 2), (0.0, 1)]):
        copy = tmp_path / f"copy{number}"
        imperfect.changed_copy(root, copy, 1, kind, share, seed)
        made.append({path.name: path.read_text() for path in (copy / "transcripts").iterdir()})
        for part in ("train", "test"):
            videos = load_dataset(copy, split=1, part=part, with_labels=part == "test")
            assert len(videos.videos) == (6 if part == "train" else 2)
            for video in videos.videos:
                assert all(a != b for a, b in zip(video.transcript, video.transcript[1:], strict=False))
    assert {path.name: path.read_text() for path in (root / "transcripts").iterdir()} == listed
    one, same, other, none = made
    assert one == same != other and none == listed and one.keys() == listed.keys()
    changed = {name for name in listed if one[name] != listed[name]}
    assert changed and changed <= {f"video{number}.txt" for number in range(6)}


def test_what_was_run_is_not_run_again_and_unchanged_lists_are_run_once(
    tmp_path: Path, imperfect: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[object, ...]] = []

    def run(data: Path, split: int, kind: str, share: float, seed: int, settings: list[str]) -> dict[str, float]:
        ran.append((split, kind, share))
        return {"alignment_mof": 90 - 10 * share, "agreement": 0.9, "mof": 80.0, "f1_50": 70.0 + split}

    monkeypatch.setattr(imperfect, "run", run)
    kept = tmp_path / "kept.json"

    def main(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["imperfect.py", *arguments, "--results", str(kept)])
        assert imperfect.main() == 0
        return capsys.readouterr().out

    main("somewhere", "--splits", "1,2", "--shares", "0,0.2", "--name", "set")
    assert sorted(ran) == sorted((s, k, x) for s in (1, 2) for k, x in [("swapped", 0), *((k, 0.2) for k in KINDS)])
    before = kept.read_text()
    main("somewhere", "--splits", "1,2", "--shares", "0,0.2", "--name", "set")
    assert len(ran) == 8 and kept.read_text() == before
    rows = main("--table").splitlines()[2:]
    assert len(rows) == 4 and "| `set` | as they are | 0 | exact | 2 | 90.0 | 80.0 | 71.5 |" in rows
    assert "| `set` | missing | 0.2 | exact | 2 | 88.0 | 80.0 | 71.5 |" in rows
    main("somewhere", "--splits", "1", "--shares", "0.2", "--kinds", "missing", "--name", "set", "--lists", "noisy")
    assert len(ran) == 9 and any("| missing | 0.2 | noisy | 1 |" in row for row in main("--table").splitlines())


@pytest.mark.slow
def test_a_run_of_wrong_step_lists_ends_in_scores(tmp_path: Path, imperfect: ModuleType) -> None:
    root = write_small_data(tmp_path / "data")
    cell = SimpleNamespace(**imperfect.run(root, 1, "missing", 0.3, 0, list(BRIEF)))
    assert 0 < cell.alignment_mof < 100 and 0 <= cell.agreement <= 1
    assert 0 <= cell.mof <= 100 and 0 <= cell.f1_50 <= 100 and 0 <= cell.transition_f1 <= 1
    text = imperfect.table({"small/missing/0.3/exact/split1/seed0": vars(cell)})
    assert f"| {cell.alignment_mof:.1f} |" in text
    json.dumps(vars(cell))
