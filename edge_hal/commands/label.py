"""`edge-hal label`: write what a run found in its training videos, in the formats of annotation tools."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.parsing import one_of, parse_duration
from edge_hal.commands.options.task import run_of
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import one_line
from edge_hal.task_folder import SUGGESTIONS, is_task

if TYPE_CHECKING:
    from edge_hal.learning.data.labels.segments import SegmentedVideo
    from edge_hal.learning.data.video_set import Video
    from edge_hal.learning.suggestions import Boundary

FORMATS = ("csv", "frames", "eaf", "label-studio")
BOUNDARIES = "boundaries.csv"
OF_THE_USER = ("labels", "transcripts")
SHOWN = 5


def label(
    data: Annotated[
        Path,
        typer.Argument(readable=False, help="Task folder, or another folder with the videos or features of the run."),
    ],
    ckpt: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Run directory of `edge-hal train` (default: the newest run of the task folder)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder to write to (default: suggestions/ of the task folder)."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="csv: segments of all videos in one table. frames: one step for each frame (MS-TCN). eaf: ELAN. "
            "label-studio: tasks and configuration of Label Studio."
        ),
    ] = "csv",
    within: Annotated[
        str, typer.Option(help="A confidence is the probability that the boundary is right to within this time.")
    ] = "0.5s",
    labels: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder of corrected labels of some videos, in any of these formats: confidences are calibrated on "
            "them (default: labels/ of the data).",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files. Corrections in them are lost.")
    ] = False,
) -> None:
    """Write the segments that a run found in its training videos, and its boundaries, the least certain first.

    Correct them and train with `--labels FOLDER`. Training does not read suggestions.
    """
    one_of("--format", format, FORMATS)
    within_s = parse_duration(within)
    out = _folder(data, out, labels)
    run = run_of(ckpt, data)
    require("torch", "safetensors")
    from edge_hal.commands.evaluate import run_config
    from edge_hal.commands.options.train_inputs import load_videos, own_labels, print_notes
    from edge_hal.commands.progress import Stages
    from edge_hal.learning.data.step_texts import count_of
    from edge_hal.learning.data.video_cache import cache_of
    from edge_hal.learning.suggestions import calibrated, least_certain_first, suggest_labels

    config = run_config(run, [])
    own = own_labels(data, config, labels)
    videos = load_videos(data, config, None, "train", with_labels=set(own), own=own)
    _check_free(out, _files([_uncut(video) for video in videos.videos], format), overwrite)
    cache = None if config.model.encoder is None else cache_of(data)
    with Stages() as report:
        found = suggest_labels(run, videos, within_s, lambda n, of: report("label", n, of, ""), cache=cache)
    unknown = sorted({video.name for video in videos.videos} - {video.name for video in found})
    if unknown:
        print_notes([f"{count_of(unknown, 'video')} left out: {run} was not trained on videos of this name"])
    found, calibration = calibrated(found, videos, within_s)
    boundaries = least_certain_first(found, within_s)
    _write(out, {**_files(found, format), BOUNDARIES: _table(boundaries)}, overwrite)
    print(f"{len(found)} videos, {len(boundaries)} boundaries: {out}")
    for each in boundaries[:SHOWN]:
        steps = f"{each.step_from} -> {each.step_to}"
        print(one_line(f"  {each.confidence:.2f}  {each.video} {each.time_s:.2f} s: {steps}"))
    if len(boundaries) > SHOWN:
        print(f"  {len(boundaries) - SHOWN} more, in this order: {out / BOUNDARIES}")
    if calibration.boundaries:
        print(
            f"confidences are calibrated on {calibration.boundaries} boundaries of {calibration.videos} corrected "
            f"videos: {calibration.right} lie within {within_s:g} s of the correction"
        )
    else:
        print("confidences are not calibrated: correct two videos or more, and give them with --labels FOLDER")
    folder = shlex.quote(str(data))
    print(f"correct some, put them into a folder of their own, then: edge-hal train {folder} --labels FOLDER")
    if is_task(data):
        print(f"or correct them in the browser, beside the pictures: edge-hal correct {folder}")


def _folder(data: Path, out: Path | None, labels: Path | None) -> Path:
    """Where to write. Raises EdgeHalError for a folder that holds what the user wrote."""
    if out is None:
        if not is_task(data):
            why = f"{data} is no task folder, whose {SUGGESTIONS}/ would be taken"
            raise EdgeHalError("--out is missing", why, "give it: --out FOLDER", exit_code=2)
        return data / SUGGESTIONS
    of_the_user = [*(data / name for name in OF_THE_USER), *([] if labels is None else [labels])]
    if os.path.realpath(out) in map(os.path.realpath, of_the_user):
        why = "it holds what you wrote, and suggestions are not accepted yet"
        raise EdgeHalError(f"--out {out}", why, "choose another folder", exit_code=2)
    return out


def _files(found: Sequence[SegmentedVideo], format: str) -> dict[str, str]:
    """Names and contents of the files in a format."""
    from edge_hal.learning.data.labels.csv_file import write_csv
    from edge_hal.learning.data.labels.eaf import write_eaf
    from edge_hal.learning.data.labels.frames import write_frames
    from edge_hal.learning.data.labels.label_studio import write_label_studio

    writers = {"csv": write_csv, "frames": write_frames, "eaf": write_eaf, "label-studio": write_label_studio}
    return writers[format](found)


def _table(boundaries: Sequence[Boundary]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("video", "time_s", "from", "to", "confidence", "within_s"))
    for each in boundaries:
        numbers = f"{each.confidence:.2f}", f"{each.within_s:g}"
        table.writerow((each.video, f"{each.time_s:.3f}", each.step_from, each.step_to, *numbers))
    return text.getvalue()


def _uncut(video: Video) -> SegmentedVideo:
    """The video as one segment: its files have the names, and the limits, of the suggestions to come."""
    from edge_hal.learning.data.labels.segments import Segment, SegmentedVideo

    whole = (Segment(0, video.length, ""),)
    return SegmentedVideo(video.name, video.path, video.kind, video.length, video.rate_hz or 1.0, whole, ())


def _check_free(out: Path, files: Iterable[str], overwrite: bool) -> None:
    """Raises EdgeHalError if a file is there, since it may hold corrections, or if none can be written."""
    from edge_hal.files import check_writable

    check_writable(out, todo="choose another --out")
    there = [name for name in files if name != BOUNDARIES and (out / name).exists()]
    if there and not overwrite:
        why = f"{out / there[0]} is there, and may hold corrections"
        raise EdgeHalError(
            f"nothing was written to {out}", why, "choose another --out, or add --overwrite", exit_code=2
        )


def _write(out: Path, files: dict[str, str], overwrite: bool) -> None:
    """Write all of the files, or none. Raises EdgeHalError as `_check_free` does."""
    from edge_hal.files import file_error, write_files

    _check_free(out, files, overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(f"cannot write {out}", error, "choose another --out", path=out) from error
    write_files(out, files, todo="choose another --out")
