"""What tests of delivery share: the command line as a child process, and a bundle with a long recording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_hal.runtime.delivery.journal_reader import JournalReader
from tests.helpers.processes import REPOSITORY
from tests.helpers.sample_events import STREAM

TIMEOUT_S = 60.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY)}


def spawn(*arguments: str | Path, **how: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen([sys.executable, *map(str, arguments)], **{**pipes, **how})


def edge_hal(*arguments: str | Path) -> tuple[int, str, str]:
    with spawn("-m", "edge_hal", *arguments) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def kept(path: Path) -> list[bytes]:
    reader = JournalReader(path)
    try:
        return reader.page(0, 10**9, 10**12).bodies
    finally:
        reader.close()


def run_arguments(place: Path, endpoint: str, journal: Path) -> tuple[str, ...]:
    return (
        *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{place}/f.npy@10", "--pace", "asap"),
        *("--pub", endpoint, "--journal", str(journal), "--stream", STREAM, "--json"),
    )
