"""What a run is worth to the next task: training on a few videos, with `train --init RUN` and without. One cell a call.

    python benchmarks/growing.py board --videos 2 --seed 0 [--init demo/run] [--out cells]
    python benchmarks/growing.py actrectut --split 6 --part test --pool 16 --videos 2 --seed 0 [--init person1] \\
        --set data.rate_hz=32
    python benchmarks/growing.py demo/data --videos 8 --seed 0 --set model.encoder.kind=efficientnet-lite0@160 \\
        --set learning.student.offset=0 --runs runs
    python benchmarks/growing.py --table cells

A seed draws the videos from the first `--pool` of the part (1 of 2 of 4 of 8), and is that of the training. Scores are
those of `edge-hal eval`: of the videos of the test part, or with `--part test` of those after the pool. `--out` keeps
one JSON file a cell; a cell that is there is not run again. `--runs` keeps the runs, for `elsewhere.py`. `board` comes
from

    python -c 'if __name__ == "__main__": from edge_hal.workbench import render_dataset
    render_dataset("board", 21, 24, 12, procedure="circuit_board")'
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from learning import _origin, call

from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file

SHOWN = {"mof": "frames right", "f1_50": "F1@50", "transition_f1": "transition F1"}


def listed(data: Path, part: str, split: int) -> list[str]:
    return (data / "splits" / f"{part}.split{split}.bundle").read_text().split()


def few_videos(data: Path, folder: Path, part: str, split: int, pool: int | None, videos: int, seed: int) -> Path:
    """A data set of the same files, whose split 1 has the drawn videos for training.

    Raises:
        EdgeHalError: the pool has fewer videos.
    """
    names = listed(data, part, split)
    chosen, rest = names[:pool], names[pool:] if pool else []
    if videos > len(chosen):
        raise EdgeHalError(f"{videos} videos asked for", f"there are {len(chosen)} to draw from", exit_code=2)
    drawn = [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))[:videos]]
    (folder / "splits").mkdir(parents=True)
    for each in data.iterdir():
        if each.name not in ("splits", "runs", ".cache"):
            (folder / each.name).symlink_to(each.resolve())
    for name, these in (("train", drawn), ("test", rest if part == "test" else listed(data, "test", split))):
        (folder / "splits" / f"{name}.split1.bundle").write_text("".join(f"{each}\n" for each in these))
    return folder


def name_of(chosen: argparse.Namespace) -> str:
    begun = [] if chosen.init is None else ["init"]
    settings = [re.sub(r"[^\w.=@-]", "_", each) for each in chosen.settings]
    drawn = f"{chosen.data.resolve().name}.split{chosen.split}.{chosen.videos}.seed{chosen.seed}"
    return ".".join([drawn, *begun, *settings])


def cell(chosen: argparse.Namespace) -> dict[str, Any]:
    """Train and score."""
    with tempfile.TemporaryDirectory(prefix="edge-hal-growing-") as folder:
        data = few_videos(
            chosen.data, Path(folder) / "data", chosen.part, chosen.split, chosen.pool, chosen.videos, chosen.seed
        )
        run = (Path(folder) if chosen.runs is None else chosen.runs.resolve()) / name_of(chosen)
        settings = [word for each in chosen.settings for word in ("--set", each)]
        init = [] if chosen.init is None else ["--init", str(chosen.init)]
        train = ["-m", "edge_hal", "train", str(data), "--out", str(run), "--split", "1", "--seed", str(chosen.seed)]
        trained = call([*train, *settings, *init])
        score = ["-m", "edge_hal", "eval", str(data), "--split", "1", "--ckpt", str(run), "--json"]
        test = json.loads(call(score).out)
        aligned = json.loads(call([*score, "--part", "train", "--stage", "alignment"]).out)
    return {
        "data": chosen.data.resolve().name,
        "split": chosen.split,
        "videos": chosen.videos,
        "seed": chosen.seed,
        "init": chosen.init is not None,
        "settings": chosen.settings,
        "test": _some(test["ours"]),
        "floor": _some(test["floor"]),
        "alignment": _some(aligned["ours"]),
        "wall_s": round(trained.wall_s, 1),
        **_origin(),
    }


def _some(scores: dict[str, Any]) -> dict[str, float]:
    return {key: round(float(scores[key]), 4) for key in SHOWN if scores.get(key) is not None}


def row_of(cell: dict[str, Any]) -> tuple[str, int, str, int, bool]:
    return cell["data"], cell["split"], ", ".join(cell["settings"]), cell["videos"], cell["init"]


def print_table(folder: Path) -> None:
    """Medians over the seeds, and their range."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    print("| data | settings | videos | begins with | seeds | aligned right | frames right | F1@50 | transition F1 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in sorted({row_of(each) for each in cells}):
        data, split, settings, videos, init = row
        same = [each for each in cells if row_of(each) == row]

        def spread(part: str, key: str, digits: int, same: list[dict[str, Any]] = same) -> str:
            found = [c[part][key] for c in same]
            return f"{np.median(found):.{digits}f} ({min(found):.{digits}f}-{max(found):.{digits}f})"

        scores = [spread("alignment", "mof", 1), spread("test", "mof", 1), spread("test", "f1_50", 1)]
        print(
            f"| {data} {split} | {settings} | {videos} | {'RUN' if init else '-'} | {len(same)} | "
            + " | ".join([*scores, spread("test", "transition_f1", 2)])
            + " |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--part", choices=("train", "test"), default="train", help="where videos are drawn from")
    parser.add_argument("--pool", type=int, help="draw from so many videos only (default: all of the part)")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="the run to begin with")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="key of the configuration")
    parser.add_argument("--out", type=Path, help="folder that keeps the cells")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs")
    parser.add_argument("--table", type=Path, help="print the table of such a folder instead")
    chosen = parser.parse_args()
    if chosen.table is not None:
        return print_table(chosen.table)
    if chosen.data is None:
        parser.error("DATA is missing")
    name = f"{name_of(chosen)}.json"
    if chosen.out is not None and (chosen.out / name).exists():
        return None
    found = cell(chosen)
    print(json.dumps(found))
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        write_file(chosen.out / name, json.dumps(found, indent=1) + "\n")
    return None


if __name__ == "__main__":
    try:
        main()
    except EdgeHalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
