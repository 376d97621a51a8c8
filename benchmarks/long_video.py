"""Peak memory of `edge-hal train` against the length of one video: one long feature video and a few short ones.

    python benchmarks/long_video.py [--minutes 0,15,30,60,120] [--starter uniform,hmm] [--limit-gb 8]
    python benchmarks/long_video.py --table

Each row is one `edge-hal train` in a process of its own; its peak is what the system says (`ru_maxrss` of the child).
Features are 36 numbers at 10 Hz, steps last 20 s, the short videos three minutes; one epoch of each stage: more change
nothing of what is held at once. The search is whole; its workers are processes of their own, and the peak is that of
the largest process. `uniform` leaves out the HMM starter, so that the difference is its share. Rows that are in the
file are not run again. `--limit-gb` ends a run that would take more, to spare the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.files import write_file

RATE_HZ, SIZE, ACTIONS, STEP_S, SHORT_S, SHORTS = 10, 36, 8, 20, 180, 4
BRIEF = (
    "learning.teacher.warm_epochs=1",
    "learning.teacher.epochs=1",
    "learning.teacher.realign_every=1",
    "learning.student.epochs=1",
    "learning.student.least_steps=0",
    f"data.rate_hz={RATE_HZ}",
    "data.layout=TD",
)


def write_set(root: Path, minutes: float) -> None:
    """`SHORTS` short videos and one of `minutes` (0: none)."""
    rng = np.random.default_rng(0)
    for folder in ("features", "transcripts"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("".join(f"{i} step{i}\n" for i in range(ACTIONS)))
    directions = 2 * rng.normal(size=(ACTIONS, SIZE)).astype(np.float32)
    for index, seconds in enumerate([SHORT_S] * SHORTS + [60 * minutes] * (minutes > 0)):
        order = np.cumsum(rng.integers(1, ACTIONS, round(seconds / STEP_S))) % ACTIONS
        labels = np.repeat(order, STEP_S * RATE_HZ)
        x = directions[labels] + rng.standard_normal((len(labels), SIZE), dtype=np.float32)
        np.save(root / "features" / f"video{index}.npy", x)
        (root / "transcripts" / f"video{index}.txt").write_text("".join(f"step{a}\n" for a in order))


def measure(minutes: float, starter: str, limit_gb: float) -> dict[str, Any]:
    """One training. `peak_gb` of the process; `cpu_s` of all of it. `failed` where it did not end well."""
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder) / "data", minutes)
        command = [sys.executable, "-m", "edge_hal", "train", f"{folder}/data", "--out", f"{folder}/run"]
        for setting in (*BRIEF, f"learning.starter={starter}"):
            command += ["--set", setting]
        limit = round(limit_gb * 1e9)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        began_s = time.monotonic()
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
        assert child.stderr is not None
        told, stages = "", {}
        for line in child.stderr:  # the command says a line when a stage is complete
            told += line
            stages[line.partition(":")[0]] = _peak_so_far_gb(child.pid)
        # Of this child alone: RUSAGE_CHILDREN would keep the greatest of all rows.
        _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    found: dict[str, Any] = {"minutes": minutes, "starter": starter, "peak_gb": round(kilobytes * 1024 / 1e9, 3)}
    found |= {"cpu_s": round(usage.ru_utime + usage.ru_stime, 1), "wall_s": round(time.monotonic() - began_s, 1)}
    found["stages"] = {name: peak for name, peak in stages.items() if peak is not None}
    if code != 0:
        last = told.strip().splitlines()[-1] if told.strip() else ""
        found["failed"] = f"{last or f'exit code {code}'} (limit {limit_gb:g} GB)"
    return found


def _peak_so_far_gb(pid: int) -> float | None:
    """Greatest resident size of a running process; None where there is no /proc."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e9, 3)
    except OSError:
        pass
    return None


STAGES = ("read", "starter", "teacher", "student", "decoder")


def table(rows: list[dict[str, Any]]) -> str:
    """Peaks of the whole run, and so far when each stage was complete: where it rises, that stage holds most."""
    text = [
        f"| long video, minutes | starter | peak, GB | {' | '.join(f'after {name}' for name in STAGES)} | CPU, s |",
        f"|{'---|' * (len(STAGES) + 4)}",
    ]
    for row in sorted(rows, key=lambda row: (row["starter"], row["minutes"])):
        peak = row.get("failed", f"{row['peak_gb']:.2f}")
        known = [f"{row['stages'][name]:.2f}" if name in row["stages"] else "-" for name in STAGES]
        text.append(f"| {row['minutes']:g} | {row['starter']} | {peak} | {' | '.join(known)} | {row['cpu_s']:.0f} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="0,15,30,60,120")
    parser.add_argument("--starter", default="uniform,hmm")
    parser.add_argument("--limit-gb", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_video.json"))
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
    if not arguments.table:
        for minutes in sorted(float(m) for m in arguments.minutes.split(",")):
            for starter in arguments.starter.split(","):
                if any((row["minutes"], row["starter"]) == (minutes, starter) for row in rows):
                    continue
                rows.append(measure(minutes, starter, arguments.limit_gb))
                print(rows[-1], flush=True)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                write_file(arguments.out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(table(rows))


if __name__ == "__main__":
    main()
