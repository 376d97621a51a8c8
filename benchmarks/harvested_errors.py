"""Do harvested stretches hold the errors of a model? The share of wrong time inside of them, and in all videos.

    python benchmarks/harvested_errors.py demo/data demo/bundle

streams the test videos of split 1 with `--record-pictures source`, harvests as `edge-hal harvest` does, and compares
the decided steps with the frame labels. A stretch is useful if more of it is wrong than of the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from edge_hal.events import Event, Transition
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.video_set import Video
from edge_hal.runtime.recording.material_reader import read_material
from edge_hal.runtime.recording.stretches import find_stretches
from edge_hal.runtime.runner import RunOptions, run

BELOW = (0.6, 0.7, 0.8, 0.9, 0.95)


def wrong_frames(video: Video, labels: tuple[str, ...], events: list[Event]) -> np.ndarray:
    """(frames,) bool: another step was decided than the true one. Before the first decision, its step holds."""
    assert video.labels is not None and video.rate_hz is not None
    found = [event for event in events if isinstance(event, Transition)]
    decided = np.full(video.length, labels.index(found[0].to) if found else -1)
    for event in found:
        decided[round(event.boundary.t_ns / 1e9 * video.rate_hz) :] = labels.index(event.to)
    return np.asarray(decided != video.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--around-s", type=float, default=2.0)
    arguments = parser.parse_args()
    videos = load_dataset(arguments.data, split=arguments.split, part="test", with_labels=True)
    wrong, inside = [], {below: list[np.ndarray]() for below in BELOW}
    for video in videos.videos:
        events: list[Event] = []
        with tempfile.TemporaryDirectory() as folder:
            tape = Path(folder) / "tape"
            how = {"pace": "asap", "record": tape, "record_pictures": "source"}
            options = RunOptions(arguments.bundle, str(video.path), "tcp://127.0.0.1:*", **how)  # type: ignore[arg-type]
            run(options, on_event=events.append)
            material = read_material(tape)
        wrong.append(wrong_frames(video, videos.labels, events))
        for below in BELOW:
            mask = np.zeros(video.length, bool)
            for stretch in find_stretches([material], arguments.around_s, below, {}).stretches:
                begin, end = (round(t / 1e9 * (video.rate_hz or 0)) for t in (stretch.begin_ns, stretch.end_ns))
                mask[begin:end] = True
            inside[below].append(mask)
    errors = np.concatenate(wrong)
    print(f"{len(wrong)} videos, {errors.mean():.1%} of the frames wrong")
    print("| below | of the time harvested | wrong inside | wrong outside | of the errors harvested |")
    print("|---|---|---|---|---|")
    for below in BELOW:
        mask = np.concatenate(inside[below])
        shares = mask.mean(), errors[mask].mean() if mask.any() else np.nan, errors[~mask].mean(), mask[errors].mean()
        print(f"| {below:g} | {' | '.join(f'{share:.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
