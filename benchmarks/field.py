"""A row of the field's tables: train and score every split of a known benchmark, and average.

    python benchmarks/field.py breakfast DATA [--splits 1,2] [--seed 0] [--runs runs] [--set KEY=VALUE ...]

DATA has the layout of MS-TCN (features/, groundTruth/, mapping.txt, splits/). Each split is one `edge-hal train` and
one `edge-hal eval`, printed as they are run. An interrupted call goes on where it stopped: what is scored stays.
What the figures mean, and what these commands need, is told in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Benchmark:
    """`splits`: how many the field averages over. `silence`: the name of the background is that of id 0 in mapping.txt,
    and the preset does not know it. `skip_background`: Edit and F1 leave it out."""

    splits: int
    silence: bool = False
    skip_background: bool = False


BENCHMARKS = {
    "breakfast": Benchmark(4),
    "salads50": Benchmark(5),
    "gtea": Benchmark(4, skip_background=True),
    "hollywood": Benchmark(10, silence=True),
    "crosstask": Benchmark(1, silence=True),
}
FRAMES = {"MoF": "mof", "MoF-Bg": "mof_bg", "IoU": "iou_isba", "IoD": "iod_isba"}
SEGMENTS = {"Edit": "edit", "F1@10": "f1_10", "F1@25": "f1_25", "F1@50": "f1_50"}


def background_of(data: Path) -> str:
    """The name of id 0: what the field's code takes for background on Hollywood Extended and CrossTask."""
    for line in (data / "mapping.txt").read_text("utf-8-sig").splitlines():
        number, _, name = line.strip().partition(" ")
        if number == "0" and name:
            return name.strip()
    sys.exit(f"{data / 'mapping.txt'} has no id 0")


def commands(
    name: str, data: Path, split: int, run: Path, seed: int, supervision: str, settings: list[str]
) -> tuple[list[str], list[str]]:
    """`edge-hal train` and `edge-hal eval` of one split."""
    own = [f"data.background={background_of(data)}"] if BENCHMARKS[name].silence else []
    options = [part for setting in [*own, *settings] for part in ("--set", setting)]
    train = ["edge-hal", "train", str(data), "--config", name, "--split", str(split), "--out", str(run)]
    train += ["--seed", str(seed), "--supervision", supervision, *options]
    return train, ["edge-hal", "eval", str(data), "--split", str(split), "--ckpt", str(run), "--json"]


def call(command: list[str], output: Path | None = None) -> None:
    """Run an `edge-hal` command with this Python; its standard output to a file, whole or not at all."""
    print("$", shlex.join(command), *([">", str(output)] if output else []), flush=True)
    python = [sys.executable, "-m", "edge_hal", *command[1:]]
    if output is None:
        code = subprocess.run(python, check=False).returncode
    else:
        beside = output.with_suffix(".partial")
        with beside.open("w") as file:
            code = subprocess.run(python, check=False, stdout=file).returncode
        if code == 0:
            os.replace(beside, output)
    if code != 0:
        sys.exit(code)


def row(name: str, results: list[dict[str, float | None]]) -> str:
    """A Markdown table of one row: mean over splits, and their standard deviation where there are several."""
    tail = "_bg" if BENCHMARKS[name].skip_background else ""
    columns = FRAMES | {title: key + tail for title, key in SEGMENTS.items()}
    cells = []
    for key in columns.values():
        values = [value for value in (result.get(key) for result in results) if value is not None]
        spread = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}" if values else "-")
    head = f"| {name}, {len(results)} of {BENCHMARKS[name].splits} splits | {' | '.join(columns)} |"
    return f"{head}\n|{'---|' * (len(columns) + 1)}\n| edge-hal, streamed | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", default="", help="by comma (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--supervision", choices=("transcripts", "frames"), default="transcripts")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories and scores")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="passed on to `edge-hal train`")
    arguments = parser.parse_args()
    name = arguments.benchmark
    splits = [int(k) for k in arguments.splits.split(",") if k] or range(1, BENCHMARKS[name].splits + 1)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    results = []
    for split in splits:
        run = arguments.runs / f"{name}.{arguments.supervision}.seed{arguments.seed}.split{split}"
        scores = Path(f"{run}.json")
        train, evaluate = commands(
            name, arguments.data, split, run, arguments.seed, arguments.supervision, arguments.settings
        )
        if not scores.is_file():
            if not (run / "model.safetensors").is_file():
                call(train)
            call(evaluate, scores)
        results.append(json.loads(scores.read_text())["ours"])
    print(row(name, results))


if __name__ == "__main__":
    main()
