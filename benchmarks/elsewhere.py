"""Scores of trained runs on videos of another place: other hands, benches, clothes, light and camera.

    python benchmarks/elsewhere.py RUN [RUN ...] [--seed 0] [--first 64] [--videos 8] [--drawn SEED ...] [--json]

The runs are of the rendered procedure, for example `demo/run`. Each session is filmed twice, at the place of the
training videos and elsewhere, with the same steps, durations and motion. With the defaults the sessions are those
of the demo's test videos. `kept` is a score elsewhere divided by the one at home. `--drawn 1 2` films them at two
further places, whose colours are drawn with these seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from edge_hal.evaluation.checkpoint_scores import checkpoint_scores
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.workbench.dataset import render_video, video_name, video_session
from edge_hal.workbench.place import ELSEWHERE, HOME, Place
from edge_hal.workbench.schedule import STEPS

SHOWN = ("mof", "f1_50", "transition_f1", "mof_now")


def film(folder: Path, seed: int, numbers: range, place: Place) -> Path:
    """A data set of these videos of the data set with this seed, all in the test part of split 1."""
    for name in ("videos", "groundTruth", "transcripts", "splits"):
        (folder / name).mkdir(parents=True)
    for number in numbers:
        session, look = video_session(seed, number)
        name = video_name(number)
        render_video(folder / "videos" / f"{name}.mp4", session, look, place)
        (folder / "groundTruth" / f"{name}.txt").write_text("\n".join(session.labels()))
        (folder / "transcripts" / f"{name}.txt").write_text("\n".join(session.transcript))
    (folder / "mapping.txt").write_text("\n".join(f"{i} {step}" for i, step in enumerate(STEPS)))
    names = "\n".join(f"{video_name(number)}.txt" for number in numbers)
    (folder / "splits" / "test.split1.bundle").write_text(names)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0, help="of the data set")
    parser.add_argument("--first", type=int, default=64, help="number of the first video in the data set")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--drawn", type=int, nargs="*", default=[], metavar="SEED")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    numbers, found = range(arguments.first, arguments.first + arguments.videos), {}
    places = {"home": HOME, "elsewhere": ELSEWHERE}
    places |= {f"drawn {seed}": Place.drawn(np.random.default_rng(seed)) for seed in arguments.drawn}
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: load_dataset(
                film(Path(folder) / name, arguments.seed, numbers, place), split=1, part="test", with_labels=True
            )
            for name, place in places.items()
        }
        for run in arguments.runs:
            scores = {name: checkpoint_scores(run, videos) for name, videos in sets.items()}
            rows = {name: {key: float(scores[name][key] or 0.0) for key in SHOWN} for name in sets}
            for name in [name for name in sets if name != "home"]:
                rows[f"{name}, kept"] = {key: rows[name][key] / max(rows["home"][key], 1e-9) for key in SHOWN}
            found[str(run)] = rows
            if not arguments.json:
                for name, row in rows.items():
                    print(f"{run!s:24} {name:16}", *(f"{key} {value:6.3f}" for key, value in row.items()))
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
