"""Every benchmark starts with the command that its first lines name, from a clone and without any setting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.helpers.processes import REPOSITORY

COMMAND = re.compile(r"^ +python (-m benchmarks\.(\w+)|benchmarks/(\w+)\.py)\b", re.MULTILINE)


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for path in sorted((REPOSITORY / "benchmarks").glob("*.py")):
        named = COMMAND.search(path.read_text())
        if named is not None and path.stem in named.groups():
            found.append(tuple(named[1].split()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_benchmark_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, *command, "--help"]
    done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_nearly_every_benchmark_names_its_command() -> None:
    assert len(commands()) > 30
