"""The tables in benchmarks/results/ say what the JSON files beside them say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tables import load_runs, tables

from edge_hal.errors import EdgeHalError
from tests.helpers.processes import REPOSITORY, TIMEOUT_S


def write_run(folder: Path, method: str, split: int, seed: int, mof: float, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("mof", "edit", "f1_10", "f1_25", "f1_50", "transition_f1", "delay_s_median", "false_per_min")
    run = {"data": folder.name, "method": method, "split": split, "seed": seed, "wall_s": 60.0, "peak_mb": 300}
    run |= {
        "test": {**dict.fromkeys(keys, 1.0), "mof": mof},
        "alignment": {"mof": 70.0},
        "commit": "abc",
        "options": "--name vts",
    }
    run |= {"agreement": None, "machine": "2-core x86_64", "threads": "1", "versions": {"torch": "2"}, **more}
    path = folder / f"{method}.split{split}.seed{seed}.json"
    path.write_text(json.dumps(run))
    return path


def test_tables_tell_mean_and_spread_and_name_what_was_not_run(tmp_path: Path) -> None:
    for seed, mof in ((2, 60.0), (0, 50.0), (1, 55.3)):
        write_run(tmp_path / "vts", "ours", 1, seed, mof)
    write_run(tmp_path / "vts", "gru-full", 1, 0, 78.0, alignment=None)
    write_run(tmp_path / "vts", "ours", 3, 0, 40.0)
    offline: dict[str, float | None] = dict.fromkeys(("edit", "f1_10", "f1_25", "f1_50", "transition_f1"), 2.0)
    offline |= {"mof": 66.6, "delay_s_median": None, "false_per_min": 0.0}
    write_run(tmp_path / "vts", "offline-window", 1, 0, 44.0, offline=offline)
    text = tables(load_runs(tmp_path))
    first = text.split("Split 1")[1].split("Split 3")[0]
    rows = {line.split("`")[1]: line for line in first.splitlines() if "`: " in line}
    assert rows["ours"].split(" | ")[1:3] == ["0, 1, 2", "55.3 (50.0..60.0)"]
    assert rows["gru-full"].split(" | ")[1:3] == ["0", "78.0"] and rows["gru-full"].split(" | ")[-4] == "-"
    assert list(rows) == ["offline-window", "ours", "gru-full"]
    assert "whole videos (offline) | 0 | 66.6" in text and "Splits not run: 2, 4, 5." in text
    missing = text.split("Not run on split 1: ")[1].partition(". Not run on split 3: ")[0]
    assert "`tcn-full`" in missing and "`ours`" not in missing and "`gru-full`" not in missing
    write_run(tmp_path / "mocap6", "uniform", 2, 0, 50.0)
    write_run(tmp_path / "mocap6", "uniform", 5, 0, 50.0)
    assert "Not run on splits 2, 5: `viterbi-em`" in tables(load_runs(tmp_path))
    across = next(line for line in text.split("Over splits")[1].splitlines() if "`ours`" in line)
    assert across.split(" | ")[1:3] == ["1, 3", "47.6 (40.0..55.3)"]
    assert "correlation" not in text  # all of these runs agree alike
    for seed, (agreement, right) in enumerate([(0.5, 40.0), (0.6, 52.0), (0.9, 91.0)], 7):
        path = write_run(tmp_path / "vts", "ours", 3, seed, 40.0)
        run = json.loads(path.read_text())
        path.write_text(json.dumps(run | {"agreement": agreement, "alignment": run["alignment"] | {"mof": right}}))
    told = tables(load_runs(tmp_path)).splitlines()[-1]
    assert "Below 80%" in told and "40 to 52 % right" in told and "91 % right" in told
    again = load_runs(tmp_path)
    assert tables(again[::-1]) == tables(again)


@pytest.mark.parametrize("damage", ["empty", "misnamed", "lacks a score", "of no method"])
def test_a_file_that_is_no_run_is_named(tmp_path: Path, damage: str) -> None:
    path = write_run(tmp_path / "vts", "ours", 1, 0, 50.0)
    run = json.loads(path.read_text())
    if damage == "empty":
        path.write_text("")
    elif damage == "misnamed":
        path = path.rename(path.with_name("ours.split2.seed0.json"))
    elif damage == "lacks a score":
        del run["test"]["edit"]
        path.write_text(json.dumps(run))
    else:
        path.unlink()
        path = write_run(tmp_path / "vts", "theirs", 1, 0, 50.0)
    with pytest.raises(EdgeHalError, match=path.name.replace(".", r"\.")):
        load_runs(tmp_path)


def run_program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=REPOSITORY)


def test_check_notices_a_missing_and_a_changed_table(tmp_path: Path) -> None:
    write_run(tmp_path / "vts", "ours", 1, 0, 50.0)
    arguments = ("--results", str(tmp_path))
    assert run_program("tables", *arguments, "--check").returncode == 1  # never written
    assert run_program("tables", *arguments).returncode == 0
    assert run_program("tables", *arguments, "--check").returncode == 0
    write_run(tmp_path / "vts", "ours", 1, 0, 51.0)
    changed = run_program("tables", *arguments, "--check")
    assert changed.returncode == 1 and "learning.md differs" in changed.stderr


def test_the_committed_learning_tables_match_the_committed_runs() -> None:
    done = run_program("tables", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["imperfect", "identifiability", "long_video"])
def test_the_committed_tables_are_those_that_the_program_prints(name: str) -> None:
    if name == "identifiability":
        pytest.importorskip("torch")
    done = run_program(name, "--table")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100 and done.stdout in (REPOSITORY / "benchmarks" / "results" / f"{name}.md").read_text()
