"""Video files of plain colours, for the known bundle of pictures, whose label is the strongest colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

HZ = 10.0
Colour = tuple[int, int, int]
BLUE, GREEN, RED = (250, 20, 20), (20, 250, 20), (20, 20, 250)
ALMOST_GREEN: Colour = (134, 136, 20)
"""Posterior 0.52 of green, 0.48 of blue."""


def write_film(path: Path, parts: Sequence[tuple[Colour, int]], size: tuple[int, int] = (96, 64)) -> Path:
    """`parts`: BGR and number of frames. Each picture has a grey stripe whose place counts the frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), HZ, size)
    count = 0
    for colour, frames in parts:
        for _ in range(frames):
            picture = np.full((size[1], size[0], 3), colour, np.uint8)
            picture[:, count % size[0]] = 128
            writer.write(picture)
            count += 1
    writer.release()
    return path
