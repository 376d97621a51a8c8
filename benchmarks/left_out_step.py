"""A step that no training video shows: is it reported as unfamiliar? For data sets of feature vectors.

    python benchmarks/left_out_step.py DATA --split 1 --rate-hz 30 [--model-hz 10] [--per-h 1] [--json]

Each step of the data is left out in turn: its samples are cut from the training videos, and the model of the input is
fitted on the rest. In the test videos a segment of that step of at least `LEAST_S` is found if a report begins in it,
or at most a window after it. Reports in the rest of the test videos are false.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.fit_familiarity import PER_H, fit_familiarity
from edge_hal.decoding.familiarity import Familiarity, FamiliarityTracker
from edge_hal.metrics import runs_of

LEAST_S = 2.0
Video = tuple[NDArray[np.float32], NDArray[np.str_]]


def read(data: Path, split: str, stride: int) -> dict[str, Video]:
    """Vectors (T, D) and steps (T,) by name, every `stride`-th sample."""
    found = {}
    for line in (data / "splits" / f"{split}.bundle").read_text().split():
        name = Path(line).stem
        steps = np.array((data / "groundTruth" / f"{name}.txt").read_text().split())
        x = np.load(data / "features" / f"{name}.npy")
        x = x if len(x) == len(steps) else x.T
        found[name] = x[::stride].astype(np.float32), steps[::stride]
    return found


def reports(model: Familiarity, x: NDArray[np.float32], per_h: float, hz: float) -> list[int]:
    """The ticks at which a stream reports unfamiliar input."""
    tracker, found = FamiliarityTracker(model, per_h, hz, 1), []
    for tick in range(len(x)):
        tracker.add(x[tick : tick + 1])
        if tracker.decide(tick) is not None:
            found.append(tick)
    return found


def measure(train: dict[str, Video], test: dict[str, Video], step: str, per_h: float, hz: float) -> dict[str, Any]:
    model = fit_familiarity({name: x[y != step] for name, (x, y) in train.items()}, hz)
    if model is None:
        return {"segments": 0, "found": 0, "false": 0, "hours": 0.0}
    window = round(model.window_s * hz)
    segments = hits = false = 0
    hours = 0.0
    for x, y in test.values():
        told = reports(model, x, per_h, hz)
        near = np.zeros(len(x) + window, bool)
        for label, start, stop in zip(*runs_of(y == step), strict=True):
            if label:
                near[start : stop + window] = True
                if stop - start >= LEAST_S * hz:
                    segments += 1
                    hits += any(start <= tick < stop + window for tick in told)
        false += sum(not near[tick] for tick in told)
        hours += float((y != step).sum()) / hz / 3600
    return {"segments": segments, "found": hits, "false": false, "hours": hours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rate-hz", type=float, required=True, help="of the feature files")
    parser.add_argument("--model-hz", type=float, default=10.0)
    parser.add_argument("--per-h", type=float, default=PER_H)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    stride = max(1, round(arguments.rate_hz / arguments.model_hz))
    hz = arguments.rate_hz / stride
    train, test = (read(arguments.data, f"{part}.split{arguments.split}", stride) for part in ("train", "test"))
    rows = {}
    for step in sorted({str(each) for _, y in test.values() for each in y}):
        rows[step] = measure(train, test, step, arguments.per_h, hz)
        if not arguments.json:
            print(step, rows[step], flush=True)
    false, hours = (sum(row[key] for row in rows.values()) for key in ("false", "hours"))
    shares = [row["found"] / row["segments"] for row in rows.values() if row["segments"]]
    total = {"recall": float(np.mean(shares)), "false_per_h": false / max(hours, 1e-9), "hours": hours}
    print(json.dumps({**total, "steps": rows} if arguments.json else total))


if __name__ == "__main__":
    main()
