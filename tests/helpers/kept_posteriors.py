"""Run directories with the posteriors of a held out video, as a training keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_hal.calib.held_out_file import HELD_OUT_FILE, HeldOut


def keep(run: Path, seed: int, strength: float, actions: tuple[str, ...] = ("cut", "fold", "glue")) -> None:
    """What a training keeps: posteriors that are right so often."""
    run.mkdir()
    rng, labels = np.random.default_rng(seed), np.arange(900) // 30 % 3
    scores = rng.normal(size=(900, 3))
    scores[np.arange(900), labels] += strength
    scores *= strength
    rows = (scores - np.log(np.exp(scores).sum(-1, keepdims=True))).astype(np.float32)
    held = HeldOut(actions, 10.0, 0, {"one": rows}, {"one": labels})
    np.savez_compressed(run / HELD_OUT_FILE, allow_pickle=False, **held.arrays())
