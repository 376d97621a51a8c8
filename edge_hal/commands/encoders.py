"""`edge-hal encoders`: the frame encoders that can be used here, and what each costs on this machine."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.evaluation.encoder_costs import EncoderCosts


def encoders(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...",
            help="Encoders to measure, for example efficientnet-lite0@224 or onnx:FILE (default: those that are here).",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A key of the encoder, for example weights=FILE or layout=NHWC. Repeat it for more."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the encoders as one JSON array.")] = False,
) -> None:
    """List frame encoders with vector size, file size, time for a frame on one thread, multiply-adds and licence."""
    require("torch", "onnx", "onnxscript")
    from edge_hal.config import load_config
    from edge_hal.encoder_kind import LIBRARIES, LITE, OWN
    from edge_hal.evaluation.encoder_costs import measure

    keys = [f"model.encoder.{each}" for each in settings or []]
    rows: list[dict[str, Any]] = []
    for kind in kinds or (OWN, *LITE):
        try:
            config = load_config("tiny", [f"model.encoder.kind={kind}", *keys])
            assert config.model.encoder is not None
            rows.append(row(measure(config.model.encoder)))
        except EdgeHalError as error:
            if kinds:
                raise
            rows.append({"kind": kind, "missing": error.todo})
    if not kinds:
        for library in LIBRARIES:
            here = importlib.util.find_spec(library) is not None
            todo = "give a model and its weights (docs/encoders.md)" if here else f"pip install {library}"
            rows.append({"kind": f"{library}:NAME", "missing": todo})
    if as_json:
        print(json.dumps(rows))
        require_written()
        return
    print(f"{'encoder':32s}{'picture':>10s}{'vector':>8s}{'MB':>7s}{'ms':>8s}{'M mult-adds':>13s}  licence")
    for each in rows:
        if "missing" in each:
            print(f"{each['kind']:32s}  {each['missing']}")
        else:
            picture = f"{each['height']}x{each['width']}"
            print(
                f"{each['kind']:32s}{picture:>10s}{each['size']:8d}{each['mb']:7.1f}{each['ms']:8.2f}"
                f"{each['multiply_adds'] / 1e6:13.1f}  {each['licence']}"
            )
    require_written()


def row(costs: EncoderCosts) -> dict[str, Any]:
    spec = costs.spec
    return {
        "kind": costs.kind,
        "height": spec.height,
        "width": spec.width,
        "size": spec.size,
        "mb": round(costs.bytes / 1e6, 2),
        "ms": round(costs.ms, 3),
        "multiply_adds": costs.multiply_adds,
        "licence": costs.licence,
    }
