"""Options of `edge-hal run` about recording: what is recorded of the source, and where."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Recording")

Record = Annotated[
    Path | None,
    option(
        readable=False,
        help="Record the frames that the model sees, and their times, in this new folder. `edge-hal replay FOLDER` "
        "runs them again.",
    ),
]

RecordAround = Annotated[
    str | None,
    option(
        help="Keep only recordings this close to a transition, deviation or gap, within a total size: 2m,2GB "
        "(default: the whole run is recorded)."
    ),
]

RecordPictures = Annotated[
    str,
    option(
        help="encoder: record pictures at the size that the model sees. source: also those of the source, as JPEG, so "
        "that `edge-hal harvest` can make training videos of them. They show people as the camera does."
    ),
]
