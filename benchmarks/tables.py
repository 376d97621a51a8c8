"""`benchmarks/results/learning.md`: tables of the JSON files that `benchmarks/learning.py` wrote.

    python benchmarks/tables.py            # write the tables
    python benchmarks/tables.py --check    # exit code 1 where the written tables differ from the files

The same files give the same text. The text names the methods and splits that were not run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from methods import METHODS

from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file

RESULTS = Path(__file__).resolve().parent / "results"
SPLITS = {"vts": 5, "mocap6": 6}
"""Splits each set has, so that those not run are named."""

HIGH_AGREEMENT = 0.8
"""Divides the runs in the line on agreement. 0.2.0 warned below it."""

Run = dict[str, Any]
Column = tuple[str, Callable[[Run], float | None], int]


def _score(part: str, key: str) -> Callable[[Run], float | None]:
    return lambda run: None if run.get(part) is None else run[part][key]


COLUMNS: tuple[Column, ...] = (
    ("MoF", _score("test", "mof"), 1),
    ("Edit", _score("test", "edit"), 1),
    ("F1@10", _score("test", "f1_10"), 1),
    ("F1@25", _score("test", "f1_25"), 1),
    ("F1@50", _score("test", "f1_50"), 1),
    ("transition F1", _score("test", "transition_f1"), 2),
    ("delay, s", _score("test", "delay_s_median"), 2),
    ("false/min", _score("test", "false_per_min"), 1),
    ("alignment MoF", _score("alignment", "mof"), 1),
    ("agreement", lambda run: run["agreement"], 2),
    ("training, s", lambda run: run["wall_s"], 0),
    ("peak, MB", lambda run: run["peak_mb"], 0),
)
ACROSS = tuple(column for column in COLUMNS if column[0] in ("MoF", "F1@50", "transition F1", "alignment MoF"))

INTRO = """\
# Learning, method by method

`python benchmarks/tables.py` wrote this file from the JSON files in this folder. Each JSON file holds one run and its
commands. A row is one method of `benchmarks/methods.py`.

- The scored output is streamed and causal. No method sees a step list at test time, except the uniform split, which is
  the floor. A row with the word "offline" in brackets sees the whole video.
- A cell gives the median over seeds (min..max). A cell with one number is one seed.
- `alignment MoF` is the share of training frames that the alignment labels correctly, in per cent; `-` means that
  these labels were given.
