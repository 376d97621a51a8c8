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


SWALLOWED = """
import atexit, os, signal, sys, types, weakref

class Thing: pass

def killed(_=None):
    os.kill(os.getpid(), {number})
    for _ in range(1000): pass

def main():
    thing = Thing()
    kept = weakref.ref(thing, killed)
    if {at_exit}:
        atexit.register(killed)
        print("done")
        return
    try:
        del thing
        signal.pause()
    finally:
        print("cleaned")

signal.signal(signal.SIGINT, signal.default_int_handler)
import edge_hal
sys.modules["edge_hal.cli"] = edge_hal.cli = cli = types.ModuleType("edge_hal.cli")
cli.main = main
sys.argv[1:] = ["label"]
from edge_hal.__main__ import main as run
run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at_exit", [False, True])
def test_a_signal_in_a_callback_that_swallows_errors_is_not_lost(number: signal.Signals, at_exit: bool) -> None:
    code = SWALLOWED.format(number=int(number), at_exit=at_exit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (128 + number, "")
    assert done.stdout == ("done\n" if at_exit else "cleaned\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_last_import_of_a_command_is_no_alarm_that_kills(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The command is over before the import is tried again, and Python takes longer to end than that."""
    (tmp_path / "late.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nfor _ in range(1000): pass\n")
    code = (
        "import signal, sys, types; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Slow:\n"
        "    def __del__(self):\n"
        "        for _ in range(5_000_000): pass\n"
        "def main():\n"
        f"    sys.path.insert(0, {str(tmp_path)!r})\n"
        "    import late\n"
        "    late.kept = Slow()\n"
        "import edge_hal\n"
        "sys.modules['edge_hal.cli'] = edge_hal.cli = cli = types.ModuleType('edge_hal.cli')\n"
        "cli.main = main; sys.argv[1:] = ['label']\n"
        "from edge_hal.__main__ import main as run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (128 + number, "")
