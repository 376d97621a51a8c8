"""Task folders on the command line: which run a command reads, and what is printed about the data before a training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import is_task, newest_run

if TYPE_CHECKING:
    from edge_hal.learning.data.check_videos import Problem

PRINTED = 3
"""Warnings that a training prints at most. `edge-hal check` prints all."""


def run_of(ckpt: Path | None, data: Path) -> Path:
    """The run directory to read: `ckpt`, or the newest complete run of the task folder `ckpt` or `data`.

    Raises:
        EdgeHalError: there is none.
    """
    if ckpt is None and not is_task(data):
        why = f"{data} is no task folder, whose newest run would be taken"
        raise EdgeHalError("--ckpt is missing", why, "give the run directory: --ckpt RUN", exit_code=2)
    given = data if ckpt is None else ckpt
    run = newest_run(given)
    if run != given:
        print(f"run: {run}", file=sys.stderr)
    return run


def tell(problems: Sequence[Problem], data: Path) -> None:
    """Print warnings, the first ones only.

    Raises:
        EdgeHalError: for the first error.
    """
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        more = f"{len(errors) - 1} more: edge-hal check {data}" if len(errors) > 1 else ""
        raise EdgeHalError(errors[0].what, more, errors[0].todo)
    for problem in problems[:PRINTED]:
        todo = f"\n  -> {problem.todo}" if problem.todo else ""
        print(f"warning: {problem.what}{todo}", file=sys.stderr)
    if len(problems) > PRINTED:
        print(f"{len(problems) - PRINTED} more warnings: edge-hal check {data}", file=sys.stderr)
