"""Augmented copies of videos: other light, other colours, and another view of the camera, the same for a whole video.

A frozen encoder has never seen these videos, so its vectors can be computed from pictures that were never filmed. The
ranges are those usual for photometric and geometric augmentation; each copy draws its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOG_GAMMA, LOG_GAIN, LOG_CONTRAST, LOG_TINT = 0.4, (-0.4, 0.3), 0.3, 0.2
LOG_SATURATION, HUE = (-0.5, 0.3), 12.0
"""Hue in OpenCV's units: 180 are a full turn."""
LOG_ZOOM, TURN_RAD, SHIFT, CORNER = 0.12, 0.15, 0.06, 0.06
"""Shift of the picture and of each corner, as parts of width and height."""


@dataclass(frozen=True)
class Augmentation:
    """What one copy changes in pictures of one size. `table`: (1, 256, 3) look-up of each channel. `camera`: (3, 3)
    homography. `hue`, `saturation`: added to and multiplied with those of the picture."""

    table: NDArray[np.uint8]
    camera: NDArray[np.float64]
    hue: float
    saturation: float

    @staticmethod
    def sample(rng: np.random.Generator, height: int, width: int) -> Augmentation:
        import cv2

        gamma, contrast = np.exp(rng.uniform(-LOG_GAMMA, LOG_GAMMA)), np.exp(rng.uniform(-LOG_CONTRAST, LOG_CONTRAST))
        gain, tint = np.exp(rng.uniform(*LOG_GAIN)), np.exp(rng.uniform(-LOG_TINT, LOG_TINT, 3))
        level = np.arange(256.0)[:, None] / 255
        lit = ((level**gamma - 0.5) * contrast + 0.5) * gain * tint / tint.mean()
        size = np.array([width, height], float)
        corners = size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        zoom, turn = np.exp(rng.uniform(-LOG_ZOOM, LOG_ZOOM)), rng.uniform(-TURN_RAD, TURN_RAD)
        rotation = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        moved = (corners - size / 2) @ rotation.T + size / 2
        moved += size * rng.uniform(-SHIFT, SHIFT, 2) + size * rng.uniform(-CORNER, CORNER, (4, 2))
        camera: Any = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
        return Augmentation(
            np.clip(255 * lit, 0, 255).astype(np.uint8)[None],
            np.asarray(camera, float),
            float(rng.uniform(-HUE, HUE)),
            float(np.exp(rng.uniform(*LOG_SATURATION))),
        )

    def of(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 BGR (H, W, 3), the same shape."""
        import cv2

        height, width = picture.shape[:2]
        seen = cv2.warpPerspective(picture, self.camera, (width, height), borderMode=cv2.BORDER_REPLICATE)
        colours = cv2.cvtColor(seen, cv2.COLOR_BGR2HSV).astype(np.float32)
        colours[..., 0] = (colours[..., 0] + self.hue) % 180
        colours[..., 1] = np.clip(colours[..., 1] * self.saturation, 0, 255)
        return np.asarray(cv2.LUT(cv2.cvtColor(colours.astype(np.uint8), cv2.COLOR_HSV2BGR), self.table), np.uint8)
