"""What a training keeps of the videos that its thresholds were fitted on: `held_out.npz` of the run directory.

The posteriors are those of networks that were not trained on the video. They are float16, which is enough for what is
fitted on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable
from edge_hal.metrics import IntArray

HELD_OUT_FILE = "held_out.npz"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Of some training videos, by name.

    Attributes:
        actions: the labels of the model, in its order.
        model_hz: ticks per second.
        log_posteriors: (T, K) of the head whose lag is `lag_ticks`.
        labels: (T,) the alignment that training found, or was given.
    """

    actions: tuple[str, ...]
    model_hz: float
    lag_ticks: int
    log_posteriors: Mapping[str, NDArray[np.float32]]
    labels: Mapping[str, IntArray]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `read_held_out` reads it."""
        found: dict[str, NDArray[Any]] = {
            "actions": np.array(self.actions),
            "model_hz": np.array(self.model_hz),
            "lag_ticks": np.array(self.lag_ticks),
            "videos": np.array(list(self.labels)),
        }
        for number, (name, rows) in enumerate(self.log_posteriors.items()):
            found[f"log_posteriors.{number}"] = np.maximum(rows, np.finfo(np.float16).min).astype(np.float16)
            found[f"labels.{number}"] = self.labels[name].astype(np.uint16)
        return found


def read_held_out(run: Path) -> HeldOut:
    """Raises EdgeHalError: `run` is no run directory that has such a file, or the file is damaged."""
    path = run / HELD_OUT_FILE
    todo = "train again with this version: edge-hal train DATA_DIR --out RUN_DIR"
    check_readable(path)
    if not path.is_file():
        why = f"it has no {HELD_OUT_FILE}: an earlier version trained it, or on fewer than four videos"
        raise EdgeHalError(f"{run} keeps no posteriors of held out videos", why, todo, exit_code=2)
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [str(name) for name in stored["videos"]]
            actions = tuple(str(action) for action in stored["actions"])
            rows = {n: stored[f"log_posteriors.{i}"].astype(np.float32) for i, n in enumerate(names)}
            labels = {n: stored[f"labels.{i}"].astype(np.int64) for i, n in enumerate(names)}
            found = HeldOut(actions, float(stored["model_hz"]), int(stored["lag_ticks"]), rows, labels)
        for name in names:
            if rows[name].shape != (len(labels[name]), len(actions)) or not np.isfinite(rows[name]).all():
                raise ValueError(f"its posteriors of {name} do not belong to its labels")
            if labels[name].size and labels[name].max() >= len(actions):
                raise ValueError(f"a label of {name} is out of range")
    except Exception as error:  # whatever is damaged in it
        raise EdgeHalError(f"cannot read {path}", f"{type(error).__name__}: {error}", todo) from error
    return found
