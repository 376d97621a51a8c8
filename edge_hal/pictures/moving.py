"""What moves in a stream of pictures: whatever has rested for some seconds becomes grey.

An encoder then sees the hand, the tool and the part in motion, and not the state of the bench. So a step is not taken
for another one because the bench looks as it usually does then, and another place is less strange (docs/encoders.md).

The background is the median of the last pictures (the temporal median filter of M. Piccardi, "Background subtraction
techniques: a review", 2004). Training, calibration and runtime use this module.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        moving = cv2.resize(self._moving(self._small), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        weight = cv2.merge([moving, moving, moving])
        seen = cv2.multiply(picture, weight, scale=1 / WHOLE)
        return np.asarray(cv2.add(seen, cv2.subtract(np.full_like(picture, GREY), weight)), np.uint8)

    def _shrunk(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import cv2

        height, width = self._kept.shape[1:3]
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _find_background(self) -> None:
        """The median, and its least and greatest neighbours: a camera that shakes shows these."""
        import cv2

        some = self._kept[: min(BACKGROUND, -(-self._count // self._every))] if self._count else self._kept[:1]
        background = np.sort(some, axis=0)[len(some) // 2]
        near = np.ones((SHAKE, SHAKE), np.uint8)
        self._low, self._high = cv2.erode(background, near), cv2.dilate(background, near)
        self._coarse = cv2.resize(background, (COARSE, COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)

    def _moving(self, small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(height / 2, width / 2): `WHOLE` where something moves, 0 where everything rests."""
        import cv2

        coarse = cv2.resize(small, (COARSE, COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)
        # A lamp, or the camera itself, changes the whole picture.
        ratio = np.median((coarse + 1) / (self._coarse + 1), axis=(0, 1))
        light: Any = (*np.clip(ratio, 1 / LIGHT, LIGHT).tolist(), 0.0)
        low, high = cv2.multiply(self._low, light), cv2.multiply(self._high, light)
        blue, green, red = cv2.split(cv2.max(cv2.subtract(small, high), cv2.subtract(low, small)))
        differs = (np.asarray(cv2.max(cv2.max(blue, green), red)) > DIFFERENCE).astype(np.uint8) * WHOLE
        large = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((NOISE, NOISE), np.uint8))
        return np.asarray(cv2.dilate(large, np.ones((MARGIN, MARGIN), np.uint8)), np.uint8)

    def state(self) -> dict[str, Any]:
        return {"kept": self._kept.copy(), "last": self._last.copy(), "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the count is out of range."""
        if not 0 <= state["count"] < 1 << 60:
            raise ValueError("the count of pictures is out of range")
        self._kept[:], self._last[:], self._count = state["kept"], state["last"], state["count"]
        self._small = self._shrunk(self._last)
        self._find_background()