- `agreement` is how far the restarts agree. It needs no labels and tells whether to trust the alignment.
- `training, s` is wall time on a machine that did other work: compare neighbouring rows only."""


def load_runs(folder: Path) -> list[Run]:
    """Every run below `folder`.

    Raises:
        EdgeHalError: a file is damaged, or is not the run its name says.
    """
    runs = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            run = json.loads(path.read_text())
            name = f"{run['method']}.split{run['split']}.seed{run['seed']}"
            scores = [read(run) for _, read, _ in COLUMNS]
            _origin([run])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise EdgeHalError(f"cannot read {path}", repr(error), "delete it, and run its cell again") from error
        if name != path.stem or run["method"] not in METHODS:
            raise EdgeHalError(f"{path} holds the run {name}", "", "give it its name, or delete it")
        if not any(score is not None for score in scores):
            raise EdgeHalError(f"{path} holds no score", "", "delete it, and run its cell again")
        runs.append(run)
    return runs


def tables(runs: Sequence[Run]) -> str:
    """The whole text. It depends on the runs alone, not on their order."""
    parts = [INTRO]
    for data in sorted({run["data"] for run in runs}):
        ours = [run for run in runs if run["data"] == data]
        splits = sorted({run["split"] for run in ours})
        parts.append(f"## {data}")
        if len(splits) > 1:
            parts.append(_across(ours))
        for split in splits:
            parts.append(_split([run for run in ours if run["split"] == split], f"Split {split}"))
        never = [str(split) for split in range(1, SPLITS.get(data, 0) + 1) if split not in splits]
        if never:
            parts.append(f"Splits not run: {', '.join(never)}.")
        parts += filter(None, [_left_out(ours)])
        parts.append(_origin(ours))
    trust = _trust(runs)
    return "\n\n".join(parts if trust is None else [*parts, trust])


def _split(runs: Sequence[Run], title: str) -> str:
    rows = []
    for name, method in METHODS.items():
        group = [run for run in runs if run["method"] == name]
        if not group:
            continue
        seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in group))
        rows.append([f"`{name}`: {method.text}", seeds, *_cells(group)])
        offline = [{**run, "test": run["offline"]} for run in group if "offline" in run]
        if offline:  # the same model, trained once
            rows.append(["the same, whole videos (offline)", seeds, *_cells(offline)[:-4], *["-"] * 4])
    return _table([title, "seeds", *(name for name, _, _ in COLUMNS)], rows)


def _left_out(runs: Sequence[Run]) -> str:
    """The methods that were not run, splits that lack the same ones together."""
    lacking: dict[tuple[str, ...], list[int]] = {}
    for split in sorted({run["split"] for run in runs}):
        there = {run["method"] for run in runs if run["split"] == split}
        lacking.setdefault(tuple(name for name in METHODS if name not in there), []).append(split)
    return " ".join(
        f"Not run on {'split' if len(splits) == 1 else 'splits'} {', '.join(map(str, splits))}: "
        f"{', '.join(f'`{name}`' for name in names)}."
        for names, splits in lacking.items()
        if names
    )


def _across(runs: Sequence[Run]) -> str:
    """Mean over splits of the medians over seeds (worst..best split)."""
    rows = []
    for name, method in METHODS.items():
        group = [run for run in runs if run["method"] == name]
        splits = sorted({run["split"] for run in group})
        if len(splits) < 2:
            continue
        row = [f"`{name}`: {method.text}", ", ".join(map(str, splits))]
        for _, read, digits in ACROSS:
            medians = [_median([read(run) for run in group if run["split"] == split]) for split in splits]
            row.append(_cell(medians, digits, statistics.fmean))
        rows.append(row)
    text = _table(["Over splits", "splits", *(name for name, _, _ in ACROSS)], rows)
    return f"{text}\n\nMean over splits (lowest..highest split) of the medians over seeds."


def _cells(group: Iterable[Run]) -> list[str]:
    group = list(group)
    return [_cell([read(run) for run in group], digits) for _, read, digits in COLUMNS]


def _cell(
    values: Sequence[float | None], digits: int, middle: Callable[[list[float]], float] = statistics.median
) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "-"
    told = f"{middle(known):.{digits}f}"
    return told if len(known) == 1 else f"{told} ({known[0]:.{digits}f}..{known[-1]:.{digits}f})"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _trust(runs: Sequence[Run]) -> str | None:
    """Whether agreement, which needs no labels, tells how much of an alignment is right, over all runs of ours."""
    known = [
        (run["agreement"], run["alignment"]["mof"])
        for run in runs
        if run["method"] == "ours" and run["agreement"] is not None and run.get("alignment") is not None
    ]
    agreement, right = zip(*known, strict=True) if known else ((), ())
    if len(set(agreement)) < 2 or len(set(right)) < 2:
        return None
    below = [share for agreed, share in known if agreed < HIGH_AGREEMENT]
    above = [share for agreed, share in known if agreed >= HIGH_AGREEMENT]
    text = f"Agreement against accuracy of the alignment, over {len(known)} runs: correlation "
    text += f"{statistics.correlation(agreement, right):.2f}."
    for where, some in ((f"Below {HIGH_AGREEMENT:.0%}", below), (f"From {HIGH_AGREEMENT:.0%} up", above)):
        if some:
            text += f" {where}: {len(some)} runs, {min(some):.0f} to {max(some):.0f} % right."
    return text


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _origin(runs: Sequence[Run]) -> str:
    """Commands, machines and commits of the runs, and how many runs each."""

    def told(key: Callable[[Run], str]) -> str:
        counts = Counter(key(run) for run in runs)
        return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))

    def command(run: Run) -> str:
        return f"`python benchmarks/learning.py DATA {run['options']} --out benchmarks/results/{run['data']}`"

    def machine(run: Run) -> str:
        return f"{run['machine']}, torch {run['versions']['torch']}, threads: {run['threads']}"

    return (
        f"Runs by command (with the `--methods`, `--splits` and `--seeds` of the rows): {told(command)}. "
        f"By machine: {told(machine)}. By commit: {told(lambda run: str(run['commit']))}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files and learning.md")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    chosen = parser.parse_args()
    path = chosen.results / "learning.md"
    wanted = tables(load_runs(chosen.results)) + "\n"
    if not chosen.check:
        write_file(path, wanted)
        return 0
    if not path.is_file() or path.read_text() != wanted:
        print(f"{path} differs from the JSON files beside it: run python benchmarks/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeHalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
