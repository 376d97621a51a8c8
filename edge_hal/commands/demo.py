"""`edge-hal demo`: the whole process on rendered videos, from step lists to scores. No camera, GPU or download."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.parsing import LARGEST_SEED
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.subscribed_run import (
    of_type,
    reported_labels,
    reported_probability,
    timeline_of_events,
    watch_run,
)
from edge_hal.files import write_file

if TYPE_CHECKING:
    from edge_hal.decoding.timeline import Timeline
    from edge_hal.events import Transition
    from edge_hal.learning.data.video_set import Video, VideoSet

STREAM = "demo"
TRAIN_VIDEOS, TEST_VIDEOS = 64, 8


def demo(
    out: Annotated[Path, typer.Option(readable=False, help="New folder for videos, runs, bundle and scores.")] = Path(
        "demo"
    ),
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Random seed of the rendered videos and of the training."),
    ] = 0,
    procedure: Annotated[str, typer.Option(help="What is assembled: gearbox or circuit_board.")] = "gearbox",
) -> None:
    """Render videos, learn from their step lists, export, recognise unseen videos live, and print the scores."""
    require("torch", "safetensors", "onnx", "onnxscript", "cv2", "matplotlib")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EdgeHalError(f"{out} is not empty", "the demo overwrites nothing", "delete it, or choose another --out")
    from edge_hal.commands.progress import Stages
    from edge_hal.config import load_config
    from edge_hal.evaluation.checkpoint_scores import checkpoint_scores
    from edge_hal.evaluation.live_scores import reported_error, reported_scores
    from edge_hal.evaluation.scores import floor_scores, frame_labels, frame_rates_hz, scores_of
    from edge_hal.events import Now, Transition
    from edge_hal.export.bundle import export_bundle
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.train import train
    from edge_hal.workbench import render_dataset
    from edge_hal.workbench.dataset import check_procedure

    check_procedure(procedure)
    data = out / "data"
    with Stages() as report:
        render_dataset(
            data,
            seed,
            TRAIN_VIDEOS,
            TEST_VIDEOS,
            progress=lambda done, total: report("render", done, total, ""),
            procedure=procedure,
        )
        lists = load_dataset(data, split=1, part="train")  # without frame labels
        train(lists, load_config("tiny"), out / "run", seed, report)
    with Stages() as report:
        export_bundle(out / "run", out / "bundle", reference=None, progress=report)
    unseen = load_dataset(data, split=1, part="test", with_labels=True)
    heard, timelines, told, probability = [], [], [], []
    for number, video in enumerate(unseen.videos):
        assert video.labels is not None
        tell = partial(_tell, video=video, labels=unseen.labels) if number == 0 else None
        with tempfile.TemporaryDirectory() as short:  # the path of a socket has 107 bytes at most
            events = watch_run(out / "bundle", str(video.path), Path(short) / "events", STREAM, tell)
        heard.append(of_type(events, Transition))
        reports = of_type(events, Now)
        told.append(reported_labels(reports, len(video.labels), unseen.labels))
        probability.append(reported_probability(reports, len(video.labels)))
        timelines.append(timeline_of_events(heard[-1], len(video.labels), unseen.labels))
    with Stages() as report:
        labelled = load_dataset(data, split=1, part="train", with_labels=True)
        train(labelled, load_config("tiny", ["learning.supervision=frames"]), out / "full", seed, report)
        full = checkpoint_scores(out / "full", unseen, partial(_report, report))
    scores = {
        "floor": floor_scores(unseen),
        "ours": {
            **scores_of(timelines, frame_labels(unseen), frame_rates_hz(unseen), unseen.background),
            **reported_scores(told, frame_labels(unseen), frame_rates_hz(unseen)),
            "now_ece": reported_error(told, probability, frame_labels(unseen)),
        },
        "full": full,
    }
    write_file(out / "scores.json", json.dumps(scores, indent=2) + "\n")
    draw(out / "timeline.png", unseen, timelines, heard)
    _videos(unseen, out / "videos")
    from edge_hal.commands.evaluate import print_table

    print_table(scores, f"{len(unseen)} unseen videos; full: trained on frame labels")
    print(f"timeline: {out / 'timeline.png'}   scores: {out / 'scores.json'}")


def _report(report: Any, done: int, total: int) -> None:
    report("full", done, total, "")


def _tell(event: Transition, video: Video, labels: tuple[str, ...]) -> None:
    assert video.labels is not None
    truth = labels[video.labels[min(event.decision.frame, len(video.labels) - 1)]]
    print(
        f"{event.decision.t_ns / 1e9:6.1f} s  {event.from_ or '-':>12} -> {event.to:<12} "
        f"since {event.boundary.t_ns / 1e9:5.1f} s  confidence {event.confidence:.2f}  truth now: {truth}",
        flush=True,
    )


def draw(path: Path, videos: VideoSet, timelines: list[Timeline], heard: list[list[Transition]]) -> None:
    """Draw true labels, streamed labels and confidence of the first three videos."""
    from edge_hal.evaluation.drawings import draw_timelines
    from edge_hal.evaluation.plot_data import StreamedVideo

    shown = []
    for video, told, events in list(zip(videos.videos, timelines, heard, strict=True))[:3]:
        assert video.labels is not None and video.rate_hz is not None
        # Each event's confidence, from its boundary to the next.
        at_s = [*(event.boundary.t_ns / 1e9 for event in events), len(video.labels) / video.rate_hz]
        spans = zip(at_s, at_s[1:], (event.confidence for event in events), strict=False)
        shown.append(StreamedVideo(video.name, video.rate_hz, video.labels, told.labels, None, tuple(spans)))
    draw_timelines(path, shown, videos.labels)


def _videos(unseen: VideoSet, folder: Path) -> None:
    """Copy the unseen videos into one folder, so that `edge-hal run --camera` can be tried on them."""
    import shutil

    folder.mkdir()
    for video in unseen.videos:
        shutil.copyfile(video.path, folder / video.path.name)
