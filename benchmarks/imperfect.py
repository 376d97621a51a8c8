"""Step lists that are wrong: what a share of swapped neighbours, missing or additional steps costs.

    python benchmarks/imperfect.py DATA --name mocap6 --splits 1,2,3 --set data.rate_hz=10
    python benchmarks/imperfect.py DATA --name mocap6 --splits 1,2,3 --set data.rate_hz=10 --lists noisy
    python benchmarks/imperfect.py DATA --name mocap6 --splits 1,2,3 --set data.rate_hz=10 --lists sets --shares 0
    python benchmarks/imperfect.py --table

The step lists of the training videos are changed, from a seed, in a copy of the folder that holds nothing else of its
own; `edge-hal train` and `edge-hal eval` then run as ever. Truth and test videos stay as they are. Results are kept in
benchmarks/results/imperfect.json after each run; what is there is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning import call, numbers

from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.learning.data.dataset import load_dataset

RESULTS = Path(__file__).resolve().parent / "results" / "imperfect.json"
Steps = list[str]
Change = Callable[[Sequence[str], float, Sequence[str], np.random.Generator], Steps]


def swapped(steps: Sequence[str], share: float, names: Sequence[str], rng: np.random.Generator) -> Steps:
    """Each pair of neighbours changes places with this chance; no step moves by more than one."""
    done, at = list(steps), 0
    while at + 1 < len(done):
        if rng.random() < share:
            done[at], done[at + 1] = done[at + 1], done[at]
            at += 1
        at += 1
    return done


def missing(steps: Sequence[str], share: float, names: Sequence[str], rng: np.random.Generator) -> Steps:
    """Each step is left out with this chance; one stays."""
    left = [step for step in steps if rng.random() >= share]
    return left or [steps[int(rng.integers(len(steps)))]]


def additional(steps: Sequence[str], share: float, names: Sequence[str], rng: np.random.Generator) -> Steps:
    """After each step another one, drawn among all, with this chance."""
    done: Steps = []
    for step in steps:
        done.append(step)
        if rng.random() < share:
            done.append(names[int(rng.integers(len(names)))])
    return done


KINDS: dict[str, Change] = {"swapped": swapped, "missing": missing, "additional": additional}


def changed_copy(data: Path, copy: Path, split: int, kind: str, share: float, seed: int) -> None:
    """`copy` is `data` by links, with step lists of its own for the training videos of `split`."""
    copy.mkdir()
    for entry in data.resolve().iterdir():
        if entry.name != "transcripts":
            (copy / entry.name).symlink_to(entry)
    (copy / "transcripts").mkdir()
    for part in ("train", "test"):
        videos = load_dataset(data, split=split, part=part)
        for number, video in enumerate(videos.videos):
            steps = [videos.labels[step] for step in video.transcript]
            if part == "train":
                steps = KINDS[kind](steps, share, videos.labels, np.random.default_rng([seed, number]))
                steps = [step for step, _ in itertools.groupby(steps)]  # the same step twice on end is one
            (copy / "transcripts" / f"{video.name}.txt").write_text("\n".join(steps) + "\n")


def run(data: Path, split: int, kind: str, share: float, seed: int, settings: list[str]) -> dict[str, Any]:
    told = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="edge-hal-bench-") as folder:
        copy, out = Path(folder, "data"), Path(folder, "run")
        changed_copy(data, copy, split, kind, share, seed)
        where = [str(copy), "--split", str(split)]
        call(["-m", "edge_hal", "train", *where, "--out", str(out), "--seed", str(seed), *told])
        evaluate = ["-m", "edge_hal", "eval", *where, "--ckpt", str(out), "--json"]
        test = json.loads(call(evaluate).out)["ours"]
        found = json.loads(call([*evaluate, "--stage", "alignment"]).out)["ours"]
        videos = json.loads((out / "alignment.json").read_text()).values()
    return {
        "alignment_mof": round(found["mof"], 2),
        "agreement": round(sum(video["agreement"] for video in videos) / len(videos), 3),
        "mof": round(test["mof"], 2),
        "f1_50": round(test["f1_50"], 2),
        "transition_f1": round(test["transition_f1"], 3),
    }


def table(kept: dict[str, Any]) -> str:
    """Means over splits, by set, kind, share and how the lists were read."""
    lines = [
        "| set | step lists | share | read as | splits | alignment MoF | MoF | F1@50 |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for key, cells in itertools.groupby(sorted(kept.items()), lambda item: item[0].rsplit("/", 2)[0]):
        name, kind, share, lists = key.split("/")
        rows = [cell for _, cell in cells]
        means = (np.mean([row[column] for row in rows]) for column in ("alignment_mof", "mof", "f1_50"))
        columns = (f"`{name}`", kind, share, lists, str(len(rows)), *(f"{mean:.1f}" for mean in means))
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--name", help="of the data in the table (default: the folder's)")
    parser.add_argument("--splits", type=numbers, default=[1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--shares", default="0,0.1,0.2,0.4")
    parser.add_argument("--lists", choices=("exact", "noisy", "sets"), default="exact", help="how training reads them")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of what was run")
    chosen = parser.parse_args()
    kept: dict[str, Any] = json.loads(chosen.results.read_text()) if chosen.results.is_file() else {}
    if chosen.table:
        print(table(kept))
        return 0
    if chosen.data is None:
        parser.error("which data?")
    name = chosen.name or chosen.data.resolve().name
    for share, kind, split in itertools.product(chosen.shares.split(","), chosen.kinds.split(","), chosen.splits):
        kind = "as they are" if float(share) == 0 else kind
        key = f"{name}/{kind}/{share}/{chosen.lists}/split{split}/seed{chosen.seed}"
        if key in kept:
            continue
        change = "swapped" if kind == "as they are" else kind
        settings = [*chosen.settings, f"learning.lists={chosen.lists}"]
        kept[key] = run(chosen.data, split, change, float(share), chosen.seed, settings)
        write_file(chosen.results, json.dumps(kept, indent=1) + "\n")
        print(key, kept[key], flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeHalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
