"""Nothing but what was asked for is written: no library writes into the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.bundles import vectors
from tests.helpers.processes import REPOSITORY

DRAW = "from edge_hal.plotting import pyplot; pyplot().figure().savefig('figure.png')"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "edge_hal", "run", "--camera", "features:f.npy@10", "--pace", "asap", "--pub", "tcp://127.0.0.1:*"],
        ["-m", "edge_hal", "doctor", "--json"],
        ["-m", "edge_hal", "cameras"],
        ["-c", DRAW],
    ],
    ids=["run", "doctor", "cameras", "plotting"],
)
def test_an_empty_home_stays_empty(tmp_path: Path, bundle: Path, command: list[str]) -> None:
    if DRAW in command:
        pytest.importorskip("matplotlib")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    np.save(work / "f.npy", vectors([0, 1, 2] * 40))
    (work / "bundle").symlink_to(bundle)
    theirs = ("XDG_", "ORT_", "MPLCONFIGDIR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    environment |= {"HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *command], cwd=work, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "doctor" in command, done.stderr  # a machine may lack what doctor looks for
    assert "onnxruntime:Default" not in done.stderr
    ours = home / ".cache" / "edge-hal"  # our own: which engines this machine can run
    assert {path for path in home.rglob("*") if ours not in (path, *path.parents)} <= {home / ".cache"}
