"""Pictures that only motion tells apart."""

from __future__ import annotations

import numpy as np

HZ, SIZE = 10.0, 16


def moving_dot(rng: np.random.Generator, ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (T, 16, 16, 3) of a dot that goes round, and which way (T,): every picture fits both."""
    way = np.repeat(rng.permutation(np.arange(ticks // 40) % 2), 40)
    angle = np.cumsum(np.where(way == 0, 1, -1) * 0.25) + rng.uniform(0, 6)
    rows, columns = (8 + 5 * np.sin(angle)).round().astype(int), (8 + 5 * np.cos(angle)).round().astype(int)
    pictures = np.full((ticks, SIZE, SIZE, 3), 60, np.uint8)
    for tick, (row, column) in enumerate(zip(rows, columns, strict=True)):
        pictures[tick, row - 1 : row + 2, column - 1 : column + 2] = 240
    return pictures, way
