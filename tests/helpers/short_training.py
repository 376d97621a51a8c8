"""A training short enough for a test, and whether two trainings gave the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

BRIEF = [
    "learning.restarts=2",
    "learning.teacher.warm_epochs=1",
    "learning.teacher.epochs=3",
    "learning.teacher.realign_every=2",
    "learning.student.epochs=3",
]


def weights(run: Path) -> dict[str, np.ndarray]:
    with safe_open(run / "model.safetensors", "np") as stored:
        return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118


def assert_same_run(one: Path, two: Path) -> None:
    """Weights, thresholds, table and alignment, bit for bit."""
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert [key for key in first if not np.array_equal(first[key], second[key])] == []
    for name in ("model.safetensors", "alignment.json", "config.yaml"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    with np.load(one / "reference.npz") as a, np.load(two / "reference.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a)
