"""`edge-hal calibrate`: value ranges and int8 layers from recordings, or the temperatures of the confidences."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.calibration_inputs import labelled_posteriors, read_folder
from edge_hal.commands.options.parsing import one_of, only_with
from edge_hal.commands.options.task import run_of
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import is_task

if TYPE_CHECKING:
    from edge_hal.calib.sensitivity import Budget
    from edge_hal.export.int8 import Calibration

PRECISIONS, INT8_TARGETS = ("fp32", "fp16", "int8"), ("onnxruntime", "tensorrt")
"""The first of each is the default, of `calibrate` as of `export`: what was calibrated is what is exported."""


def calibrate(
    data: Annotated[
        Path,
        typer.Argument(
            readable=False,
            help="Task folder, or another folder with features/ or videos/. Frame labels are needed only with "
            "--confidence.",
        ),
    ],
    ckpt: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Run directory that `edge-hal train` wrote, its model file, or a task folder (default: the newest "
            "run of the task folder).",
        ),
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(
            help="Use only this split: its valid part, or its train part if it has no valid part (default: all "
            "recordings)."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Engine for the int8 graphs. onnxruntime: dynamic quantisation for CPUs. tensorrt: explicit Q/DQ "
            "nodes for GPUs (default: onnxruntime, as for `edge-hal export`)."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder for the ranges and the state of the search (default: calibration/ in the run directory).",
        ),
    ] = None,
    rate_hz: Annotated[
        float | None,
        typer.Option(help="Vectors per second of the feature files (default: the rate the run was trained with)."),
    ] = None,
    budget_f1: Annotated[
        float | None,
        typer.Option(min=0, help="Largest loss of F1@50, in points of 100, that int8 may cause (default: 0.5)."),
    ] = None,
    budget_within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Smallest share of the transitions, 0 to 1, that int8 may move by at most one tick (default: 0.99).",
        ),
    ] = None,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence",
            help="Fit the temperatures that make the confidence of an event, and the probability in reports `now`, "
            "true probabilities, on labelled videos. Nothing is quantised.",
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            help="With --confidence: the part of the split to fit on, valid or test (default: valid; of a task "
            "folder test)."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="With --confidence: also measure the calibration error on this part, valid or test (default: not "
            "measured)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Measure the range of each tensor and the cost of each layer in int8, for `edge-hal export --precision int8`.

    An interrupted calibration continues when the same command is run again. With --confidence, temperatures
    are fitted instead, and later exports of the run use them.
    """
    if confidence:
        int8 = {"--target": target, "--work": work, "--rate-hz": rate_hz}
        int8 |= {"--budget-f1": budget_f1, "--budget-within": budget_within}
        for option, value in int8.items():
            if value is not None:
                why = "--confidence quantises nothing"
                raise EdgeHalError(f"{option} with --confidence", why, f"leave {option} out", exit_code=2)
    else:
        only_with("--confidence", {"--part": part is not None, "--check": check is not None})
    tested = confidence and split is None and is_task(data)  # a task folder has no splits, and no valid part
    target, part = target or INT8_TARGETS[0], part or ("test" if tested else "valid")
    one_of("--target", target, INT8_TARGETS)
    one_of("--part", part, ("valid", "test"))
    if check is not None:
        one_of("--check", check, ("valid", "test"))
    require("torch", "safetensors", "onnx", "onnxscript")
    ckpt = run_of(ckpt, data)
    if confidence:
        fit_run(data, ckpt, split, part, check, as_json)
        return
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import CALIBRATION
    from edge_hal.export.int8 import calibrate as measure
    from edge_hal.model.model_file import load_checkpoint

    checkpoint = load_checkpoint(ckpt)
    place = work or checkpoint.path / CALIBRATION
    try:
        with Stages() as report:
            recordings = read_folder(data, checkpoint, split, rate_hz, report)
            found = measure(checkpoint, recordings, target, place, report, make_budget(budget_f1, budget_within))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(130) from None
    print(json.dumps(found.report) if as_json else describe(found, place))
    if as_json:
        require_written()


