"""`edge-hal export`: make a certified bundle for devices from a run directory."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.calibrate import INT8_TARGETS, PRECISIONS, make_budget
from edge_hal.commands.extras import require
from edge_hal.commands.options.calibration_inputs import read_folder
from edge_hal.commands.options.parsing import one_of, only_with
from edge_hal.commands.options.task import run_of
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import BUNDLE, TASK_FILE, is_task, newest_bundle

if TYPE_CHECKING:
    from edge_hal.bundle import Bundle
    from edge_hal.decoding.decoder_config import DecoderConfig


def export(
    ckpt: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Run directory that `edge-hal train` wrote, its model file, or a task folder."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder of the bundle. An old one is replaced (default: bundle; of a task folder, bundle in the run).",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Number format of the graphs: fp32, fp16 or int8.")] = "fp32",
    target: Annotated[
        str | None,
        typer.Option(
            help="With int8: the engine for the graphs, onnxruntime (dynamic quantisation, CPUs) or tensorrt "
            "(explicit Q/DQ nodes, GPUs) (default: onnxruntime)."
        ),
    ] = None,
    calib: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="With int8: folder with features/ or videos/ of the procedure, to calibrate on."
        ),
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(
            help="With int8: use only this split of --calib, its valid part, or its train part if it has no valid "
            "part (default: all recordings)."
        ),
    ] = None,
    rate_hz: Annotated[
        float | None,
        typer.Option(
            help="With int8: vectors per second of the feature files in --calib (default: the rate the run was "
            "trained with)."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="With int8: folder that `edge-hal calibrate --work` wrote (default: calibration/ in the run "
            "directory).",
        ),
    ] = None,
    budget_f1: Annotated[
        float | None,
        typer.Option(min=0, help="With fp16 or int8: largest loss of F1@50, in points of 100 (default: 0.5)."),
    ] = None,
    budget_within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="With fp16 or int8: smallest share of the transitions, 0 to 1, that may move by at most one tick "
            "(default: 0.99).",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Input vectors to check the graphs on, a .npy or .npz file (default: vectors of the training, kept "
            "in the run directory).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as one JSON object.")] = False,
    task: Annotated[Path | None, typer.Argument(readable=False, help="Task folder: export its newest run.")] = None,
) -> None:
    """Export the graphs of a run, check that they compute the same as the trained model, and write the bundle."""
    one_of("--precision", precision, PRECISIONS)
    int8 = {"--target": target, "--calib": calib, "--split": split, "--rate-hz": rate_hz, "--work": work}
    if precision != "int8":
        only_with("--precision int8", {option: value is not None for option, value in int8.items()})
    if precision == "fp32":
        budgets = {"--budget-f1": budget_f1, "--budget-within": budget_within}
        only_with("--precision fp16 or int8", {option: value is not None for option, value in budgets.items()})
    target = target or INT8_TARGETS[0]
    one_of("--target", target, INT8_TARGETS)
    if task is not None and ckpt is not None:
        raise EdgeHalError("TASK and --ckpt", "both name what to export", "give one of them", exit_code=2)
    given = task or ckpt
    if given is None:
        raise EdgeHalError("nothing to export", "", "give a task folder, or --ckpt RUN", exit_code=2)
    if task is not None and not is_task(task):
        todo = f"a run directory is given as --ckpt {shlex.quote(str(task))}"
        raise EdgeHalError(f"{task} is no task folder", f"it has no {TASK_FILE}", todo, exit_code=2)
    if precision == "int8" and calib is None and is_task(given):
        calib = given
    if precision == "int8" and calib is None:
        raise EdgeHalError(
            "int8 needs recordings of the procedure", "", "give them: --calib DATA_DIR --split 1", exit_code=2
        )
    require("torch", "safetensors", "onnx", "onnxscript")
    from edge_hal.bundle import DEFAULT_PATH
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import export_bundle
    from edge_hal.model.model_file import load_checkpoint

    ckpt = run_of(given, given)
    out = out or (ckpt / BUNDLE if ckpt != given else DEFAULT_PATH)
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
            budget=make_budget(budget_f1, budget_within),
            work=work,
            reference=reference,
            progress=report,
        )
    certificate = json.loads((bundle.path / "certificate.json").read_text())
    print(json.dumps(certificate) if as_json else _summary(bundle, certificate, task))
    if as_json:
        require_written()


def curve_lines(decoder: DecoderConfig) -> list[str]:
    """The curve of `--decide`, one line for each point. Settings that coincide share a point."""
    from edge_hal.decoding.decision_scores import COLUMNS, Column, shown

    if not decoder.curve:
        return []
    columns = {column: max(8, len(column.heading) + 2) for column in (Column("decide_at", "at", 0, 3), *COLUMNS)}
    heads = "".join(f"{column.heading:>{width}}" for column, width in columns.items())
    lines = ["--decide, on held-out training videos:", f"  {'':20}{heads}"]
    for row in decoder.curve:
        names = ", ".join(name for name, value in decoder.patience.items() if value == row.get("decide_at"))
        cells = (f"{shown(row.get(column.key), column.digits):>{width}}" for column, width in columns.items())
        lines.append(f"  {names:20}{''.join(cells)}")
    return lines


def _summary(bundle: Bundle, certificate: dict[str, Any], task: Path | None) -> str:
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
    lines += curve_lines(bundle.decoder)
    where = "" if bundle.path == DEFAULT_PATH else f" --bundle {shlex.quote(str(bundle.path))}"
    with contextlib.suppress(EdgeHalError):  # with --out the task may have no bundle
        if task is not None and newest_bundle(task) == bundle.path:
            where = f" {shlex.quote(str(task))}"
    return "\n".join([*lines, f"next: edge-hal run{where} --camera 0"])
