"""Videos drawn from a known hidden Markov model, and how well an alignment finds it."""

from __future__ import annotations

import numpy as np


def make_videos(seed, videos=12, actions=5, segments=(6, 10), noise=1.0, width=8):
    """Features, transcripts and true labels of a hidden Markov model with uneven durations."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(actions, 2, width)) * 2
    typical = np.exp(rng.normal(np.log(12), 0.6, actions))
    features, transcripts, truth = [], [], []
    for _ in range(videos):
        order = [int(rng.integers(actions))]
        while len(order) < rng.integers(*segments):
            order.append(int(rng.choice([k for k in range(actions) if k != order[-1]])))
        labels, rows = [], []
        for action in order:
            length = int(max(typical[action] * np.exp(rng.normal(0, 0.3)), 4))
            half = np.arange(length) * 2 // length
            labels += [action] * length
            rows.append(means[action, half] + noise * rng.normal(size=(length, width)))
        features.append(np.concatenate(rows).astype(np.float32))
        transcripts.append(tuple(order))
        truth.append(np.array(labels))
    return features, transcripts, truth


def accuracy(labels, truth):
    return float((np.concatenate(labels) == np.concatenate(truth)).mean())
