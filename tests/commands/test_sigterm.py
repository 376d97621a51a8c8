"""SIGTERM in the middle of a command: exit code 143, and nothing that is half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_no_unfinished_file(tmp_path: Path, number: signal.Signals) -> None:
    """The signal comes when the first file is written and has not got its name yet."""
    code = (
        "import os, sys; from edge_hal.__main__ import main\n"
        f"os.fsync = lambda file: os.kill(os.getpid(), {int(number)})\n"
        "sys.argv[1:] = ['init', 'task', '--encoder', 'own']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + number and "Traceback" not in done.stderr, done
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
