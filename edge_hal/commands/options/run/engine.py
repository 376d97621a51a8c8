"""Options of `edge-hal run` about what computes: the bundle, the engine, and the checks of both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Engine")

Task = Annotated[
    Path | None, typer.Argument(readable=False, help="Task folder: run its newest bundle, instead of --bundle.")
]

Bundle = Annotated[
    Path | None,
    option(readable=False, help="Folder that `edge-hal export` wrote, or a task folder (default: bundle)."),
]

Engine = Annotated[
    str,
    option(
        help="Engine that computes the model: onnxruntime, tensorrt, or auto (TensorRT if this machine can run it, "
        "else ONNX Runtime)."
    ),
]

Precision = Annotated[
    str | None,
    option(help="Stop with an error if the bundle is not of this precision: fp32, fp16 or int8 (default: accept any)."),
]

Threads = Annotated[
    int,
    option(min=1, help="Number of threads that ONNX Runtime computes with."),
]

Overload = Annotated[
    str | None,
    option(
        help="What happens when the machine is too slow. cut: skip ticks and publish a gap. lag: compute every "
        "tick, results come late (default: cut for cameras, lag for files)."
    ),
]

Selfcheck = Annotated[
    str | None,
    option(
        help="At this interval, for example 10m, compute the state of the model anew from recent frames and "
        "compare. A difference is logged and counted in health.selfcheck (default: never)."
    ),
]

AllowUncertified = Annotated[
    bool,
    option(
        "--allow-uncertified",
        help="Run a bundle although its certificate is missing, failed, or belongs to another manifest.",
    ),
]

Trusted = Annotated[
    Path | None,
    option(
        help="Folder of public signing keys (*.signer). A bundle that none of them signed, or that was changed "
        "since, is refused, also at a reload (default: signatures are not asked for)."
    ),
]
