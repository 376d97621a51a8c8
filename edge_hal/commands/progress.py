"""Progress on the terminal: one bar per stage, with the remaining time."""

from __future__ import annotations

import json
import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINES_HZ = 5.0
WAIT_S = 60.0
"""Longest time between two lines of progress in a log file."""


class Stages:
    """`with Stages() as report: work(report)`; report(stage, done, total, remark).

    It writes to standard error, so that results on standard output can be piped. If standard error is not a terminal,
    it prints one line for each complete stage, and one a minute while a stage lasts. With EDGE_HAL_PROGRESS=json, for
    programs that start a command, it prints a JSON object a line instead, at most `LINES_HZ` a second."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bars = Progress(
            TextColumn("{task.description:>10}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}", style="dim", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: set[str] = set()
        self._as_json = os.environ.get("EDGE_HAL_PROGRESS") == "json"
        self._due_s = 0.0 if self._as_json else time.monotonic() + WAIT_S

    def __call__(self, stage: str, done: int, total: int, remark: str) -> None:
        if self._as_json:
            return self._print_json(stage, done, total, remark)
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, remark=remark)
        self._bars.update(self._tasks[stage], completed=done, total=total, remark=remark)
        ended = done >= total and stage not in self._printed
        if self._bars.disable and (ended or (done < total and time.monotonic() >= self._due_s)):
            self._due_s = time.monotonic() + WAIT_S
            self._printed |= {stage} if ended else set()
            self._console.print(f"{stage}: {done}/{total} {remark}".rstrip())

    def _print_json(self, stage: str, done: int, total: int, remark: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._due_s or done >= total:
            self._due_s = now_s + 1 / LINES_HZ
            print(
                json.dumps({"stage": stage, "done": done, "total": total, "remark": remark}),
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> Stages:
        if not self._as_json:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._as_json:
            self._bars.stop()
