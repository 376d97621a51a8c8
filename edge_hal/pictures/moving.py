"""What moves in a stream of pictures: whatever has rested for some seconds becomes grey.

An encoder then sees the hand, the tool and the part in motion, and not the state of the bench. So a step is not taken
for another one because the bench looks as it usually does then, and another place is less strange (docs/encoders.md).

The background is the median of the last pictures (the temporal median filter of M. Piccardi, "Background subtraction
techniques: a review", 2004). Training, calibration and runtime use this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.spec import EncoderSpec
from edge_hal.spec_limits import BACKGROUND

GREY = 128
DIFFERENCE = 16
"""Levels of a channel by which a pixel that moves differs from its background."""
SHRINK = 2
"""Motion is found in pictures of half the size."""
SHAKE, NOISE, MARGIN = 3, 2, 5
"""Sides of squares in those pictures: how far a camera may shake, what is too small to move, what is seen around a
thing that moves."""
COARSE, LIGHT = 16, 1.6
"""The light is compared in `COARSE` rows and columns. A ratio over `LIGHT` is no lamp and no exposure: the lens is
covered, or the camera was moved, and that is seen."""
WHOLE = GREY
"""The weight of a pixel that moves; the rest of it is grey."""


@dataclass(frozen=True)
class Background:
    """What rests in pictures of one size.

    Attributes:
        low, high: (h, w, 3) uint8, the least and the greatest neighbours of each pixel: a camera that shakes shows
            these.
        coarse: (COARSE, COARSE, 3) float32.
    """

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    coarse: NDArray[np.float32]

    @classmethod
    def of(cls, picture: NDArray[np.uint8]) -> Background:
        """uint8 BGR (h, w, 3), with nothing that moves."""
        import cv2

        near = np.ones((SHAKE, SHAKE), np.uint8)
        low, high = np.asarray(cv2.erode(picture, near)), np.asarray(cv2.dilate(picture, near))
        return cls(low.astype(np.uint8), high.astype(np.uint8), _coarse(picture))

    def light(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3,) the light on the picture, as a ratio to that on the background, of each channel. A lamp, or the camera
        itself, changes the whole picture."""
        ratio = np.median((_coarse(picture) + 1) / (self.coarse + 1), axis=(0, 1))
        return np.asarray(np.clip(ratio, 1 / LIGHT, LIGHT), np.float32)

    def moving(self, picture: NDArray[np.uint8], margin: int = MARGIN) -> NDArray[np.uint8]:
        """uint8 (h, w): `WHOLE` where something moves, 0 where everything rests. `margin`: the side of a square that is
        added to what moves."""
        import cv2

        light: Any = (*self.light(picture).tolist(), 0.0)
        low, high = cv2.multiply(self.low, light), cv2.multiply(self.high, light)
        blue, green, red = cv2.split(cv2.max(cv2.subtract(picture, high), cv2.subtract(low, picture)))
        differs = (np.asarray(cv2.max(cv2.max(blue, green), red)) > DIFFERENCE).astype(np.uint8) * WHOLE
        large = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((NOISE, NOISE), np.uint8))
        return np.asarray(cv2.dilate(large, np.ones((margin, margin), np.uint8)), np.uint8)


def _coarse(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.resize(picture, (COARSE, COARSE), interpolation=cv2.INTER_AREA), np.float32)


def median_picture(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, h, w, 3) -> (h, w, 3): the median of each pixel; of an even number the greater of the two in the middle."""
    # A copy, because a view would keep all of them.
    return np.array(np.sort(pictures, axis=0)[len(pictures) // 2])


class MovingParts:
    """Greys what rests in pictures of one size. The state is constant in size.

    A picture that equals the last one changes nothing, so a frame that is held counts once.

    Args:
        window: a number of pictures. The background is the median of `BACKGROUND` of the last `window`, at equal
            distances.
    """

    def __init__(self, height: int, width: int, window: int) -> None:
        self._every = max(1, round(window / BACKGROUND))
        shape = (max(1, height // SHRINK), max(1, width // SHRINK), 3)
        self._kept = np.zeros((BACKGROUND, *shape), np.uint8)
        self._last = np.zeros((height, width, 3), np.uint8)
        self._count = 0  # pictures so far that differed from the one before
        self._small = self._kept[0]
        self._find_background()

    @classmethod
    def of(cls, encoder: EncoderSpec | None) -> MovingParts | None:
        """For the pictures of an encoder; None if it sees whole ones."""
        if encoder is None or not encoder.moving:
            return None
        return cls(encoder.height, encoder.width, encoder.moving)

    def reset(self) -> None:
        self._kept[:], self._last[:], self._count = 0, 0, 0
        self._find_background()

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 BGR (height, width, 3) of the same size; the first one is all grey."""
        import cv2

        if not self._count or not np.array_equal(picture, self._last):
            self._last[:] = picture
            self._small = self._shrunk(picture)
            number, self._count = self._count, self._count + 1
            if number % self._every == 0:
                self._kept[number // self._every % BACKGROUND] = self._small
                self._find_background()
        moving = cv2.resize(self._background.moving(self._small), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        weight = cv2.merge([moving, moving, moving])
        seen = cv2.multiply(picture, weight, scale=1 / WHOLE)
        return np.asarray(cv2.add(seen, cv2.subtract(np.full_like(picture, GREY), weight)), np.uint8)

    def _shrunk(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import cv2

        height, width = self._kept.shape[1:3]
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _find_background(self) -> None:
        some = self._kept[: min(BACKGROUND, -(-self._count // self._every))] if self._count else self._kept[:1]
        self._background = Background.of(median_picture(some))

    def state(self) -> dict[str, Any]:
        return {"kept": self._kept.copy(), "last": self._last.copy(), "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the count is out of range."""
        if not 0 <= state["count"] < 1 << 60:
            raise ValueError("the count of pictures is out of range")
        self._kept[:], self._last[:], self._count = state["kept"], state["last"], state["count"]
        self._small = self._shrunk(self._last)
        self._find_background()
