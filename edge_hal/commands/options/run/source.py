"""Options of `edge-hal run` about the source: which one, how it is read, and what happens when no frame comes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Source")

Camera = Annotated[
    str,
    option(
        help="The source of frames: a camera index (0), rtsp://..., http://..., gst:PIPELINE, csi:0, a video file, "
        "a folder of pictures, or feature vectors as features:FILE.npy@HZ. fault:SCRIPT:SOURCE simulates failures "
        "of a source."
    ),
]

CameraAuth = Annotated[
    Path | None,
    option(
        readable=False,
        help="File with one line USER:PASSWORD for the camera's address. Without it the environment variable "
        "EDGE_HAL_CAMERA_AUTH is read.",
    ),
]

Size = Annotated[
    str | None,
    option(help="Request this frame size in pixels from the camera, for example 1280x720 (default: the camera's own)."),
]

Fps = Annotated[
    float | None,
    option(
        help="Frames per second. It is requested from a camera, and replaces the rate written in a video file "
        "(default: the source's own)."
    ),
]

Fourcc = Annotated[
    str | None, option(help="Request this pixel format from the camera, for example MJPG (default: the camera's own).")
]

Pace = Annotated[
    str,
    option(
        help="How fast a file is read. realtime: at its own frame rate, frames that come too fast are dropped. "
        "asap: as fast as possible, no frame is dropped."
    ),
]

MaxHoldMs = Annotated[
    float,
    option(
        help="Longest time in milliseconds for which the last frame is repeated when no new one comes. After it a "
        "gap is published and the model starts afresh."
    ),
]

Stall = Annotated[
    str, option(help="Open the camera again when it has delivered no frame for this long, for example 5s or 500ms.")
]

Still = Annotated[
    str,
    option(
        help="Open the camera again when its picture has not changed in any bit for this long. 0 disables the check."
    ),
]

Resume = Annotated[
    str,
    option(
        help="After a pause of a camera that is no longer than this, go on with what was believed before it, and with "
        "the steps that were done: after a gap, and after a restart with the same journal. At most 10m; 0 resumes "
        "nothing."
    ),
]

GiveUp = Annotated[
    str | None,
    option(
        help="Stop with exit code 1 when the camera has delivered no frame for this long, for example 10m "
        "(default: try for ever)."
    ),
]

Seconds = Annotated[
    float | None,
    option(help="Stop after this many seconds of the stream (default: run until the source ends or a signal comes)."),
]
