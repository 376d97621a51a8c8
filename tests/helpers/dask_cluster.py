"""A real dask scheduler with workers, each a process of its own on this working tree."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import REPOSITORY, until_exists

pytest.importorskip("distributed", reason="distributed is not installed")
Process = subprocess.Popen[str]


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, Process]]:
    """The address of a scheduler on this machine, and its process."""
    file = folder / "scheduler.json"
    process = _start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                     "--scheduler-file", str(file))  # fmt: skip
    try:
        until_exists(file, process)
        while not (text := file.read_text()).endswith("}"):  # it is written in pieces
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.005)
        yield json.loads(text)["address"], process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def workers(address: str, count: int, code: Path = REPOSITORY) -> Iterator[list[Process]]:
    """`count` workers, of one thread each, that import edge_hal from the folder `code`."""
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    started = [_start("dask_worker", address, *options, code=code) for _ in range(count)]
    try:
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


class Killing(Executor):
    """Gives its work to `inner`, and kills a process when the task of a number is submitted."""

    def __init__(self, inner: Executor, victim: Process, at: int) -> None:
        self.inner, self.victim, self.at, self.submitted = inner, victim, at, 0

    @property
    def lost(self) -> str:
        return str(getattr(self.inner, "lost", ""))

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self.inner.submit(function, *args, **kwargs)
        self.submitted += 1
        if self.submitted == self.at:
            self.victim.kill()
        return future


def _start(module: str, *arguments: Any, code: Path = REPOSITORY) -> Process:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(code), str(REPOSITORY)])}
    command: Sequence[str] = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        env=environment, cwd=code,
    )  # fmt: skip
