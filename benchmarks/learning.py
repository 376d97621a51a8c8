"""The tables of learning: each method on each split from each seed, in a process of its own, one JSON file a run.

    python benchmarks/learning.py DATA --name vts --splits 1 --seeds 0,1,2 --out benchmarks/results/vts
    python benchmarks/learning.py DATA --name vts --splits 1,2,3,4,5 --seeds 0,1,2 --methods uniform,ours --out ...
    python benchmarks/learning.py DATA --name mocap6 --splits 1,2,3,4,5,6 --set data.rate_hz=10 --out ...
    python benchmarks/learning.py DATA --name vts --methods ablation-base --alignments DIR --out ...
    python benchmarks/tables.py                      # benchmarks/results/learning.md from the files

With `--alignments`, `ours` leaves what it found there, and methods that differ from it in the student alone begin from
that (their `training, s` is then without the search); without, each searches again, and finds the same.

What has its file is not run again: interrupted or failed, the same command goes on with what is missing
(`--dry-run` lists it). A failed cell says why, and the next one begins. Our methods are `edge-hal train` and
`edge-hal eval --json` themselves; the others are `benchmarks.baselines`. Scores are those of `edge_hal.evaluation`
on streamed, causal output; nothing but a model labelled offline sees the future.

`wall_s` is the time of training (with the interpreter's start, for ours), `score_s` that of scoring, `peak_mb` the
largest resident set among the processes of the cell.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from methods import METHODS, Method, flat_level

from edge_hal.commands.options.train_inputs import choose_config
from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.metrics import runs_of

REPOSITORY = Path(__file__).resolve().parent.parent
STAMPS = "stamps"
PACKAGES = ("edge-hal", "numpy", "torch")


@dataclass(frozen=True)
class Bench:
    """What all cells share. `settings` override the preset for every method."""

    data: Path
    name: str
    out: Path
    config: str | None
    settings: tuple[str, ...]
    alignments: Path | None = None

    def alignment(self, split: int, seed: int) -> Path | None:
        """That of the method `ours`, there or to be."""
        return None if self.alignments is None else self.alignments / f"{self.name}.split{split}.seed{seed}.json"


class Cell(NamedTuple):
    """One run of the tables."""

    method: Method
    split: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method.name}.split{self.split}.seed{self.seed}"


class Ended(NamedTuple):
    """A child process that succeeded."""

    out: str
    wall_s: float
    peak_mb: float


def cells_of(methods: list[Method], splits: list[int], seeds: list[int]) -> list[Cell]:
    """Split by split, seed by seed: what is cut short has whole columns. Without chance, one seed."""
    return [
        Cell(method, split, seed)
        for split, seed, method in itertools.product(splits, seeds, methods)
        if method.seeded or seed == seeds[0]
    ]


def commands_of(cell: Cell, bench: Bench, run: Path) -> dict[str, list[str]]:
    """Arguments of python by what they are for: `train`, then what prints scores: `test`, `alignment`, `baseline`."""
    # The last one wins: what makes the method holds, whatever the user chose for all of them.
    method, settings = cell.method, [*bench.settings, *cell.method.settings]
    where = ["--split", str(cell.split)]
    given = [] if bench.config is None else ["--config", bench.config]
    chance = ["--seed", str(cell.seed)]
    commands: dict[str, list[str]] = {}
    if method.flat:
        levels = choose_config(bench.data, bench.config, list(bench.settings)).model.levels
        settings.append(f"model.levels={json.dumps([flat_level(levels).model_dump()])}")
    if method.trained:
        partly = ["--labelled", str(method.labelled)] if method.labelled else []
        partly += ["--labels", str(run.parent / STAMPS)] if method.stamped else []
        commands["train"] = ["-m", "edge_hal", "train", str(bench.data), "--out", str(run)]
        commands["train"] += [*where, *given, *chance, *_set(settings), *partly]
        known_alignment = bench.alignment(cell.split, cell.seed)
        if method.student_only and known_alignment is not None and known_alignment.is_file():
            commands["train"] += ["--alignment", str(known_alignment)]
    if method.baseline:
        # The settings of the method are those of its training alone: the baseline learns with the preset's.
        known = ["--run", str(run)] if method.trained else []
        commands["baseline"] = ["-m", "benchmarks.baselines", method.name, str(bench.data)]
        commands["baseline"] += [*where, *given, *chance, *_set(list(bench.settings)), *known]
    else:
        scores = ["-m", "edge_hal", "eval", str(bench.data), *where, "--ckpt", str(run), "--json"]
        commands["test"] = scores
        if method.labelled is not None:
            commands["alignment"] = [*scores, "--stage", "alignment"]
    return commands


def options_of(bench: Bench) -> str:
    """What the user chose for every method: cells that differ in it are not to be compared."""
    config = [] if bench.config is None else ["--config", Path(bench.config).name]
    return shlex.join(["--name", bench.name, *config, *_set(list(bench.settings))])


def run_cell(cell: Cell, bench: Bench) -> dict[str, Any]:
    """Train and score. Raises EdgeHalError where a process fails, with its last words."""
    with tempfile.TemporaryDirectory(prefix="edge-hal-bench-") as folder:
        commands = commands_of(cell, bench, Path(folder) / "run")
        if cell.method.stamped:
            write_stamps(bench.data, cell, Path(folder) / STAMPS)
        ended = {what: call(command) for what, command in commands.items()}
        agreement = agreement_of(Path(folder) / "run")
        kept = bench.alignment(cell.split, cell.seed)
        if cell.method.name == "ours" and kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_file(kept, Path(folder, "run", "alignment.json").read_text())
        told = {str(Path(folder, "run")): "RUN", str(bench.data): "DATA"}
        told |= {str(Path(folder, STAMPS)): STAMPS.upper()}
        told |= {} if kept is None else {str(kept): "ALIGNMENT"}
        told |= {} if bench.config is None else {bench.config: Path(bench.config).name}
    printed = {what: json.loads(each.out) for what, each in ended.items() if what != "train"}
    wall_s = ended["train"].wall_s if "train" in ended else 0.0
    total_s = sum(each.wall_s for each in ended.values())
    if "baseline" in printed:
        scores = printed["baseline"]
        wall_s += scores.pop("train_s")
    else:
        aligned = printed.get("alignment", {})
        scores = {"test": printed["test"]["ours"], "floor": printed["test"]["floor"]}
        scores |= {"alignment": aligned.get("ours"), "alignment_floor": aligned.get("floor")}
    return {
        "data": bench.name,
        "method": cell.method.name,
        "split": cell.split,
        "seed": cell.seed,
        **{key: _rounded(value) for key, value in scores.items()},
        "agreement": agreement,
        "wall_s": round(wall_s, 1),
        "score_s": round(total_s - wall_s, 1),
        "peak_mb": round(max(each.peak_mb for each in ended.values())),
        "options": options_of(bench),
        "commands": [_readable(command, told) for command in commands.values()],
        **_origin(),
    }


def write_stamps(data: Path, cell: Cell, folder: Path) -> None:
    """A file of lines `frame step` for each training video: a frame of each of its segments."""
    rng = np.random.default_rng(cell.seed)
    videos = load_dataset(data, split=cell.split, part="train", with_labels=True, kind="features")
    folder.mkdir()
    for video in videos.videos:
        assert video.labels is not None
        steps, begins, ends = runs_of(video.labels)
        frames = rng.integers(begins, ends)
        lines = [f"{frame} {videos.labels[step]}\n" for frame, step in zip(frames, steps, strict=True)]
        (folder / f"{video.name}.txt").write_text("".join(lines))


def agreement_of(run: Path) -> float | None:
    """How far the restarts of a run agree, mean over its videos: what its user is told without labels. None where
    no restarts were compared: no run, a given alignment or start, one restart."""
    if not run.is_dir():
        return None
    learning = load_config(str(run / "config.yaml")).learning
    videos = json.loads((run / "alignment.json").read_text()).values()
    if learning.starter != "hmm" or learning.restarts < 2 or any(video["labelled"] for video in videos):
        return None
    return float(round(sum(video["agreement"] for video in videos) / len(videos), 3))


def call(arguments: list[str]) -> Ended:
    """python ARGUMENTS on this working tree; standard error goes to ours when the process fails.

    Raises:
        EdgeHalError: it failed, or was killed.
    """
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process: subprocess.Popen[str] | None = None
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began_s = time.monotonic()
        _hear(False)  # a signal between the child's start and the `finally` that ends it would leave it behind
        try:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                text=True,
                preexec_fn=_hear,  # the child would inherit the deafness
            )
            _hear()
            # wait4 alone tells what this one child used: RUSAGE_CHILDREN keeps the largest of all so far.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            _hear()
            if process is not None and process.returncode is None:
                process.kill()
                process.wait()
        wall_s = time.monotonic() - began_s
        out.seek(0)
        err.seek(0)
        if process.returncode:
            words = err.read().strip() or "it said nothing"
            raise EdgeHalError(f"python {shlex.join(arguments)} ended with {process.returncode}", words)
        return Ended(out.read(), wall_s, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))


def _hear(hear: bool = True) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK if hear else signal.SIG_BLOCK, {signal.SIGTERM})


def _set(settings: list[str]) -> list[str]:
    return list(itertools.chain.from_iterable(("--set", setting) for setting in settings))


def _rounded(value: Any) -> Any:
    """Four digits are enough to read, and keep the files small."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _readable(command: list[str], told: dict[str, str]) -> str:
    """A command as a reader types it: no path of this machine."""
    words = ["python", *(told.get(word, word) for word in command)]
    return shlex.join(words).replace("python -m edge_hal", "edge-hal", 1)


