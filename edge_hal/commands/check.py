"""`edge-hal check`: what can be known of videos and step lists before anybody waits for a training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import visible

if TYPE_CHECKING:
    from edge_hal.learning.data.check_videos import Problem


def check(
    data: Annotated[
        Path, typer.Argument(readable=False, help="Task folder, or another folder with features/ or videos/.")
    ],
    split: Annotated[
        int | None, typer.Option(help="Check the train part of this split, and what it shares with the others.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Preset or YAML file of the training (default: as `edge-hal train` chooses it).")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Frame encoder, as in `edge-hal train`, but not `auto`.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a key of the configuration, as in `edge-hal train`. Repeatable."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(readable=False, help="The run that the training will begin with, as in `edge-hal train`."),
    ] = None,
    accept_damaged: Annotated[
        bool, typer.Option("--accept-damaged", help="Accept video files that lack frames, as in `edge-hal train`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Check videos, step lists and settings, and estimate what a training costs.

    The exit code is 1 if training cannot work, else 0, with warnings.
    """
    from edge_hal.calib.fit_decoder import check_given
    from edge_hal.commands.options.train_inputs import choose_config, parent_of
    from edge_hal.learning.data.examine import examine

    overrides = [*(settings or []), *([] if encoder is None else [f"model.encoder.kind={encoder}"])]
    parent = parent_of(data, init)
    chosen, graph = choose_config(data, config, overrides, None if parent is None else parent.model), None
    check_given(chosen.decoder.given())
    chosen.check()
    if parent is not None:
        parent.check_encoder(chosen.model.encoder)
    with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:
        if chosen.model.encoder is not None and chosen.model.encoder.pretrained:
            require("torch", "onnx", "onnxscript")
            from edge_hal.learning.encoders.choose import open_pretrained
            from edge_hal.learning.encoders.pretrained import with_sizes

            chosen_encoder, graph = chosen.model.encoder, Path(folder, "encoder.onnx")
            pretrained = open_pretrained(chosen_encoder) if parent is None else parent.encoder(chosen_encoder.kind)
            pretrained.write(graph)
            chosen = with_sizes(chosen, pretrained)
        begins = None if parent is None else parent.check_config
        report = examine(data, chosen, split, graph, accept_damaged=accept_damaged, check_config=begins)
    if as_json:
        print(json.dumps(report.to_dict()))
        require_written()
    else:
        print_table(report.rows, report.problems)
    errors = [problem for problem in report.problems if problem.level == "error"]
    if errors:
        others = len(errors) - 1
        more = "" if not others else f", and {others} more error{'' if others == 1 else 's'}"
        raise EdgeHalError("training cannot work", f"{errors[0].what}{more}", errors[0].todo)


def print_table(rows: Mapping[str, str], problems: Sequence[Problem]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, visible(str(value)))
    console = Console(highlight=False, markup=False, emoji=False)  # steps and paths may hold square brackets
    console.print(table)
    for problem in problems:
        console.print(f"{problem.level}: {visible(problem.what)}", soft_wrap=True)
        if problem.todo:
            console.print(f"  -> {visible(problem.todo)}", soft_wrap=True)
