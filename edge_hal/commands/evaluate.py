"""`edge-hal eval`: scores of a run on labelled videos, beside a lower bound and a fully supervised run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.labelled import LabelledData, RunOfTask
from edge_hal.commands.options.parsing import one_of
from edge_hal.commands.options.task import run_of
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_place, replacing
from edge_hal.plotting import FORMATS
from edge_hal.task_folder import is_task

if TYPE_CHECKING:
    from rich.table import Table

    from edge_hal.commands.progress import Stages
    from edge_hal.config import Config

Scores = dict[str, Any]

PARTS: dict[str, Literal["train", "valid", "test"]] = {"train": "train", "valid": "valid", "test": "test"}
ROWS = (
    ("mof", "frames right, %"),
    ("mof_bg", "frames right without background, %"),
    ("mof_live", "frames right as shown live, %"),
    ("mof_now", "frames right by the reports `now`, %"),
    ("now_changes_per_min", "changes of `now` per minute"),
    ("now_ece", "calibration error of the probability in `now`, %"),
    ("pos", "order of completed steps (POS)"),
    ("completion_f1", "completed steps F1"),
    ("completion_delay_s", "delay of completed steps, s (mean)"),
    ("edit", "edit score, %"),
    ("f1_10", "segments F1@10, %"),
    ("f1_25", "segments F1@25, %"),
    ("f1_50", "segments F1@50, %"),
    ("transition_f1", "transition F1 within 1 s"),
    ("delay_s_median", "detection delay, s (median)"),
    ("boundary_error_s_median", "boundary error, s (median)"),
    ("false_per_min", "false transitions per minute"),
)


def evaluate(
    data: LabelledData,
    ckpt: RunOfTask = None,
    split: Annotated[
        int | None, typer.Option(help="Score a part of this split, for example 1 (default: all videos).")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Part of the split to score: train, valid or test (default: test, or train with --stage alignment)."
        ),
    ] = None,
    full: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Run directory of a fully supervised training, scored beside as an upper bound."
        ),
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            help="What to score. stream: the transitions as a device would publish them. alignment: the labels that "
            "the training found for its own videos."
        ),
    ] = "stream",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a data key of the run or a threshold of its decoder: data.rate_hz=30, "
            "decoder.confirm_s=0.4. Repeat the option for several keys.",
        ),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Picture to write, .png or .svg: scores over the delay, for every probability at which a change may "
            "be decided.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON object.")] = False,
) -> None:
    """Score a run on labelled videos, streamed as on a device.

    The column `floor` is a lower bound: the true step list of each video, every step given the same time.
    """
    one_of("--stage", stage, ("stream", "alignment"))
    everything = split is None and not is_task(data)
    if everything and part == "valid":
        why = f"{data} is no task folder, whose parts are known, so all videos would be scored"
        raise EdgeHalError("--part valid without --split", why, "give the split: --split 1", exit_code=2)
    part = part or ("test" if stage == "stream" else "train")
    one_of("--part", part, PARTS)
    settings = settings or []
    if curve is not None:
        if stage == "alignment":
            raise EdgeHalError("--curve with --stage alignment", "nothing is decoded", exit_code=2)
        if curve.suffix.lower() not in FORMATS:
            raise EdgeHalError(f"--curve {curve}", "the picture is .png or .svg", exit_code=2)
        require("matplotlib")
        check_place(curve, todo="choose another --curve")
    check_settings(settings, stage)
    require("torch", "safetensors")
    from edge_hal.commands.options.train_inputs import load_videos, print_notes
    from edge_hal.commands.progress import Stages
    from edge_hal.evaluation.alignment_scores import alignment_scores
    from edge_hal.evaluation.checkpoint_scores import stream_checkpoint, stream_scores
    from edge_hal.evaluation.decision_curve import decision_curve, draw_curve
    from edge_hal.evaluation.scores import floor_scores
    from edge_hal.learning.data.video_cache import cache_of
    from edge_hal.learning.data.video_set import with_labels_of
    from edge_hal.model.model_file import load_checkpoint

    ckpt = run_of(ckpt, data)
    for path in (ckpt, full):
        if path is not None:
            load_checkpoint(path)  # so that a damaged one fails before minutes of work
    config = run_config(ckpt, settings)
    replaced = {key.partition("=")[0] for key in settings}
    thresholds = {name: value for name, value in config.decoder.given().items() if f"decoder.{name}" in replaced}
    videos = load_videos(data, config, split, PARTS[part], with_labels=True)
    if everything and stage == "stream":
        print_notes([f"all videos of {data} are scored, and the model may have been trained on them: see --split"])
    cache = None if config.model.encoder is None else cache_of(data)
    scores: dict[str, Scores] = {"floor": floor_scores(videos)}
    with Stages() as report:
        for name, path in (("ours", ckpt), ("full", full)):
            if path is None:
                continue
            if stage == "alignment":
                scores[name] = alignment_scores(path, videos)
            else:
                known = with_labels_of(videos, load_checkpoint(path).spec.labels, f"the checkpoint {path}")
                print_notes(known.notes[len(videos.notes) :])
                streamed = stream_checkpoint(
                    path,
                    known,
                    partial(_report, report, name),
                    thresholds,
                    reading=partial(_report, report, f"read {name}"),
                    cache=cache,
                )
                scores[name] = stream_scores(streamed, known)
                if curve is not None and name == "ours":
                    if not streamed.decoder.believes:
                        why = "its decoder has no probability at which a change is decided"
                        raise EdgeHalError(f"{path} has no curve", why, "train it with this version", exit_code=2)
                    with replacing(curve, todo="choose another --curve") as beside:
                        draw_curve(beside, decision_curve(streamed, known), streamed.decoder)
    which = f"all videos ({len(videos)})" if everything else f"{len(videos)} videos, {part}"
    print(json.dumps(scores)) if as_json else print_table(scores, f"{which}, {stage}")
    require_written()


def check_settings(settings: list[str], stage: str) -> None:
    """Refuse keys that cannot change a score: all but `data.*`, and `decoder.*` where nothing is decoded."""
    for setting in settings:
        key = setting.partition("=")[0]
        section = key.partition(".")[0]
        if section == "decoder" and stage == "alignment":
            raise EdgeHalError(f"--set {setting} with --stage alignment", "nothing is decoded", exit_code=2)
        if key == "data.mistakes":
            raise EdgeHalError(f"--set {setting} with eval", "only a training looks at it", "leave it out", exit_code=2)
        if section not in ("data", "decoder") or "." not in key:
            why = "training has fixed it; only data.* and decoder.* can be replaced"
            raise EdgeHalError(f"--set {setting} with eval", why, "leave it out, or train again", exit_code=2)


def _report(stages: Stages, name: str, done: int, total: int) -> None:
    stages(name, done, total, "")


def run_config(ckpt: Path, overrides: list[str]) -> Config:
    """The configuration that a run was trained with, some keys replaced, without `data.mistakes`: only a training looks
    at it, and the videos that it lists may be elsewhere, or deleted."""
    from edge_hal.config import load_config

    if not ckpt.exists():
        raise EdgeHalError(f"there is no run {ckpt}", "", "give the folder that edge-hal train wrote")
    path = (ckpt if ckpt.is_dir() else ckpt.parent) / "config.yaml"
    if not path.is_file():
        raise EdgeHalError(f"{path} is missing", "it holds how the data were read", "give the run directory")
    config = load_config(str(path), overrides)
    return config.model_copy(update={"data": config.data.model_copy(update={"mistakes": ()})})


def print_table(scores: dict[str, Scores], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in scores:
        table.add_column(name, justify="right")
    for key, text in ROWS:
        values = [column.get(key) for column in scores.values()]
        table.add_row(text, *("-" if value is None else f"{value:.2f}" for value in values))
    console = Console(markup=False, emoji=False)
    console.print(table)
    for name, column in scores.items():
        if column.get("decide"):
            console.print(decide_table(column["decide"], name))


def decide_table(settings: dict[str, Scores], title: str) -> Table:
    """The settings of --decide as rows. Settings that coincide share one."""
    from rich.table import Table

    from edge_hal.decoding.decision_scores import COLUMNS, shown

    table = Table("", title=f"--decide ({title})", title_justify="left")
    for column in COLUMNS:
        table.add_column(column.heading, justify="right")
    same: dict[str, list[str]] = {}
    for name, scores in settings.items():
        same.setdefault(json.dumps(scores, sort_keys=True), []).append(name)
    for text, names in same.items():
        values = json.loads(text)
        table.add_row(", ".join(names), *(shown(values[column.key], column.digits) for column in COLUMNS))
    return table
