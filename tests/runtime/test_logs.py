"""What a service logs: JSON lines where nobody looks, and lines for people on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.bundles import vectors
from tests.helpers.processes import REPOSITORY, read_terminal

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def source(tmp_path: Path) -> str:
    np.save(tmp_path / "f.npy", vectors([0, 1] * 20))
    return f"features:{tmp_path}/f.npy@10"


def command(bundle: Path, source: str, *more: str) -> list[str]:
    options = ["--bundle", str(bundle), "--camera", source, "--pub", "tcp://127.0.0.1:*", "--pace", "asap"]
    return [sys.executable, "-m", "edge_hal", "run", *options, "--stream", "bench-1", *more]


def lines(bundle: Path, source: str, *more: str) -> tuple[int, list[dict[str, object]]]:
    done = subprocess.run(command(bundle, source, *more), capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def test_json_lines_where_standard_error_is_no_terminal(bundle: Path, source: str) -> None:
    code, found = lines(bundle, source)
    assert code == 0 and len(found) >= 2
    for line in found:
        assert line["stream"] == "bench-1" and line["level"] == "info" and str(line["logger"]).startswith("edge_hal")
        time = datetime.fromisoformat(str(line["time"]).replace("Z", "+00:00"))
        assert abs(datetime.now(timezone.utc) - time) < timedelta(hours=1)
    assert str(found[0]["message"]).startswith("engine: fp32 on ")
    [published] = [line for line in found if "publishing" in str(line["message"])]
    assert str(published["endpoint"]).startswith("tcp://127.0.0.1:")
    assert found[-1]["reason"] == "eof" and found[-1]["counters"]["captured"] == 40  # type: ignore[index]


def test_an_error_is_one_of_them(bundle: Path, source: str, tmp_path: Path) -> None:
    code, found = lines(tmp_path / "none", source)
    [error] = [line for line in found if line["level"] == "error"]
    assert code == error["exit_code"] == 1 and "no bundle" in str(error["message"]) and "export" in str(error["todo"])


def test_people_get_a_line_with_a_time(bundle: Path, source: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(bundle, source), stdout=subprocess.DEVNULL, stderr=theirs, env=ENVIRONMENT) as run:
        os.close(theirs)
        told = read_terminal(ours)
    assert run.returncode == 0
    assert told.splitlines()[0][2:6:3] == "::" and "publishing 'bench-1'" in told and "{" not in told


def test_either_can_be_asked_for(bundle: Path, source: str) -> None:
    done = subprocess.run(command(bundle, source, "--log", "human"), capture_output=True, env=ENVIRONMENT, timeout=60)
    assert b"publishing" in done.stderr and b"{" not in done.stderr
    done = subprocess.run(command(bundle, source, "--log", "loud"), capture_output=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 2 and b"--log loud" in done.stderr and b"Traceback" not in done.stderr
