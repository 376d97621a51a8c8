"""Where videos are filmed: colours of bench, clothes and hands, the light, and the view of the camera.

`HOME` is the place of the data set. `ELSEWHERE` shares no bench, mat, sleeve or hand with it, has other light in each
video, and its camera is mounted at another angle. The product and its tools are the same, and so are the steps. Others
can be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .pen import Colour, Image

Floats = npt.NDArray[np.float64]

TINT, GAIN, GAMMA = (0.78, 1.22), (0.65, 1.2), (0.75, 1.35)
SHADE = (0.55, 0.9)
"""Light on the darkest side of the picture, as a share of that on the brightest side."""
ZOOM, TURN_RAD, SHIFT, CORNER = (0.9, 1.1), 0.12, 0.05, 0.06
"""Shift and the displacement of each corner are parts of the picture's width and height."""


@dataclass(frozen=True)
class Place:
    """`bench` to `skin`: the colours of which each video takes one. `varied`: each video has light and a view of its
    own."""

    bench: tuple[Colour, ...]
    mat: tuple[Colour, ...]
    sleeve: tuple[Colour, ...]
    skin: tuple[Colour, ...]
    varied: bool = False

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Place:
        """Three benches and mats, and four sleeves and hands, of any colours."""

        def colours(count: int) -> tuple[Colour, ...]:
            return tuple((int(b), int(g), int(r)) for b, g, r in rng.integers(30, 226, (count, 3)))

        return cls(colours(3), colours(3), colours(4), colours(4), varied=True)


HOME = Place(
    bench=((100, 134, 164), (122, 142, 158), (92, 118, 144)),
    mat=((112, 118, 92), (104, 112, 112), (122, 110, 90)),
    sleeve=((140, 82, 48), (70, 70, 76), (60, 66, 148), (92, 108, 60)),
    skin=((130, 164, 212), (96, 130, 182), (62, 88, 130)),
)
ELSEWHERE = Place(
    bench=((208, 212, 214), (150, 138, 124), (70, 84, 66)),  # white laminate, steel, green paint
    mat=((150, 84, 40), (44, 44, 46), (96, 130, 170)),  # blue, black, cardboard
    sleeve=((214, 216, 218), (40, 120, 226), (70, 170, 220)),  # white, orange, yellow
    skin=((186, 120, 52), (36, 46, 74), (178, 200, 230), (60, 60, 60)),  # blue gloves, dark, light, black gloves
    varied=True,
)


class View:
    """What camera and light of one video do to its pictures of (height, width)."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        gamma, gain, tint = rng.uniform(*GAMMA), rng.uniform(*GAIN), rng.uniform(*TINT, 3)
        lit = 255 * (np.arange(256.0)[:, None] / 255) ** gamma * gain * tint / tint.mean()
        self._table: Image = np.clip(lit, 0, 255).astype(np.uint8)[None]
        towards, darkest = rng.uniform(0, 2 * np.pi), rng.uniform(*SHADE)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        across = (x * np.cos(towards) + y * np.sin(towards)) / np.sqrt(2)
        brightness = darkest + (1 - darkest) * (across + 1) / 2
        self._brightness = np.repeat((255 * brightness).astype(np.uint8)[..., None], 3, 2)
        self._camera = _homography(rng, width, height)
        self._size = (width, height)

    def of(self, image: Image) -> Image:
        """(height, width, 3), the same shape."""
        seen = cv2.warpPerspective(
            image, self._camera, self._size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(cv2.multiply(cv2.LUT(seen, self._table), self._brightness, scale=1 / 255), np.uint8)


def _homography(rng: np.random.Generator, width: int, height: int) -> Floats:
    """(3, 3): the picture moved, turned, zoomed, and seen from the side."""
    size = np.array([width, height], float)
    corners = size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    zoom, turn = rng.uniform(*ZOOM), rng.uniform(-TURN_RAD, TURN_RAD)
    rotation = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = (corners - size / 2) @ rotation.T + size / 2 + size * rng.uniform(-SHIFT, SHIFT, 2)
    moved += size * rng.uniform(-CORNER, CORNER, (4, 2))
    return np.asarray(cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32)), float)
