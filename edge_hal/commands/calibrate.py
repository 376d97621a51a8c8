"""`edge-hal calibrate`: ranges and layers for int8, from recordings of the procedure."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.parsing import one_of
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.calib.calibration_set import CalibrationRecording
    from edge_hal.calib.confidence import Evidence
    from edge_hal.export.int8 import Calibration
    from edge_hal.model.model_file import Checkpoint

PRECISIONS, TARGETS = ("fp32", "fp16", "int8"), ("onnxruntime", "tensorrt")


def calibrate(
    data: Annotated[Path, typer.Argument(help="Folder with features/ or videos/; labels are not needed.")],
    ckpt: Annotated[Path, typer.Option(help="Run directory that `edge-hal train` wrote.")],
    split: Annotated[
        int | None, typer.Option(help="Only the valid part of this split, else its train part (default: all).")
    ] = None,
    target: Annotated[str, typer.Option(help="tensorrt: explicit Q/DQ; onnxruntime: dynamic, CPUs.")] = "tensorrt",
    work: Annotated[
        Path | None, typer.Option(help="Where ranges and search are kept (default: calibration/ in the run).")
    ] = None,
    rate_hz: Annotated[float | None, typer.Option(help="Rate of feature files (default: the run's).")] = None,
    budget_f1: Annotated[float, typer.Option(min=0, help="Points of F1@50 that a lower precision may cost.")] = 0.5,
    budget_within: Annotated[
        float, typer.Option(min=0, max=1, help="Share of transitions that must stay within one tick.")
    ] = 0.99,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Instead: make confidences probabilities, on labelled videos.")
    ] = False,
    part: Annotated[str, typer.Option(help="Of --confidence: valid or test, not trained on.")] = "valid",
    check: Annotated[
        str | None, typer.Option(help="Of --confidence: how well it does on this part, which it is not fitted on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure ranges and what each layer costs in int8; `export --precision int8` goes on from here.

    Interrupted, the same command goes on where it stopped. With --confidence a temperature is fitted instead,
    and every later export of the run uses it.
    """
    one_of("--target", target, TARGETS)
    one_of("--part", part, ("valid", "test"))
    if check is not None:
        one_of("--check", check, ("valid", "test"))
    require("torch", "safetensors", "onnx", "onnxscript")
    if confidence:
        fit_run(data, ckpt, split, part, check, as_json)
        return
    from edge_hal.calib.sensitivity import Budget
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import CALIBRATION
    from edge_hal.export.int8 import calibrate as measure
    from edge_hal.model.model_file import load_checkpoint

    checkpoint = load_checkpoint(ckpt)
    place = work or checkpoint.path / CALIBRATION
    try:
        with Stages() as report:
            recordings = read_folder(data, checkpoint, split, rate_hz, report)
            found = measure(checkpoint, recordings, target, place, report, Budget(budget_f1, budget_within))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(130) from None
    print(json.dumps(found.report) if as_json else describe(found, place))


def fit_run(data: Path, ckpt: Path, split: int | None, part: str, check: str | None, as_json: bool) -> None:
    """Fit the temperature on labelled videos; it and the reliability diagram go into the run directory."""
    from dataclasses import asdict

    from edge_hal.calib.confidence import draw, error_at, fit_confidence
    from edge_hal.calib.ranges import write_beside
    from edge_hal.commands.progress import Stages
    from edge_hal.export.bundle import CONFIDENCE
    from edge_hal.model.model_file import load_checkpoint

    if split is None:
        raise EdgeHalError("--confidence needs --split", "its videos must not have been trained on", exit_code=2)
    checkpoint = load_checkpoint(ckpt)
    with Stages() as report:
        names, evidence = labelled_evidence(data, checkpoint, split, part, report)
        found = fit_confidence(evidence)
        checked: dict[str, Any] = {}
        if check is not None:
            others = labelled_evidence(data, checkpoint, split, check, report)[1]
            before, after = (error_at(others, t) for t in (1.0, found.temperature))
            checked = {"check": {"part": check, "events": len(others), "ece_before": before, "ece_after": after}}
    place = checkpoint.path / CONFIDENCE
    told = {**asdict(found), "split": split, "part": part, "videos": names, **checked}
    write_beside(place, json.dumps(told, indent=1) + "\n")
    with contextlib.suppress(ImportError):  # a picture for people; the numbers are what counts
        draw(place.with_suffix(".png"), found)
    text = (
        f"temperature {found.temperature:g} from {found.events} events, {100 * found.right:.1f} % of them right:"
        f" expected calibration error {found.ece_before:.3f} -> {found.ece_after:.3f}\n"
    )
    if checked:
        text += f"on {len(others)} events of the {check} part: {before:.3f} -> {after:.3f}\n"
    print(json.dumps(told) if as_json else f"{text}kept in {place}; the next edge-hal export --ckpt {ckpt} uses it")


