"""Videos drawn from a known hidden Markov model, and how well an alignment finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_videos(
    seed: int,
    videos: int = 12,
    actions: int = 5,
    segments: tuple[int, int] = (6, 10),
    noise: float = 1.0,
    width: int = 8,
) -> tuple[list[NDArray[np.float32]], list[tuple[int, ...]], list[NDArray[np.int64]]]:
    """Features, transcripts and true labels of a hidden Markov model with uneven durations."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(actions, 2, width)) * 2
    typical = np.exp(rng.normal(np.log(12), 0.6, actions))
    features, transcripts, truth = [], [], []
    for _ in range(videos):
        order = [int(rng.integers(actions))]
        while len(order) < rng.integers(*segments):
            order.append(int(rng.choice([k for k in range(actions) if k != order[-1]])))
        labels: list[int] = []
        rows = []
        for action in order:
            length = int(max(typical[action] * np.exp(rng.normal(0, 0.3)), 4))
            half = np.arange(length) * 2 // length
            labels += [action] * length
            rows.append(means[action, half] + noise * rng.normal(size=(length, width)))
        features.append(np.concatenate(rows).astype(np.float32))
        transcripts.append(tuple(order))
        truth.append(np.array(labels))
    return features, transcripts, truth


def accuracy(labels: Sequence[NDArray[np.integer[Any]]], truth: Sequence[NDArray[np.integer[Any]]]) -> float:
    return float((np.concatenate(labels) == np.concatenate(truth)).mean())
