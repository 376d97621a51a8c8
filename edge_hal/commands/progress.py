"""Progress on the terminal: one bar per stage, with the remaining time."""

from __future__ import annotations

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


class Stages:
    """`with Stages() as report: work(report)`; report(stage, done, total, remark).

    It writes to standard error, so that results on standard output can be piped. If standard error is not a terminal,
    it prints one line for each complete stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[remark]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: set[str] = set()

    def __call__(self, stage: str, done: int, total: int, remark: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, remark=remark)
        self._bars.update(self._tasks[stage], completed=done, total=total, remark=remark)
        if self._bars.disable and done >= total and stage not in self._printed:
            self._printed.add(stage)
            self._console.print(f"{stage}: {done}/{total} {remark}".rstrip(), markup=False)

    def __enter__(self) -> Stages:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
