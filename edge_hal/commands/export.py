"""`edge-hal export`: a run directory in, a certified bundle out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require

if TYPE_CHECKING:
    from edge_hal.bundle import Bundle


def export(
    ckpt: Annotated[Path, typer.Option(help="Run directory that `edge-hal train` wrote, or its model file.")],
    out: Annotated[Path, typer.Option(help="The bundle; one that is there is replaced.")] = Path("bundle"),
    reference: Annotated[
        Path | None, typer.Option(help="Vectors for the certificate, .npy or .npz (default: the run's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Export the graphs, prove that they compute what was trained, write the bundle."""
    require("torch", "safetensors", "onnx", "onnxscript")
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import export_bundle

    with Stages() as report:
        bundle = export_bundle(ckpt, out, reference=reference, progress=report)
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
    lines.append(
        f"  frames that agree: {100 * metrics['frame_agreement']:.2f} %,"
        f" {metrics['transitions']} transitions, shifted by {metrics['shift_ticks_max']} ticks at most"
    )
    where = "" if bundle.path == DEFAULT_PATH else f" --bundle {shlex.quote(str(bundle.path))}"
    return "\n".join([*lines, f"next: edge-hal run{where} --camera 0"])