def _origin() -> dict[str, Any]:
    def git(*arguments: str) -> str | None:
        try:
            told = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)
        except OSError:
            return None
        return told.stdout.strip() if told.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    # Results and documents are no part of what was measured.
    changed = git("status", "--porcelain", "--", ".", ":!docs")
    return {
        "commit": f"{commit}, changed" if commit and changed else commit,
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "machine": f"{os.cpu_count()}-core {platform.machine()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def chosen_methods(names: str) -> list[Method]:
    """Raises EdgeHalError for a name that is none, with the nearest."""
    if names == "all":
        return list(METHODS.values())
    wanted = names.split(",")
    for name in wanted:
        if name not in METHODS:
            near = difflib.get_close_matches(name, METHODS, 1, 0.4)
            todo = f"did you mean '{near[0]}'?" if near else f"methods: {', '.join(METHODS)}"
            raise EdgeHalError(f"no method '{name}'", "", todo, exit_code=2)
    return [METHODS[name] for name in wanted]


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--name", help="of the data in the tables (default: the folder's)")
    parser.add_argument("--splits", type=numbers, default=[1], help="1,2,3")
    parser.add_argument("--seeds", type=numbers, default=[0], help="0,1,2")
    parser.add_argument("--methods", default="all", help=f"all, or some of {', '.join(METHODS)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--config", help="preset or YAML file for every method")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="for every method")
    parser.add_argument("--alignments", type=Path, help="folder that keeps what the method ours found")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing, run nothing")
    chosen = parser.parse_args()
    bench = Bench(
        chosen.data,
        chosen.name or chosen.data.resolve().name,
        chosen.out,
        chosen.config,
        tuple(chosen.settings),
        chosen.alignments,
    )
    cells = cells_of(chosen_methods(chosen.methods), chosen.splits, chosen.seeds)
    missing = [cell for cell in cells if not (bench.out / f"{cell.name}.json").exists()]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are there", flush=True)
    failed = 0
    for cell in missing:
        if chosen.dry_run:
            print(f"missing: {cell.name}")
            continue
        print(f"{cell.name} ...", flush=True)
        try:
            result = run_cell(cell, bench)
        except EdgeHalError as error:
            failed += 1
            print(f"failed: {cell.name}: {error}", file=sys.stderr, flush=True)
            continue
        bench.out.mkdir(parents=True, exist_ok=True)
        write_file(bench.out / f"{cell.name}.json", json.dumps(result, indent=1) + "\n")
        test = result["test"]
        print(
            f"{cell.name}: MoF {test['mof']:.1f}  F1@50 {test['f1_50']:.1f}  "
            f"transition F1 {test['transition_f1']:.2f}  trained in {result['wall_s']:.0f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    # A terminated benchmark takes its child along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except EdgeHalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
