"""`edge-hal init`: an empty task folder."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.encoder_kind import AUTO, OWN
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_writable, file_error, write_file
from edge_hal.task_folder import TASK_FILE

FOLDERS, README_FILE = ("videos", "transcripts", "labels"), "README.md"

TASK = """\
# What edge-hal should know about this task. All keys are optional; `edge-hal check` checks them.

# The steps, in the order of their numbers (default: those of transcripts/, in alphabetical order).
# steps: [pick, place, screw]

# The step that means that no step goes on.
# background: idle

# Videos that are not trained on, without suffix: `edge-hal eval` scores them.
# test: [monday_3, tuesday_1]

# Videos in which the procedure was not followed: their steps are learned, their order is not.
# mistakes: [friday_2]

# Frames per second of video files without time stamps.
# rate_hz: 30

# What turns pictures into vectors: own, or a pretrained encoder. `edge-hal encoders` lists them.
# {why}.
encoder: {encoder}

# A preset (tiny, jetson), or a YAML file in this folder (default: tiny for videos).
# config: tiny

# The run, or the task folder, whose model the training begins with.
# init: ../other-task

# Keys of the configuration that are replaced, as with `edge-hal train --set`.
# settings:
#   model.baseline_s: 8          # the stream comes from another place or camera than these videos
#   model.encoder.moving_s: 8    # a pretrained encoder must notice mistakes, and hands do not rest for long
"""

README = """\
# {name}

- `videos/`: one file for each recording of the whole procedure.
- `transcripts/VIDEO.txt`: its steps, one a line, in the order in which they happen.
- `labels/VIDEO.txt`: optional, one step for each frame. Training and scores use them.
- `task.yaml`: steps, test videos, settings. All optional.

    edge-hal check {path}        # what is missing, what will go wrong, how long training takes
    edge-hal train {path}        # writes runs/1, runs/2, ...; the same command continues an interrupted run
    edge-hal export {path}       # writes the bundle of the newest run
    edge-hal run {path} --camera 0
"""


def init(
    folder: Annotated[Path, typer.Argument(readable=False, help="New or empty folder for a task.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="Frame encoder for task.yaml, as in `edge-hal train --encoder`. auto measures once, here, whether a "
            "pretrained one is fast enough."
        ),
    ] = AUTO,
) -> None:
    """Make a task folder: places for videos, step lists and labels, and a commented task.yaml."""
    from edge_hal.encoder_kind import parse_kind

    if encoder != AUTO:
        parse_kind(encoder)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            todo = "name a new or an empty folder"
            raise EdgeHalError(f"{folder} is not empty", "init overwrites nothing", todo, exit_code=2)
        check_writable(folder, f"cannot make {folder}", "name another folder")
        why = "Chosen with --encoder"
        if encoder == AUTO:  # it takes seconds, and an interrupted one leaves no folder
            encoder, why = _measured()
        with _removed_on_failure(folder):
            for name in FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            path = shlex.quote(str(folder))
            write_file(folder / README_FILE, README.format(name=folder.resolve().name, path=path))
            write_file(folder / TASK_FILE, TASK.format(encoder=encoder, why=why))
    except OSError as error:
        raise file_error(f"cannot make {folder}", error, "name another folder", path=folder) from error
    print(f"encoder: {encoder}. {why}.")
    print(f"{folder}: put videos into videos/ and their step lists into transcripts/")
    print(f"next: edge-hal check {path}")


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove what was made in a new or empty folder if the `with` block fails: init refuses a folder that is not empty,
    and would refuse its own remains."""
    was_there = folder.is_dir()
    try:
        yield
    except BaseException:
        for name in (README_FILE, TASK_FILE):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # whatever somebody put there meanwhile stays
            for name in FOLDERS:
                (folder / name).rmdir()
            if not was_there:
                folder.rmdir()
        raise


def _measured() -> tuple[str, str]:
    """The encoder for this machine, and why."""
    try:
        require("torch", "onnx", "onnxscript")
    except EdgeHalError as error:
        return OWN, f"Nothing was measured: {error.what}"
    from edge_hal.evaluation.encoder_costs import BUDGET_MS, within_budget

    encoder, why = within_budget(BUDGET_MS)
    return encoder, f"{why[0].upper()}{why[1:]}"
