"""Options of the commands that stream a run over labelled videos: `eval` and `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LabelledData = Annotated[
    Path,
    typer.Argument(
        readable=False, help="Task folder, or another folder with features/ or videos/, and with frame labels."
    ),
]
RunOfTask = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="Run directory that `edge-hal train` wrote, or a task folder (default: the newest run of the task "
        "folder).",
    ),
]