def labelled_evidence(
    data: Path, checkpoint: Checkpoint, split: int, part: str, report: Callable[[str, int, int, str], None]
) -> tuple[list[str], list[Evidence]]:
    """The videos of a part, and the decisions made on them with whether they were right."""
    import numpy as np

    from edge_hal.calib.confidence import collect
    from edge_hal.commands.evaluate import PARTS, run_config
    from edge_hal.commands.train import load_videos
    from edge_hal.features import encode_pictures
    from edge_hal.learning.data.recordings import read_recordings
    from edge_hal.model.one_pass import one_pass

    videos = load_videos(data, run_config(checkpoint.path, []), split, PARTS[part], with_labels=True)
    posteriors, labels = [], []
    recordings = read_recordings(videos, checkpoint.spec.model_hz, checkpoint.spec.encoder)
    for number, recording in enumerate(recordings):
        vectors = recording.inputs
        if checkpoint.encoder is not None:
            vectors = encode_pictures(checkpoint.encoder, np.asarray(vectors, np.uint8))
        made = one_pass(checkpoint.pyramid, checkpoint.front_end, np.asarray(vectors, np.float32))
        posteriors.append(made.outputs[0]["frame"].astype(np.float32))
        assert recording.labels is not None, "the videos were read with labels"
        labels.append(recording.labels)
        report(f"{part} part", number + 1, len(recordings), "")
    names = [video.name for video in videos.videos]
    return names, collect(posteriors, labels, checkpoint.decoder, checkpoint.spec)


def read_folder(
    folder: Path,
    checkpoint: Checkpoint,
    split: int | None,
    rate_hz: float | None,
    report: Callable[[str, int, int, str], None],
) -> list[CalibrationRecording]:
    """Recordings at the model's ticks, encoded as the device does; no transcript and no label is read.

    Of a split its valid part, where it has one: on what it was trained on a model is surer than it will be, and an
    int8 layer seems to cost less than it does.

    Raises:
        EdgeHalError: no recordings, an unknown rate, a damaged file, vectors of another size.
    """
    import numpy as np

    from edge_hal.calib.calibration_set import CalibrationRecording
    from edge_hal.features import encode_pictures, read_pictures
    from edge_hal.learning.data.dataset import ticks_of
    from edge_hal.learning.data.mstcn_files import index_media, open_array, probe_video, read_split

    spec = checkpoint.spec
    files = index_media(folder, "features" if spec.encoder is None else "video")
    part = "valid" if (folder / "splits" / f"valid.split{split}.bundle").is_file() else "train"
    names = sorted(files) if split is None else read_split(folder, split, part)
    missing = [name for name in names if name not in files]
    if missing:
        raise EdgeHalError(f"{folder} has no recording {missing[0]}", f"split {split} names it")
    known_hz = rate_hz or trained_rate_hz(checkpoint.path)
    recordings = []
    for number, name in enumerate(names):
        report("read", number, len(names), name)
        if spec.encoder is None or checkpoint.encoder is None:
            if known_hz is None:
                raise EdgeHalError("the rate of the feature files is not known", "", "give it: --rate-hz 30")
            stored = open_array(files[name])
            size = spec.front_end.size
            if size not in stored.shape:
                why = f"its array is {stored.shape}, the model takes vectors of {size}"
                raise EdgeHalError(f"the calibration recording {files[name]} is of the wrong size", why)
            rows = stored if stored.shape[1] == size else stored.T
            vectors = np.asarray(rows[ticks_of(len(rows), known_hz, spec.model_hz)], np.float32)
            recordings.append(CalibrationRecording(name, vectors))
        else:
            length, hz = probe_video(files[name], known_hz)
            if hz is None:
                raise EdgeHalError(f"the frame rate of {files[name]} is not known", "", "give it: --rate-hz 30")
            eye = spec.encoder
            pictures = read_pictures(files[name], ticks_of(length, hz, spec.model_hz), eye.height, eye.width)
            recordings.append(CalibrationRecording(name, encode_pictures(checkpoint.encoder, pictures), pictures))
    which = "all" if split is None else part
    report("read", len(names), len(names), f"{which}: {sum(r.ticks for r in recordings)} ticks")
    return recordings


def trained_rate_hz(run: Path) -> float | None:
    """The rate of feature files the run was trained with."""
    from edge_hal.config import load_config

    path = run / "config.yaml"
    return load_config(str(path), []).data.rate_hz if path.is_file() else None


def describe(found: Calibration, place: Path | None = None) -> str:
    """The report for people: each layer, its cost, the verdict."""
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
    return "\n".join([*lines, *([] if place is None else [f"kept in {place}"])])
