"""Commands as their users start them: in processes of their own, on this working tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300.0


def start(*arguments: str, code: str | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
    """`edge-hal ARGUMENTS`, or the Python program `code`, on one thread of torch."""
    program = ["-m", "edge_hal"] if code is None else ["-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def call(
    *arguments: str, code: str | None = None, cwd: Path | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[int, str, str]:
    return finish(start(*arguments, code=code, cwd=cwd), timeout_s)


def completed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`edge-hal ARGUMENTS` to its end."""
    texts = [str(argument) for argument in arguments]
    return subprocess.CompletedProcess(texts, *call(*texts))


def until_exists(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a running process has made `path`."""
    waited_s = 0.0
    while not path.exists():
        try:
            process.wait(timeout=0.005)
        except subprocess.TimeoutExpired:
            waited_s += 0.005
            assert waited_s < TIMEOUT_S, f"{path} did not appear"
        else:
            raise AssertionError(f"ended with {process.returncode} before {path} was there: {process.communicate()}")


def contents(root: Path) -> dict[str, bytes | None]:
    """Every path below `root` with its bytes, None for a folder."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}
