"""Commands as their users start them: in processes of their own, on this working tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

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


def call_each(commands: Iterable[Sequence[str]], folder: Path) -> list[tuple[int, str, str]]:
    """`edge-hal ARGUMENTS` for each of many short commands, one after the other, each in a process of its own that
    does not import the command line again (`forked_commands.py`). Exit code, standard output, standard error of each.

    Args:
        folder: an empty folder for their output.
    """
    program = [sys.executable, "-m", "tests.helpers.forked_commands", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    made = subprocess.run(
        program,
        input=json.dumps([list(each) for each in commands]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=REPOSITORY,
        timeout=TIMEOUT_S,
    )
    assert made.returncode == 0, made.stderr
    return [
        (code, (folder / f"{number}.out").read_text(), (folder / f"{number}.err").read_text())
        for number, code in enumerate(json.loads(made.stdout))
    ]


def called_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """`edge-hal ARGUMENTS` in this process, on a wide terminal. Exit code, standard output, standard error."""
    from edge_hal import cli

    code = 0
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["edge-hal", *arguments])
        patch.setenv("COLUMNS", "200")
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, *capsys.readouterr()


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def all(self) -> tuple[int, str, str]:
        return self.returncode, self.stdout, self.stderr


Command = Callable[..., Done]
"""The fixture `command`."""


def read_terminal(ours: int) -> str:
    """All that is written to a pseudo-terminal until the other end hangs up. `ours`: its end, which is closed."""
    written = b""
    try:
        while block := os.read(ours, 4096):
            written += block
    except OSError:
        pass  # it has hung up
    os.close(ours)
    return written.decode()


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
