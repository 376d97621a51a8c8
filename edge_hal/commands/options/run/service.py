"""Options of `edge-hal run` about the process: what it reports of itself, and the file of a station."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Service")

Metrics = Annotated[
    str | None,
    option(
        help="Serve /metrics for Prometheus and /health over HTTP on this address, for example 127.0.0.1:9570 "
        "(default: not served)."
    ),
]

Log = Annotated[
    str,
    option(
        help="Format of the log on standard error: human, json (one object per line), or auto (human on a "
        "terminal, else json)."
    ),
]

Json = Annotated[
    bool,
    option("--json", help="Print nothing but the summary, as one JSON object, when the run ends."),
]

Station = Annotated[
    Path | None,
    option(
        readable=False,
        help="Run several streams in one process, as this YAML file says (docs/stations.md). --pub, --replay, "
        "--metrics, --key, --allowed and --insecure replace its keys; other options belong in the file.",
    ),
]

Check = Annotated[
    bool,
    option(
        "--check", help="Check the options, or the file of --station, the bundles and video files, and run nothing."
    ),
]
