"""A pen that draws anti-aliased shapes in a moved, turned and scaled frame of reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]

_SHIFT = 4  # fractional bits of coordinates: sixteenths of a pixel
_ONE = 1 << _SHIFT


@dataclass(frozen=True)
class Pen:
    """Draws on `image`; a point (x, y) of its own frame lands on pixel `turn * (x, y) + (x0, y0)`,
    where `turn` is the rotation and zoom `((c, -s), (s, c))`."""

    image: Image
    c: float
    s: float = 0.0
    x0: float = 0.0
    y0: float = 0.0

    @staticmethod
    def on(image: Image, scale: float) -> Pen:
        return Pen(image, scale)

    def at(self, xy: Points | tuple[float, float], angle: float = 0.0, zoom: float = 1.0) -> Pen:
        """A pen whose origin is at `xy`, turned by `angle` (radians, clockwise as seen)."""
        c, s = math.cos(angle) * zoom, math.sin(angle) * zoom
        x0, y0 = self.pixel(xy)
        return Pen(self.image, self.c * c - self.s * s, self.s * c + self.c * s, x0, y0)

    @property
    def scale(self) -> float:
        """Pixels per unit."""
        return math.hypot(self.c, self.s)

    def pixel(self, xy: Points | tuple[float, float]) -> tuple[float, float]:
        x, y = float(xy[0]), float(xy[1])
        return self.c * x - self.s * y + self.x0, self.s * x + self.c * y + self.y0

    def poly(self, points: Points, colour: Colour, edge: Colour | None = None) -> None:
        pixels = self._pixels(points)
        cv2.fillPoly(self.image, [pixels], colour, cv2.LINE_AA, _SHIFT)
        if edge is not None:
            cv2.polylines(self.image, [pixels], True, edge, 1, cv2.LINE_AA, _SHIFT)

    def rect(self, half: tuple[float, float], colour: Colour, edge: Colour | None = None) -> None:
        """A rectangle with cut corners around the origin."""
        w, h = half
        c = min(0.18 * min(w, h), 3.0)
        x = np.array([-w + c, w - c, w, w, w - c, -w + c, -w, -w])
        y = np.array([-h, -h, -h + c, h - c, h, h, h - c, -h + c])
        self.poly(np.stack([x, y], 1), colour, edge)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        thick = max(1, round(width * self.scale))
        cv2.polylines(self.image, [self._pixels(points)], False, colour, thick, cv2.LINE_AA, _SHIFT)

    def disc(self, xy: tuple[float, float], radius: float, colour: Colour) -> None:
        self._circle(xy, radius, colour, cv2.FILLED)

    def ring(self, xy: tuple[float, float], radius: float, width: float, colour: Colour) -> None:
        self._circle(xy, radius, colour, max(1, round(width * self.scale)))

    def _circle(self, xy: tuple[float, float], radius: float, colour: Colour, thick: int) -> None:
        x, y = self.pixel(xy)
        middle = (round(x * _ONE), round(y * _ONE))
        r = max(1, round(radius * self.scale * _ONE))
        cv2.circle(self.image, middle, r, colour, thick, cv2.LINE_AA, _SHIFT)

    def _pixels(self, points: Points) -> npt.NDArray[np.int32]:
        # Row vectors, so the turn is transposed; in place because this runs 40 times a frame.
        turn = np.array([[self.c, self.s], [-self.s, self.c]]) * _ONE
        placed = points @ turn
        placed += (self.x0 * _ONE + 0.5, self.y0 * _ONE + 0.5)
        return np.asarray(np.floor(placed), np.int32)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour `share` of the way from `a` to `b`."""
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor < 1) or lighter (factor > 1) colour."""
    return (
        min(255.0, colour[0] * factor),
        min(255.0, colour[1] * factor),
        min(255.0, colour[2] * factor),
    )
