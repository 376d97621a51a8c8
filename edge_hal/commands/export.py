"""`edge-hal export`: a run directory in, a certified bundle out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.calibrate import PRECISIONS, TARGETS, read_folder
from edge_hal.commands.extras import require
from edge_hal.commands.parsing import one_of
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.bundle import Bundle


def export(
    ckpt: Annotated[Path, typer.Option(help="Run directory that `edge-hal train` wrote, or its model file.")],
    out: Annotated[Path, typer.Option(help="The bundle; one that is there is replaced.")] = Path("bundle"),
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    target: Annotated[
        str, typer.Option(help="Of int8: onnxruntime (dynamic, CPUs) or tensorrt (explicit Q/DQ).")
    ] = "onnxruntime",
    calib: Annotated[
        Path | None, typer.Option(help="Of int8: folder with features/ or videos/ of the procedure.")
    ] = None,
    split: Annotated[
        int | None, typer.Option(help="Of --calib: only the valid (else train) part of this split.")
    ] = None,
    rate_hz: Annotated[
        float | None, typer.Option(help="Of --calib: rate of feature files (default: the run's).")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Of int8: the --work of `edge-hal calibrate` (default: the run's calibration/).")
    ] = None,
    budget_f1: Annotated[float, typer.Option(min=0, help="Points of F1@50 that a lower precision may cost.")] = 0.5,
    budget_within: Annotated[
        float, typer.Option(min=0, max=1, help="Share of transitions that must stay within one tick.")
    ] = 0.99,
    reference: Annotated[
        Path | None, typer.Option(help="Vectors for the certificate, .npy or .npz (default: the run's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Export the graphs, prove that they compute what was trained, write the bundle."""
    one_of("--precision", precision, PRECISIONS)
    one_of("--target", target, TARGETS)
    if precision == "int8" and calib is None:
        raise EdgeHalError(
            "int8 needs recordings of the procedure", "", "give them: --calib DATA_DIR --split 1", exit_code=2
        )
    require("torch", "safetensors", "onnx", "onnxscript")
    from edge_hal.calib.sensitivity import Budget
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import export_bundle
    from edge_hal.model.model_file import load_checkpoint

    with Stages() as report:
        recordings = []
        if precision == "int8" and calib is not None:
            recordings = read_folder(calib, load_checkpoint(ckpt), split, rate_hz, report)
        bundle = export_bundle(
            ckpt,
            out,
            precision=precision,
            target=target,
            recordings=recordings,
            budget=Budget(budget_f1, budget_within),
            work=work,
            reference=reference,
            progress=report,
        )
    certificate = json.loads((bundle.path / "certificate.json").read_text())
    print(json.dumps(certificate) if as_json else _summary(bundle, certificate))


def _summary(bundle: Bundle, certificate: dict[str, Any]) -> str:
    from edge_hal.bundle import DEFAULT_PATH, expected_graphs

    spec, metrics = bundle.spec, certificate["metrics"]
    lines = [f"{bundle.path}:"]
    for name in expected_graphs(spec, bundle.precision):
        lines.append(f"  {name}  {(bundle.path / name).stat().st_size / 1024:.0f} KiB")
    lines.append(
        f"certified on {certificate['ticks']} ticks of {certificate['reference']} input"
        f" (the model sees {certificate['receptive_field']}, {spec.warm_s:.1f} s):"
    )
    lines += [
        f"  {check['name']}: max {check['max_abs']:.1e}" if "max_abs" in check else f"  {check['name']}"
        for check in certificate["checks"]
    ]
    quantised = bundle.provenance.get("quantisation")
    if quantised is not None:
        layers = quantised["layers"].values()
        chosen = sum(layer["verdict"] == "int8" for layer in layers)
        lines.append(
            f"  int8 ({quantised['method']}, for {bundle.target}): {chosen} of {len(layers)} layers;"
            f" {quantised['shift']['moved']} of {quantised['shift']['transitions']} transitions moved in calibration"
        )
    lines.append(
        f"  frames that agree: {100 * metrics['frame_agreement']:.2f} %,"
        f" {metrics['transitions']} transitions, shifted by {metrics['shift_ticks_max']} ticks at most"
    )
    where = "" if bundle.path == DEFAULT_PATH else f" --bundle {shlex.quote(str(bundle.path))}"
    return "\n".join([*lines, f"next: edge-hal run{where} --camera 0"])
