"""A small data set of vectors in the layout of MS-TCN: each action has a direction of its own, under noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ACTIONS = ("reach", "grasp", "turn", "place")
SIZE, RATE_HZ = 6, 20.0
CONFIG = Path(__file__).parent / "small.yaml"
"""Two small levels that learn these data in seconds."""


def write_small_data(root: Path, *, train: int = 6, test: int = 2, seed: int = 0) -> Path:
    """Features (D, T), frame labels, transcripts, split 1. Orders and durations vary."""
    rng = np.random.default_rng(seed)
    directions = 3.0 * np.eye(len(ACTIONS), SIZE)
    for folder in ("features", "groundTruth", "transcripts", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(ACTIONS)))
    names = [f"video{number}" for number in range(train + test)]
    for name in names:
        order = [*rng.permutation(len(ACTIONS)).tolist(), int(rng.integers(len(ACTIONS)))]
        order = [a for i, a in enumerate(order) if i == 0 or a != order[i - 1]]
        labels = np.repeat(order, rng.integers(50, 150, len(order)))
        vectors = directions[labels] + rng.normal(size=(len(labels), SIZE))
        np.save(root / "features" / f"{name}.npy", vectors.T.astype(np.float32))
        (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{ACTIONS[a]}\n" for a in labels))
        (root / "transcripts" / f"{name}.txt").write_text("".join(f"{ACTIONS[a]}\n" for a in order))
    for part, listed in (("train", names[:train]), ("test", names[train:])):
        text = "".join(f"{name}.txt\n" for name in listed)
        (root / "splits" / f"{part}.split1.bundle").write_text(text)
    return root


def write_alignment(run: Path, data: Path, model_hz: float = 10.0) -> None:
    """The alignment.json of a run on all videos of `data`: each step of a list takes the same time."""
    alignment = {}
    for path in sorted((data / "features").glob("*.npy")):
        steps = (data / "transcripts" / f"{path.stem}.txt").read_text().split()
        period = round(RATE_HZ / model_hz)
        ticks = (np.load(path).shape[1] - 1) // period + 1
        segments = [[step, ticks * m // len(steps) * period] for m, step in enumerate(steps)]
        entry = {"frames": (ticks - 1) * period + 1, "labelled": False, "agreement": 0.9, "segments": segments}
        alignment[path.stem] = entry
    (run / "alignment.json").write_text(json.dumps(alignment))


def scramble_boundaries(root: Path, *, seed: int) -> float:
    """Move every boundary of the frame labels at random, order and length kept; the share of frames changed."""
    rng = np.random.default_rng(seed)
    changed = total = 0
    for path in sorted((root / "groundTruth").iterdir()):
        labels = path.read_text().split()
        order = [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
        cuts = np.sort(rng.choice(np.arange(1, len(labels)), len(order) - 1, replace=False))
        moved = np.repeat(order, np.diff([0, *cuts, len(labels)])).tolist()
        path.write_text("".join(f"{label}\n" for label in moved))
        changed += sum(a != b for a, b in zip(labels, moved, strict=True))
        total += len(labels)
    return changed / total
