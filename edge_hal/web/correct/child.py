"""A command of edge-hal as a child process: its progress, what it prints, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

LINES = 60
"""Lines that are kept, those that were printed last."""
LINE = 2000
TELL_HZ = 5.0
END_S = 5.0


@dataclass
class ChildState:
    """What is known of a child. `state`: "running", "stopping", "done", "stopped" or "failed"."""

    state: str = "running"
    stage: str = ""
    done: int = 0
    total: int = 0
    remark: str = ""
    began_s: float = field(default_factory=time.time)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))

    def body(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("state", "stage", "done", "total", "remark", "began_s")}
        return {**shown, "lines": list(self.lines)}


class Child:
    """Output and progress are read in a thread of its own, from `start` on.

    Args:
        tell: called in that thread when something has changed, at most `TELL_HZ` times a second, and at the end.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], tell: Callable[[], None]) -> None:
        self.progress = ChildState()
        self._lock = threading.Lock()  # around each change of the state
        self._tell = tell
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_hal", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "EDGE_HAL_PROGRESS": "json", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches the server, which stops its children
        )
        self._thread = threading.Thread(target=self._read, name="child", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self.progress.state in ("running", "stopping")

    def stop(self) -> None:
        """SIGINT, as from a terminal; the second time SIGKILL."""
        with self._lock:
            if self.progress.state == "running":
                self._process.send_signal(signal.SIGINT)
                self.progress.state = "stopping"
            elif self.progress.state == "stopping":
                self._kill()

    def close(self) -> None:
        """Stop, and wait for the end."""
        self.stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        with self._lock:
            if self.running:
                self._kill()
        self._thread.join()

    def _kill(self) -> None:
        """The child and its own children, which hold its output open."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        progress, due_s = self.progress, 0.0
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()[:LINE]
            if line.startswith('{"stage"'):
                self._advance(line)
            elif line:
                progress.lines.append(line)
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + 1 / TELL_HZ
                self._tell()
        code = self._process.wait()
        with self._lock:
            progress.state = "done" if code == 0 else "stopped" if progress.state == "stopping" else "failed"
        self._tell()

    def _advance(self, line: str) -> None:
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            progress = self.progress
            progress.stage, progress.remark = str(row["stage"]), str(row["remark"])
            progress.done, progress.total = int(row["done"]), int(row["total"])
