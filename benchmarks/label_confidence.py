"""How often the boundaries that `edge-hal label` writes are right, by their confidence, against frame labels.

    python benchmarks/label_confidence.py DATA --ckpt RUN --split 1 [--corrected 0,2,4] [--within 0.5] [--json]

`RUN` was trained on the train part of the split. The frame labels of these videos are read for the scores, and for as
many corrected videos as `--corrected` says. They are drawn at random `DRAWS` times, and only the others are scored.
Left out are videos whose alignment has other steps than their frame labels, and those that the run had labels of.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.confidence import calibration_error
from edge_hal.commands.evaluate import run_config
from edge_hal.commands.options.train_inputs import load_videos
from edge_hal.learning.data.labels.segments import SegmentedVideo
from edge_hal.learning.data.video_cache import cache_of
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.suggestions import WITHIN_S, calibrated, suggest_labels
from edge_hal.metrics import runs_of

DRAWS = 10
EDGES = (0.0, 0.5, 0.8, 1.01)


def errors_s(video: SegmentedVideo, truth: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64] | None:
    """(M - 1,) how far each boundary is from the true one; None if the labels have other steps."""
    steps, begins, _ = runs_of(truth)
    if [names[step] for step in steps] != [each.step for each in video.segments]:
        return None
    wanted = begins[1:] / video.rate_hz
    found = np.array([each.first for each in video.segments[1:]]) / video.rate_hz
    return np.asarray(np.abs(found - wanted), np.float64)


def row(videos: Sequence[SegmentedVideo], errors: dict[str, NDArray[np.float64]], within_s: float) -> dict[str, Any]:
    confidence = np.array([each for video in videos for each in video.confidences])
    is_right = np.concatenate([errors[video.name] for video in videos]) <= within_s + 1e-6
    found: dict[str, Any] = {"boundaries": len(confidence), "right": is_right.mean(), "confidence": confidence.mean()}
    found["error"] = calibration_error(confidence, is_right)
    good, bad = confidence[is_right], confidence[~is_right]
    found["ranking"] = float(((good[:, None] > bad).mean() + (good[:, None] >= bad).mean()) / 2)
    for low, high in itertools.pairwise(EDGES):
        inside = (confidence >= low) & (confidence < high)
        found[f"{low:g}.."] = [float(inside.mean()), float(is_right[inside].mean()) if inside.any() else None]
    return found


def mean_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the draws; of shares, over all boundaries of the draws."""
    mean: dict[str, Any] = {}
    for key, first in rows[0].items():
        if not isinstance(first, list):
            mean[key] = round(float(np.mean([each[key] for each in rows])), 3)
            continue
        parts = np.array([[each[key][0] * each["boundaries"], each[key][1] or 0.0] for each in rows])
        total = parts[:, 0].sum()
        share = total / sum(each["boundaries"] for each in rows)
        mean[key] = [
            round(float(share), 3),
            round(float((parts[:, 0] * parts[:, 1]).sum() / total), 3) if total else None,
        ]
    return mean


def measure(data: Path, run: Path, split: int | None, corrected: Sequence[int], within_s: float) -> dict[str, Any]:
    videos = load_videos(data, run_config(run, []), split, "train", with_labels=True)
    found = suggest_labels(run, videos, within_s, cache=cache_of(data))
    truth = {video.name: video.labels for video in videos.videos}
    errors, kept = {}, []
    for video in found:
        labels = truth[video.name]
        its = None if labels is None or video.labelled else errors_s(video, labels, videos.labels)
        if its is not None:
            errors[video.name] = its
            kept.append(video)
    rows = {}
    for count in corrected:
        draws = []
        for seed in range(DRAWS if count else 1):
            order = np.random.default_rng(seed).permutation(len(kept))
            names = {kept[i].name for i in order[:count]}
            known = tuple(video for video in videos.videos if video.name in names)
            anew, _ = calibrated(
                kept, replace(videos, videos=known) if known else VideoSet(videos.labels, ()), within_s
            )
            draws.append(row([video for video in anew if video.name not in names], errors, within_s))
        rows[str(count)] = mean_of(draws)
    median_s = round(float(np.median(np.concatenate(list(errors.values())))), 3)
    head = {"data": data.name, "videos": len(kept), "of": len(found), "within_s": within_s, "median_error_s": median_s}
    return {**head, "corrected": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--split", type=int)
    parser.add_argument("--corrected", default="0,1,2,4,8", help="numbers of corrected videos")
    parser.add_argument("--within", type=float, default=WITHIN_S, help="seconds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    counts = [int(each) for each in given.corrected.split(",")]
    found = measure(given.data, given.ckpt, given.split, counts, given.within)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['data']}: {found['videos']} of {found['of']} videos, median error {found['median_error_s']:.2f} s")
    print(
        "corrected  boundaries  right  confidence  error  ranking  " + "  ".join(f"{edge:g}.." for edge in EDGES[:-1])
    )
    for count, each in found["corrected"].items():
        parts = [each[f"{edge:g}.."] for edge in EDGES[:-1]]
        shares = "  ".join(
            f"{share:.0%}: {'-' if is_right is None else f'{is_right:.2f}'}" for share, is_right in parts
        )
        head = f"{count:>9}  {each['boundaries']:10.0f}  {each['right']:.2f}  {each['confidence']:10.2f}"
        print(f"{head}  {each['error']:.2f}   {each['ranking']:.2f}     {shares}")


if __name__ == "__main__":
    main()
