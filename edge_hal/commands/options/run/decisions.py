"""Options of `edge-hal run` about decisions: how sure, how early and how often."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Decisions")

Set = Annotated[
    list[str] | None,
    option(
        "--set",
        help="Replace a threshold of the bundle's decoder.json, for example decoder.decide_at=0.8. Repeat the "
        "option for several thresholds.",
    ),
]

Decide = Annotated[
    str | None,
    option(
        help="How sure a transition must be: fast, balanced or sure. `edge-hal export` prints what each costs "
        "(default: balanced)."
    ),
]

NowHz = Annotated[
    float,
    option(
        min=0,
        help="Most `now` reports per second of the stream: what most likely goes on at this moment. 0 sends none.",
    ),
]

DecideEvery = Annotated[
    int | None,
    option(
        min=1,
        help="Number of model ticks between two decisions (default: 1; in bundles before 0.3, the stride of the "
        "second level).",
    ),
]
