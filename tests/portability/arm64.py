"""Stream a bundle on an emulated arm64 machine and on this one, and compare the events.

    python -m tests.portability.arm64 build/arm64 --bundle demo/bundle --camera demo/videos/bench_064.mp4

The first argument is the folder of the arm64 root. It is built if it is missing: Debian's Python for arm64 (mmdebstrap
extracts the packages, nothing of them runs), and the wheels of `constraints-310.txt`. qemu's user mode then runs that
Python on this working tree. There is no chroot and nothing is registered with the kernel. Packages: mmdebstrap and
qemu-user-static (`make services`).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_hal.events import Event, Transition, decode
from edge_hal.runtime.delivery.journal_reader import JournalReader
from tests.helpers.processes import REPOSITORY
from tests.portability.wheels import CONSTRAINTS_310, pip_install, requirements

SUITE, PYTHON = "bookworm", "3.11"
PROGRAMS = ("mmdebstrap", "qemu-aarch64-static")
EXTRAS = ("camera",)
TIMEOUT_S = 900.0
PATIENT = """from edge_hal.cli import main
from edge_hal.runtime.engines import trial
trial.LIMIT_S = trial.WALL_LIMIT_S = 600.0  # an emulated processor needs longer than 30 s for the trial of a bundle
main()
"""
WRAPPER = f"""#!/bin/sh
root="$(dirname "$0")"
exec qemu-aarch64-static -L "$root" "$root/usr/bin/python{PYTHON}" "$@"
"""
EXECUTABLE = """import sys
from pathlib import Path
sys.executable = str(Path(__file__).resolve().parent.parent / "python")  # children are emulated too
"""


def missing() -> list[str]:
    """Programs that are not installed here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def make_root(root: Path) -> None:
    """Build the root in a folder beside it, and rename it when it is complete.

    Raises:
        RuntimeError: Debian or the package index did not give what is needed.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        root.with_suffix(".lock").open("w") as lock,
        tempfile.TemporaryDirectory(dir=root.parent, prefix=f"{root.name}-") as folder,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of pytest may build it now
        if root.exists():
            return
        new = Path(folder) / "root"
        options = ["--variant=extract", "--architectures=arm64", "--include=python3,libstdc++6"]
        command = ["mmdebstrap", "--quiet", *options, SUITE, str(new)]
        steps = [subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)]
        if steps[-1].returncode == 0:
            steps.append(pip_install(PYTHON, new / "site", requirements(*EXTRAS), CONSTRAINTS_310))
        if steps[-1].returncode:
            raise RuntimeError(f"the arm64 root could not be built: {steps[-1].stderr.strip()}")
        (new / "python").write_text(WRAPPER)
        (new / "python").chmod(0o755)
        (new / "site" / "sitecustomize.py").write_text(EXECUTABLE)
        new.rename(root)


def python_on(root: Path | None) -> tuple[list[str], dict[str, str]]:
    """The command of Python in the arm64 root, or of this one (None), and its environment."""
    paths = [str(REPOSITORY)] if root is None else [str(root / "site"), str(REPOSITORY)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return [sys.executable if root is None else str(root / "python")], environment


def output(root: Path | None, *arguments: str) -> str:
    """Standard output of Python with `arguments`.

    Raises:
        RuntimeError: it failed.
    """
    program, environment = python_on(root)
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)} {' '.join(arguments)}\n{done.stderr}")
    return done.stdout


def stream(root: Path | None, bundle: Path, source: str, *more: str) -> list[Event]:
    """The durable events of `edge-hal run` over a whole file, read here from the journal that it wrote."""
    with tempfile.TemporaryDirectory(prefix="edge-hal-") as folder:
        journal = Path(folder) / "journal"
        options = ["--pace", "asap", "--pub", f"ipc://{folder}/pub", "--journal", str(journal)]
        output(root, "-c", PATIENT, "run", "--bundle", str(bundle), "--camera", source, *options, *more)
        reader = JournalReader(journal)
        bodies = reader.page(0, limit=1_000_000, limit_bytes=2**30).bodies
        reader.close()
    return [decode(body) for body in bodies]


def largest_difference(here: Sequence[Event], there: Sequence[Event]) -> float:
    """Of two confidences.

    Raises:
        ValueError: kinds, labels, boundary or decision ticks differ.
    """
    difference = 0.0
    for one, other in zip(here, there, strict=True):
        if _identity(one) != _identity(other):
            raise ValueError(f"here: {one}\non arm64: {other}")
        if isinstance(one, Transition) and isinstance(other, Transition):
            difference = max(difference, abs(one.confidence - other.confidence))
    return difference


def _identity(event: Event) -> tuple[object, ...]:
    if isinstance(event, Transition):
        return event.type, event.from_, event.to, event.boundary.tick, event.decision.tick
    return (event.type,)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a run on an emulated arm64 machine with one here.")
    parser.add_argument("root", type=Path, help="folder of the arm64 root, built if it is missing")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--camera", required=True, help="a video, a folder of pictures or features:FILE.npy@HZ")
    given = parser.parse_args()
    if missing():
        parser.error(f"not installed: {', '.join(missing())}")
    make_root(given.root.resolve())
    here, there = (stream(root, given.bundle, given.camera) for root in (None, given.root.resolve()))
    difference = largest_difference(here, there)
    transitions = sum(isinstance(event, Transition) for event in here)
    print(f"the same {len(here)} events, {transitions} of them transitions; confidences differ by {difference:.1e}")


if __name__ == "__main__":
    main()
