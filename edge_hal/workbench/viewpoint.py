"""From where a session is filmed. Cameras of one bench see the same work from different sides, each with its own shake,
noise and occlusions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .pen import Image, Pen, Points, shade
from .scene import HEIGHT, WIDTH, Scene

BLOCKED_S, APART_S = (3.0, 9.0), 16.0
"""How long somebody stands before the camera, and the mean time between two of them."""


@dataclass(frozen=True)
class Viewpoint:
    """A camera.

    Attributes:
        number: decides its shake, noise and occlusions. Camera 0 is that of the data set.
        corners: where it sees the corners of the bench, clockwise from the top left one, in parts of the picture's
            width and height; None: straight from above.
        blocked: now and then somebody stands between it and the bench and covers nearly all of it.
    """

    number: int = 0
    corners: tuple[tuple[float, float], ...] | None = None
    blocked: bool = False

    def sees(self, image: Image) -> Image:
        """The picture from above (height, width, 3) as this camera sees it, the same shape."""
        if self.corners is None:
            return image
        height, width = image.shape[:2]
        size = np.array([width, height], np.float32)
        bench = size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
        seen = cv2.getPerspectiveTransform(bench, size * np.array(self.corners, np.float32))
        made = cv2.warpPerspective(
            image, seen, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(made, np.uint8)


ABOVE = Viewpoint()
LEFT = Viewpoint(blocked=True)
RIGHT = Viewpoint(1, ((0.98, 0.86), (0.06, 1.02), (0.16, 0.06), (0.84, -0.04)), blocked=True)
"""`LEFT` is mounted above the bench, `RIGHT` across it."""


@dataclass(frozen=True)
class Block:
    """Somebody covers the view. `side`: from where they come, -1 or 1; `reach`: how much they cover, in widths."""

    start_s: float
    length_s: float
    side: int
    reach: float


def sample_blocks(rng: np.random.Generator, duration_s: float) -> list[Block]:
    """About a quarter of the time is covered."""
    found, t = [], rng.exponential(APART_S)
    while t < duration_s - BLOCKED_S[0]:
        length_s = float(rng.uniform(*BLOCKED_S))
        found.append(Block(t, length_s, int(rng.choice((-1, 1))), float(rng.uniform(0.8, 1.0))))
        t += length_s + rng.exponential(APART_S)
    return found


def draw_block(pen: Pen, what: Block, t: float, scene: Scene) -> None:
    """A back and a shoulder."""
    u = (t - what.start_s) / what.length_s
    if not 0.0 <= u <= 1.0:
        return
    covered = WIDTH * what.reach * min(1.0, 6.0 * np.sin(np.pi * u))  # in and out within a second
    edge = covered if what.side < 0 else WIDTH - covered
    outside = -90.0 if what.side < 0 else WIDTH + 90.0
    sway = 3.0 * np.sin(2.1 * t)
    back: Points = np.array([[outside, -30], [edge + sway, -30], [edge - sway, HEIGHT + 30], [outside, HEIGHT + 30]])
    colour = scene.colours["sleeve"]
    pen.poly(back, shade(colour, 0.8), shade(colour, 0.6))
    seam = (edge + outside) / 2
    pen.line(np.array([[seam, -30.0], [seam + sway, HEIGHT + 30]]), 4, shade(colour, 0.65))
