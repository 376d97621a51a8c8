"""Do two views of one bench beat the better one? Rendered sessions, filmed from two sides.

    python benchmarks/two_views.py --out FOLDER [--seed 0] [--train 64] [--test 16] [--preset tiny]

In training and test alike somebody stands before each camera for about a quarter of the time, before each at other
times (`edge_hal/workbench/viewpoint.py`). A model for each view is trained from step lists alone. The weights are
those of `edge-hal fuse`, fitted on held out training videos without frame labels. "decoder too": its thresholds are
fitted on the fused posteriors of the same videos; the others have the decoder of the first view. What is in FOLDER
already is not made again.

Prints JSON: for each view, and for both together with equal and with fitted weights, per cent of the frames right,
F1@50, F1 of transitions, per cent of the frames right as `now` tells them, and the delay of decisions in seconds.
`blocked` has the per cent of the frames right while somebody stands before one camera, both or none. The last check
runs a station over the first videos and compares its decisions with those that were scored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.calib.fit_fusion import fit_fusion
from edge_hal.calib.held_out_file import read_held_out
from edge_hal.config import load_config
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.fusion import EQUAL, pooled
from edge_hal.decoding.timeline import timeline_of
from edge_hal.evaluation.checkpoint_scores import Streamed, stream_checkpoint, stream_scores
from edge_hal.events import Event, Transition
from edge_hal.export.bundle import export_bundle
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.train import train
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.station.options import AddressOptions, FusedOptions, StationOptions
from edge_hal.runtime.station.run import run_station
from edge_hal.workbench.dataset import render_dataset, video_session
from edge_hal.workbench.render import blocks_of
from edge_hal.workbench.viewpoint import LEFT, RIGHT

VIEWS = {"left": LEFT, "right": RIGHT}
SHOWN = ("mof", "f1_50", "transition_f1", "mof_now", "delay_s_median")
STATIONS = 2


def make(folder: Path, view: str, arguments: argparse.Namespace) -> None:
    """Data, run and bundle of one view."""
    data, run, bundle = (folder / view / name for name in ("data", "run", "bundle"))
    if not data.exists():
        render_dataset(data, arguments.seed, arguments.train, arguments.test, arguments.workers, viewpoint=VIEWS[view])
    if not (run / "model.safetensors").exists():
        lists = load_dataset(data, split=1, part="train")  # without frame labels
        train(lists, load_config(arguments.preset), run, arguments.seed, lambda *told: None)
    if not bundle.exists():
        export_bundle(run, bundle, reference=None, progress=lambda *told: None)


def blocked(streamed: Streamed, videos: VideoSet, numbers: range, seed: int) -> dict[str, float]:
    """Per cent of the frames right, by who is blocked at the frame."""
    right: dict[str, list[Any]] = {"none": [], "left": [], "right": [], "both": []}
    for rows, video, number in zip(streamed.log_posteriors, videos.videos, numbers, strict=True):
        assert video.labels is not None and video.rate_hz is not None
        decisions = decode_posteriors(rows, streamed.decoder, streamed.spec)
        spec = streamed.spec
        found = timeline_of(decisions, spec.model_hz, len(rows), len(video.labels), video.rate_hz).labels
        session, look = video_session(seed, number)
        at_s = np.arange(len(video.labels)) / session.fps
        covered = {}
        for name, viewpoint in VIEWS.items():
            blocks = blocks_of(session, look, viewpoint)
            covered[name] = np.any([(b.start_s <= at_s) & (at_s <= b.start_s + b.length_s) for b in blocks], 0)
            covered[name] = np.broadcast_to(covered[name], at_s.shape)
        hit = found == video.labels
        right["none"].append(hit[~covered["left"] & ~covered["right"]])
        right["left"].append(hit[covered["left"] & ~covered["right"]])
        right["right"].append(hit[~covered["left"] & covered["right"]])
        right["both"].append(hit[covered["left"] & covered["right"]])
    return {name: round(100 * float(np.concatenate(parts).mean()), 1) for name, parts in right.items()}


def replace_decoder(streamed: Streamed, folder: Path, weights: Mapping[str, float]) -> Streamed:
    """The same posteriors, with a decoder that is fitted on fused posteriors of held out training videos."""
    held = {view: read_held_out(folder / view / "run") for view in VIEWS}
    names = list(held["left"].labels)
    lengths = [min(len(each.labels[name]) for each in held.values()) for name in names]
    rows = [
        pooled(
            [each.log_posteriors[name][:length] for each in held.values()],
            list(weights.values()),
            len(streamed.spec.labels),
        )
        for name, length in zip(names, lengths, strict=True)
    ]
    labels = [held["left"].labels[name][:length] for name, length in zip(names, lengths, strict=True)]
    return streamed._replace(decoder=fit_decoder(rows, labels, streamed.spec, {}))


def told_by_a_station(folder: Path, name: str, weights: dict[str, float]) -> list[tuple[str, int]]:
    """Label and tick of each decision of the fused stream."""
    streams = {
        view: RunOptions(
            folder / view / "bundle", str(folder / view / "data" / "videos" / f"{name}.mp4"), pace="asap", stream=view
        )
        for view in VIEWS
    }
    fused = FusedOptions(replace(streams["left"], stream="bench"), tuple(VIEWS), weights)
    events: list[Event] = []
    address = AddressOptions("tcp://127.0.0.1:*")
    run_station(lambda: StationOptions(streams, address, fused={"bench": fused}), on_event=events.append)
    return [
        (event.to, event.decision.tick) for event in events if isinstance(event, Transition) and event.stream == "bench"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=64)
    parser.add_argument("--test", type=int, default=16)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for view in VIEWS:
        make(arguments.out, view, arguments)
    fitted = fit_fusion({view: read_held_out(arguments.out / view / "run") for view in VIEWS})
    videos = {
        view: load_dataset(arguments.out / view / "data", split=1, part="test", with_labels=True) for view in VIEWS
    }
    streamed = {view: stream_checkpoint(arguments.out / view / "run", videos[view]) for view in VIEWS}
    spec, _, decoder = streamed["left"]
    for name, weights in {"equal": dict.fromkeys(VIEWS, EQUAL), "fitted": dict(fitted.weights)}.items():
        both = [
            pooled(rows, list(weights.values()), len(spec.labels))
            for rows in zip(*(streamed[view].log_posteriors for view in VIEWS), strict=True)
        ]
        streamed[name] = Streamed(spec, both, decoder)
    streamed["fitted, decoder too"] = replace_decoder(streamed["fitted"], arguments.out, fitted.weights)
    rows: dict[str, Any] = {}
    numbers = range(arguments.train, arguments.train + arguments.test)
    for name, found in streamed.items():
        scores = stream_scores(found, videos["left"])
        rows[name] = {key: round(float(scores[key] or 0.0), 3) for key in SHOWN}
        rows[name]["blocked"] = blocked(found, videos["left"], numbers, arguments.seed)
    for number in range(min(STATIONS, arguments.test)):
        name = videos["left"].videos[number].name
        expected = [
            (spec.labels[decision.label], decision.decision_tick)
            for decision in decode_posteriors(streamed["fitted"].log_posteriors[number], decoder, spec)
        ]
        assert told_by_a_station(arguments.out, name, dict(fitted.weights)) == expected, name
    print(json.dumps({"weights": fitted.weights, "held_out_videos": fitted.videos, "scores": rows}, indent=1))


if __name__ == "__main__":
    main()
