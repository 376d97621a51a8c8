"""`edge-hal fuse`: how much each of several views of one procedure counts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError

EXAMPLE = "edge-hal fuse left=runs/left right=runs/right"


def fuse(
    views: Annotated[
        list[str],
        typer.Argument(metavar="VIEW=RUN_DIR...", help="Name of each view, and the run that was trained on it."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print weights and scores as one JSON object.")] = False,
) -> None:
    """Fit how much each view of one procedure counts, and print the line for `station.yaml`.

    The views are trained separately, on videos of the same sessions with the same names. The weights are fitted on
    those that were held out, with the labels of the alignments.
    """
    from edge_hal.calib.fit_fusion import fit_fusion
    from edge_hal.calib.held_out_file import read_held_out
    from edge_hal.runtime.station.options import check_name

    runs: dict[str, Path] = {}
    for word in views:
        name, given, run = word.partition("=")
        if not (name and given and run) or name in runs:
            why = "a view stands twice" if name in runs else "a view is NAME=RUN_DIR"
            raise EdgeHalError(f"'{word}'", why, f"write {EXAMPLE}", exit_code=2)
        check_name(name)
        runs[name] = Path(run)
    if len(runs) < 2:
        raise EdgeHalError("one view has nothing to be combined with", "", f"write {EXAMPLE}", exit_code=2)
    fitted = fit_fusion({name: read_held_out(run) for name, run in runs.items()})
    if as_json:
        print(json.dumps(asdict(fitted)))
        require_written()
        return
    alone = ", ".join(f"{name} {100 * share:.1f} %" for name, share in fitted.right_alone.items())
    print(f"ticks right by the alignments of {fitted.videos} held out videos: {alone},")
    print(f"equal weights {100 * fitted.right_equal:.1f} %, these {100 * fitted.right_fitted:.1f} %")
    print(f"weights: {{{', '.join(f'{name}: {weight:g}' for name, weight in fitted.weights.items())}}}")
    require_written()
