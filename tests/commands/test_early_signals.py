"""A signal ends a command also while it imports: what is raised inside of an import can be lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import REPOSITORY

SLOW_IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), {number})
    for _ in range(100_000):
        pass
    print("imported", flush=True)
except BaseException as error:  # as numpy does
    print("swallowed", type(error), flush=True)
"""
COMMAND = """
import signal, sys, types
sys.path.insert(0, {folder!r})
sys.argv = ["edge-hal", "label", "task"]
signal.signal(signal.SIGINT, signal.default_int_handler)

def main():
    try:
        import slow_import
        signal.pause()
    finally:
        print("cleaned", flush=True)

sys.modules["edge_hal.cli"] = cli = types.ModuleType("edge_hal.cli")
import edge_hal
edge_hal.cli, cli.main = cli, main
from edge_hal.__main__ import main as run
run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_is_not_lost(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow_import.py").write_text(SLOW_IMPORT.format(number=int(number)))
    command = [sys.executable, "-c", COMMAND.format(folder=str(tmp_path))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("imported\ncleaned\n", "")
    assert done.returncode == 128 + number