def fit_run(data: Path, ckpt: Path, split: int | None, part: str, check: str | None, as_json: bool) -> None:
    """Fit the temperatures on labelled videos; write them and the reliability diagram into the run directory."""
    from dataclasses import asdict

    from edge_hal.calib.confidence import collect, collect_now, draw, error_at, fit_confidence
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import CONFIDENCE
    from edge_hal.files import check_writable, write_file
    from edge_hal.model.model_file import load_checkpoint
    from edge_hal.task_file import read_task

    task = read_task(data) if split is None else None
    if split is None and (task is None or not task.file.test):
        todo = (
            "name videos in task.yaml, `test: [...]`, label them and train again" if is_task(data) else "give --split"
        )
        why = "the model must not have been trained on the videos"
        raise EdgeHalError("--confidence has no videos to fit on", why, todo, exit_code=2)
    checkpoint = load_checkpoint(ckpt)
    decoder, spec, place = checkpoint.decoder, checkpoint.spec, checkpoint.path / CONFIDENCE
    check_writable(place)
    with Stages() as report:
        names, posteriors, labels = labelled_posteriors(data, checkpoint, split, part, report)
        found = fit_confidence(collect(posteriors, labels, decoder, spec))
        reports = collect_now(posteriors, labels, decoder, spec)
        now = fit_confidence(reports) if reports else None
        checked: dict[str, Any] = {}
        if check is not None:
            _, posteriors, labels = labelled_posteriors(data, checkpoint, split, check, report)
            others = collect(posteriors, labels, decoder, spec)
            before, after = (error_at(others, t) for t in (1.0, found.temperature))
            checked = {"part": check, "events": len(others), "ece_before": before, "ece_after": after}
            if now is not None:
                reports = collect_now(posteriors, labels, decoder, spec)
                errors = [error_at(reports, t) for t in (1.0, now.temperature)]
                checked["now"] = dict(zip(("ece_before", "ece_after"), errors, strict=True))
    fitted = {**asdict(found), "now": None if now is None else asdict(now), "split": split, "part": part}
    fitted |= {"videos": names, **({"check": checked} if checked else {})}
    write_file(place, json.dumps(fitted, indent=1) + "\n")
    with contextlib.suppress(ImportError):  # without matplotlib only the picture is missing
        draw(place.with_suffix(".png"), found)
    text = (
        f"temperature {found.temperature:g} from {found.events} events, {100 * found.right:.1f} % of them right:"
        f" expected calibration error {found.ece_before:.3f} -> {found.ece_after:.3f}\n"
    )
    if checked:
        text += f"on {checked['events']} events of the {check} part: {before:.3f} -> {after:.3f}\n"
    if now is not None:
        text += (
            f"temperature {now.temperature:g} of the reports `now`, from one a second, {100 * now.right:.1f} % of them"
            f" right: expected calibration error {now.ece_before:.3f} -> {now.ece_after:.3f}\n"
        )
    if checked and now is not None:
        text += "on those of the {} part: {:.3f} -> {:.3f}\n".format(check, *errors)
    again = shlex.join(["edge-hal", "export", "--ckpt", str(ckpt)])
    print(json.dumps(fitted) if as_json else f"{text}written to {place}; the next {again} uses it")
    if as_json:
        require_written()


def make_budget(f1_points: float | None, within: float | None) -> Budget:
    """The allowed loss of a lower precision; None takes the default."""
    from edge_hal.calib.sensitivity import Budget

    default = Budget()
    return Budget(default.f1_points if f1_points is None else f1_points, default.within if within is None else within)


def describe(found: Calibration, place: Path | None = None) -> str:
    """The report as text: each layer, its cost, and whether it stays int8."""
    report: dict[str, Any] = found.report
    shift, budget = report["shift"], report["budget"]
    lines = [f"{'layer':28s} {'verdict':8s} {'moved':>6s} {'F1@50':>7s} {'posterior RMS':>14s}"]
    for name, cost in report["layers"].items():
        lines.append(
            f"{name:28s} {cost['verdict']:8s} {cost['moved']:6d} {cost['f1_50']:7.2f} {cost['posterior_rms']:14.5f}"
        )
    lines.append(
        f"together ({report['method']} ranges, {report['ticks']} ticks): {shift['moved']} of {shift['transitions']}"
        f" transitions moved, F1@50 {shift['f1_50']:.2f} against float32"
        f" (budget: {100 * budget['within']:g} % within {budget['ticks']} tick, {budget['f1_points']:g} points)"
    )
    return "\n".join([*lines, *([] if place is None else [f"written to {place}"])])
