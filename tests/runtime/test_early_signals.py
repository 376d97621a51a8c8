"""Signals during the start of a run, at each point of it: a process of its own sends them to itself."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.processes import call

AT_IMPORT = """
import importlib.abc, os, signal, sys
number, name = int(sys.argv.pop(1)), sys.argv.pop(1)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, module, path=None, target=None):
        if module == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
from edge_hal.__main__ import main
main()
"""


FIRST, LAST = "typer", "edge_hal.runtime.engines.onnxruntime_engine"
BETWEEN = ("edge_hal.logs", "numpy", "zmq", "onnxruntime")


@pytest.mark.parametrize("module", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in BETWEEN), LAST])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_loses_nothing(tmp_path: Path, module: str, number: Any) -> None:
    bundle = known_bundle(tmp_path / "bundle", 20.0).path
    np.save(tmp_path / "f.npy", vectors([0, 0, 0, 0, 1, 1, 1, 1] * 5))
    options = ["--camera", f"features:{tmp_path}/f.npy@20", "--pub", f"ipc://{tmp_path}/s", "--log", "json"]
    arguments = ["run", "--bundle", str(bundle), *options, "--journal", f"{tmp_path}/j", "--json"]
    code, out, err = call(str(int(number)), module, *arguments, code=AT_IMPORT)
    assert code == 0 and "Traceback" not in err, err
    summary = json.loads(out)
    assert summary["reason"] == ("eof" if number == signal.SIGHUP else "signal")
    with sqlite3.connect(tmp_path / "j") as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM event ORDER BY seq")]
    assert bodies[0]["type"] == "start" and bodies[-1]["type"] == "end"
    assert bodies[-1]["reason"] == summary["reason"]
