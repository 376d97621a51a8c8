"""Videos streamed through `edge-hal run` in a process of its own, scored from the events a subscriber receives.

    python benchmarks/live.py DATA_DIR --split 1 --bundle BUNDLE [--rate-hz 30] [--videos 5]

Prints the uniform-split floor beside the scores, as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from edge_hal.bundle import load_bundle
from edge_hal.evaluation.live_scores import reported_error, reported_scores
from edge_hal.evaluation.scores import floor_scores, frame_labels, scores_of
from edge_hal.evaluation.subscribed_run import (
    of_type,
    reported_labels,
    reported_probability,
    timeline_of_events,
    watch_run,
)
from edge_hal.events import Now, Transition
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import VideoSet, with_labels_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--rate-hz", type=float, help="frames per second of feature files")
    parser.add_argument("--videos", type=int, help="only the first so many")
    arguments = parser.parse_args()
    found = load_dataset(
        arguments.data, split=arguments.split, part="test", with_labels=True, rate_hz=arguments.rate_hz
    )
    some = VideoSet(found.labels, found.videos[: arguments.videos], found.rate_hz, found.background)
    labels = load_bundle(arguments.bundle).spec.labels
    videos = with_labels_of(some, labels, f"the bundle {arguments.bundle}")
    timelines, rates_hz, shown, probability = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for video, truth in zip(videos.videos, frame_labels(videos), strict=True):
            assert video.rate_hz is not None
            pictures = video.path.suffix != ".npy"
            camera = str(video.path) if pictures else f"features:{video.path}@{video.rate_hz:g}"
            events = watch_run(arguments.bundle, camera, Path(folder) / "events.sock", "live")
            timelines.append(timeline_of_events(of_type(events, Transition), len(truth), labels))
            shown.append(reported_labels(of_type(events, Now), len(truth), labels))
            probability.append(reported_probability(of_type(events, Now), len(truth)))
            rates_hz.append(video.rate_hz)
            print(f"{video.name}: {len(of_type(events, Transition))} transitions", flush=True)
    truths = frame_labels(videos)
    scores = {**scores_of(timelines, truths, rates_hz, videos.background), **reported_scores(shown, truths, rates_hz)}
    scores["now_ece"] = reported_error(shown, probability, truths)
    print(json.dumps({"videos": len(timelines), "floor": floor_scores(videos), "live": scores}, indent=2))


if __name__ == "__main__":
    main()
