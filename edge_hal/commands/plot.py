"""`edge-hal plot`: charts of a run on labelled videos, streamed as on a device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.labelled import LabelledData, RunOfTask
from edge_hal.commands.options.parsing import one_of
from edge_hal.commands.options.task import run_of
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError

KINDS = ("timelines", "confusion", "delays", "curve", "reliability")


def plot(
    data: LabelledData,
    ckpt: RunOfTask = None,
    out: Annotated[Path, typer.Option(readable=False, help="Folder to write the charts into.")] = Path("plots"),
    kinds: Annotated[
        str | None, typer.Option(help=f"Which charts, for example timelines,delays (default: {','.join(KINDS)}).")
    ] = None,
    picture: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    videos_shown: Annotated[int, typer.Option("--videos", min=1, help="Videos in the timelines, the first ones.")] = 4,
    split: Annotated[
        int | None, typer.Option(help="Take a part of this split, for example 1 (default: all videos).")
    ] = None,
    part: Annotated[str, typer.Option(help="Part of the split: train, valid or test.")] = "test",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a data key of the run or a threshold of its decoder: data.rate_hz=30, "
            "decoder.confirm_s=0.4. Repeat the option for several keys.",
        ),
    ] = None,
) -> None:
    """Draw what a run streams on labelled videos: timelines, confusion, delays, scores over the delay, reliability."""
    from edge_hal.commands.evaluate import PARTS, check_settings, run_config

    one_of("--part", part, PARTS)
    one_of("--format", picture, ("png", "svg"))
    asked = KINDS if kinds is None else tuple(name.strip() for name in kinds.split(","))
    for name in asked:
        one_of("--kinds", name, KINDS)
    settings = settings or []
    check_settings(settings, "stream")
    require("torch", "safetensors")
    require("matplotlib", extra="plot")
    from edge_hal.calib.confidence import calibration_error, reliability
    from edge_hal.commands.options.train_inputs import load_videos, print_notes
    from edge_hal.commands.progress import Stages
    from edge_hal.evaluation import drawings, plot_data
    from edge_hal.evaluation.checkpoint_scores import stream_checkpoint
    from edge_hal.evaluation.decision_curve import decision_curve, draw_curve
    from edge_hal.files import check_writable, file_error, replacing
    from edge_hal.learning.data.video_cache import cache_of
    from edge_hal.learning.data.video_set import with_labels_of
    from edge_hal.model.model_file import load_checkpoint

    check_writable(out, f"cannot write to {out}", "choose another --out")
    ckpt = run_of(ckpt, data)
    loaded = load_checkpoint(ckpt)
    config = run_config(ckpt, settings)
    replaced = {key.partition("=")[0] for key in settings}
    thresholds = {name: value for name, value in config.decoder.given().items() if f"decoder.{name}" in replaced}
    if "curve" in asked and not loaded.decoder.with_user_thresholds(thresholds).believes:
        if kinds is not None:
            why = "its decoder has no probability at which a change is decided"
            raise EdgeHalError(f"{ckpt} has no curve", why, "leave it out of --kinds", exit_code=2)
        asked = tuple(name for name in asked if name != "curve")
    videos = load_videos(data, config, split, PARTS[part], with_labels=True)
    known = with_labels_of(videos, loaded.spec.labels, f"the checkpoint {ckpt}")
    print_notes(known.notes[len(videos.notes) :])
    with Stages() as report:

        def told(name: str, done: int, total: int) -> None:
            report(name, done, total, "")

        cache = None if config.model.encoder is None else cache_of(data)
        streamed = stream_checkpoint(
            ckpt, known, partial(told, "stream"), thresholds, reading=partial(told, "read"), cache=cache
        )
    shown = plot_data.streamed_videos(streamed, known)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(f"cannot write to {out}", error, "choose another --out", path=out) from error
    for name in asked:
        path = out / f"{name}.{picture}"
        with replacing(path, what=f"cannot write {path}", todo="choose another --out") as beside:
            if name == "timelines":
                drawings.draw_timelines(beside, shown[:videos_shown], known.labels)
                note = f"{min(videos_shown, len(shown))} of {len(shown)} videos"
            elif name == "confusion":
                seconds = plot_data.confusion(shown, len(known.labels))
                drawings.draw_confusion(beside, seconds, known.labels)
                note = f"{seconds.trace():.1f} of {seconds.sum():.1f} s right"
            elif name == "delays":
                delays_s = plot_data.delays_s(shown)
                drawings.draw_delays(beside, delays_s)
                note = f"{len(delays_s)} transitions that are right"
            elif name == "curve":
                rows = decision_curve(streamed, known)
                draw_curve(beside, rows, streamed.decoder)
                note = f"{len(rows)} points"
            else:
                found = {"transitions": plot_data.transition_confidence(shown)}
                if (ticks := plot_data.now_confidence(streamed, known)) is not None:
                    found["now, each tick"] = ticks
                bins = {
                    f"{what}: ECE {calibration_error(*pair):.3f}": reliability(*pair)
                    for what, pair in found.items()
                    if len(pair[0])
                }
                drawings.draw_reliability(beside, bins)
                note = "; ".join(bins)
        print(f"{path}: {note}")
    require_written()
