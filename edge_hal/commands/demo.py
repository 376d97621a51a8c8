"""`edge-hal demo`: the main job on rendered workbench videos. No camera, no GPU, no download."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.extras import require
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.evaluation import Timeline
    from edge_hal.events import Transition
    from edge_hal.learning.dataset import Video, VideoSet

STREAM = "demo"
TRAIN_VIDEOS, TEST_VIDEOS = 48, 8
STARTED_S = 60.0


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Decides videos and training.")] = 0,
) -> None:
    """Render videos, learn from their step lists, export, watch unseen ones live, and score."""
    require("torch", "safetensors", "onnx", "onnxscript", "cv2", "matplotlib")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EdgeHalError(f"{out} is not empty", "the demo overwrites nothing", "delete it, or choose another --out")
    from edge_hal.commands.progress import Stages
    from edge_hal.config import load_config
    from edge_hal.evaluation import checkpoint_scores, floor_scores, rates, scores_of, truths
    from edge_hal.export.bundle import export_bundle
    from edge_hal.learning.dataset import load_dataset
    from edge_hal.learning.train import train
    from edge_hal.workbench import render_dataset

    data = out / "data"
    with Stages() as report:
        render_dataset(
            data, seed, TRAIN_VIDEOS, TEST_VIDEOS, progress=lambda done, total: report("render", done, total, "")
        )
        lists = load_dataset(data, split=1, part="train")  # ordered step lists, and nothing else
        train(lists, load_config("tiny"), out / "run", seed, report)
    with Stages() as report:
        export_bundle(out / "run", out / "bundle", reference=None, progress=report)
    unseen = load_dataset(data, split=1, part="test", with_labels=True)
    timelines = [_watch(video, unseen, out, tell=number == 0) for number, video in enumerate(unseen.videos)]
    with Stages() as report:
        labelled = load_dataset(data, split=1, part="train", with_labels=True)
        train(labelled, load_config("tiny", ["learning.supervision=frames"]), out / "full", seed, report)
        full = checkpoint_scores(out / "full", unseen, partial(_report, report))
    scores = {
        "floor": floor_scores(unseen),
        "ours": scores_of(timelines, truths(unseen), rates(unseen), unseen.background),
        "full": full,
    }
    (out / "events.sock").unlink(missing_ok=True)
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    draw(out / "timeline.png", unseen, timelines)
    _videos(unseen, out / "videos")
    from edge_hal.commands.evaluate import print_table

    print_table(scores, f"{len(unseen)} unseen videos; full: trained on frame labels")
    print(f"timeline: {out / 'timeline.png'}   scores: {out / 'scores.json'}")


def _report(report: Any, done: int, total: int) -> None:
    report("full", done, total, "")


def _watch(video: Video, unseen: VideoSet, out: Path, *, tell: bool) -> Timeline:
    """Replay one video through the real `run` in a process of its own, and subscribe to its events."""
    from edge_hal.events import End, Transition, decode
    from edge_hal.runtime.client import receive

    endpoint = f"ipc://{(out / 'events.sock').absolute()}"
    command = [sys.executable, "-m", "edge_hal", "run", "--bundle", str(out / "bundle")]
    command += ["--camera", str(video.path), "--pace", "asap", "--pub", endpoint, "--stream", STREAM]
    transitions: list[Transition] = []
    process = subprocess.Popen(
        [*command, "--wait-subscribers", "1", "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        for message in receive(endpoint, STREAM, timeout_s=STARTED_S):
            event = decode(message)
            if isinstance(event, Transition):
                transitions.append(event)
                if tell:
                    _tell(event, video, unseen.labels)
            elif isinstance(event, End):
                break
        _, errors = process.communicate(timeout=STARTED_S)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise EdgeHalError(f"the run over {video.name} failed", errors.strip())
    return _timeline(transitions, video, unseen.labels)


def _tell(event: Transition, video: Video, labels: tuple[str, ...]) -> None:
    assert video.labels is not None
    truth = labels[video.labels[min(event.decision.frame, len(video.labels) - 1)]]
    print(
        f"{event.decision.t_ns / 1e9:6.1f} s  {event.from_ or '-':>12} -> {event.to:<12} "
        f"since {event.boundary.t_ns / 1e9:5.1f} s  confidence {event.confidence:.2f}  truth now: {truth}",
        flush=True,
    )


def _timeline(transitions: list[Transition], video: Video, labels: tuple[str, ...]) -> Timeline:
    import numpy as np

    from edge_hal.evaluation import Timeline
    from edge_hal.metrics import TransitionPoint

    assert video.labels is not None
    told, live = np.zeros(len(video.labels), np.int64), np.zeros(len(video.labels), np.int64)
    points = []
    for number, event in enumerate(transitions):
        label = labels.index(event.to)
        told[event.boundary.frame :] = label
        live[event.decision.frame if number else 0 :] = label
        if event.from_ is not None:
            points.append(TransitionPoint(label, event.boundary.t_ns / 1e9, event.decision.t_ns / 1e9))
    return Timeline(told, live, points)


def draw(path: Path, videos: VideoSet, timelines: list[Timeline]) -> None:
    """Truth and streamed result of the first videos, one colour a step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    shown = list(zip(videos.videos, timelines, strict=True))[:3]
    figure, axes = plt.subplots(len(shown), 1, figsize=(11, 1.3 * len(shown) + 1), squeeze=False)
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for axis, (video, timeline) in zip(axes[:, 0], shown, strict=True):
        assert video.labels is not None and video.rate_hz is not None
        for row, labels in ((1, video.labels), (0, timeline.labels)):
            cuts = [0, *[i for i in range(1, len(labels)) if labels[i] != labels[i - 1]], len(labels)]
            for start, stop in itertools.pairwise(cuts):
                span = [(start / video.rate_hz, (stop - start) / video.rate_hz)]
                axis.broken_barh(span, (row, 0.9), facecolors=colours[labels[start] % len(colours)])
        axis.set_yticks([0.45, 1.45], ["streamed", "truth"])
        axis.set_xlim(0, len(video.labels) / video.rate_hz)
        axis.set_title(video.name, loc="left", fontsize=8)
    axes[-1, 0].set_xlabel("seconds")
    handles = [Patch(color=colours[i % len(colours)], label=name) for i, name in enumerate(videos.labels)]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _videos(unseen: VideoSet, folder: Path) -> None:
    """The unseen videos, where scripts look for them."""
    import shutil

    folder.mkdir()
    for video in unseen.videos:
        shutil.copyfile(video.path, folder / video.path.name)
