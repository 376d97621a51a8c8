"""Disturbances of the picture: light, shake, noise, occlusions and distractors.

All of it is faster, or slower, than the steps, and none of it says which step is going on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .pen import Colour, Image, Pen, Points, shade
from .scene import HEIGHT, WIDTH, Scene

Floats = npt.NDArray[np.float64]

_NOISE_PICTURES = 6


@dataclass(frozen=True)
class Light:
    """Gain of the picture: `fast` (T,) flickers, `slow` (T,) drifts, `tint` (3,) is the video's."""

    fast: Floats
    slow: Floats
    tint: Floats

    def table(self, frame: int) -> Image:
        """The look-up table (1, 256, 3) that lights one frame."""
        gain = self.fast[frame] * self.slow[frame] * self.tint
        lit = np.arange(256.0)[:, None] * gain
        return np.asarray(np.clip(lit, 0, 255), np.uint8)[None]


def sample_light(rng: np.random.Generator, frames: int, fps: float) -> Light:
    """Flicker per frame and at 1-4 Hz; drift over half a minute and more; a tint per video."""
    t = np.arange(frames) / fps
    fast = 1.0 + 0.035 * rng.normal(size=frames)
    for hz in rng.uniform(1.0, 4.0, 3):
        fast += rng.uniform(0.02, 0.06) * np.sin(2 * np.pi * (hz * t + rng.random()))
    slow = 1.0 + 0.10 * np.sin(2 * np.pi * (t / rng.uniform(25, 90) + rng.random()))
    slow *= rng.uniform(0.88, 1.12)
    tint = np.array([rng.uniform(0.88, 1.10), 1.0, rng.uniform(0.90, 1.10)])
    return Light(fast, slow, tint)


def sample_shake(rng: np.random.Generator, frames: int, fps: float) -> Floats:
    """Camera displacement (T, 3): x and y in bench units, turn in radians."""
    t = np.arange(frames)[:, None] / fps
    sway = np.sin(2 * np.pi * (rng.uniform(0.1, 0.9, (1, 3)) * t + rng.random((1, 3))))
    mounting = np.clip(rng.normal(0.0, 1.0, (1, 3)), -2, 2) * (2.0, 2.0, 0.012)
    jolt = 0.45 * rng.normal(size=(frames, 3))
    return mounting + (sway * 0.9 + jolt) * (1.0, 1.0, 0.004)


class Noise:
    """Sensor noise from a small bank of pictures, shifted at random."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        shape = (_NOISE_PICTURES, height + 16, width + 16, 3)
        bank = 128.0 + rng.uniform(2.5, 5.0) * rng.standard_normal(shape, np.float32)
        self._bank = np.clip(np.rint(bank), 0, 255).astype(np.uint8)
        self._rng, self._size = rng, (height, width)

    def add(self, image: Image) -> Image:
        k, y, x = self._rng.integers(0, (_NOISE_PICTURES, 17, 17))
        noise = self._bank[k, y : y + self._size[0], x : x + self._size[1]]
        return np.asarray(cv2.addWeighted(image, 1.0, noise, 1.0, -128.0), np.uint8)


@dataclass(frozen=True)
class Occlusion:
    """One thing passing between camera and bench; `kind` 0 an arm, 1 a head, 2 a sheet."""

    start_s: float
    length_s: float
    kind: int
    target: Points
    colour: Colour


def sample_occlusions(rng: np.random.Generator, duration_s: float, scene: Scene) -> list[Occlusion]:
    """Something covers part of the view about every ten seconds, for 0.3 to 1.5 s."""
    found, t = [], rng.exponential(8.0)
    while t < duration_s - 1.5:
        length_s, kind = rng.uniform(0.3, 1.5), int(rng.integers(3))
        colour = (scene.colours["sleeve"], (44, 50, 60), (196, 206, 214))[kind]
        target = scene.fixture + rng.normal(0.0, 14.0, 2)
        found.append(Occlusion(t, length_s, kind, target, colour))
        t += length_s + rng.exponential(9.0)
    return found


def draw_occlusion(pen: Pen, what: Occlusion, t: float, scene: Scene) -> None:
    """A colleague's arm from above, a head from below or a sheet of paper from the side."""
    u = (t - what.start_s) / what.length_s
    if not 0.0 <= u <= 1.0:
        return
    inside = min(1.0, 3.0 * np.sin(np.pi * u))  # in quickly, out quickly
    x, y = what.target
    if what.kind == 0:
        tip = np.array([x, -40 + (y + 50) * inside])
        root = np.array([x - 45, -70.0])
        axis = (tip - root) / np.hypot(*(tip - root))
        side = np.array([-axis[1], axis[0]])
        wrist = tip - 22 * axis
        arm = np.stack([root - 24 * side, root + 24 * side, wrist + 13 * side, wrist - 13 * side])
        pen.poly(arm, what.colour, shade(what.colour, 0.7))
        pen.line(np.stack([wrist - 3 * axis, tip]), 20, scene.colours["skin"])
        for k in (-7.0, -2.5, 2.5, 7.0):
            pen.line(np.stack([tip, tip + 15 * axis + k * side]), 5.5, scene.colours["skin"])
    elif what.kind == 1:
        place = pen.at((x, HEIGHT + 60 - (HEIGHT - y + 45) * inside))
        place.at((0, 58)).rect((74, 34), shade(scene.colours["sleeve"], 0.85))
        place.disc((-34, 4), 7, scene.colours["skin"])
        place.disc((34, 4), 7, scene.colours["skin"])
        place.disc((0, -30), 6, scene.colours["skin"])
        place.disc((0, 0), 35, shade(what.colour, 0.75))
        place.disc((-2, -2), 31, what.colour)
        place.disc((-7, -8), 19, shade(what.colour, 1.2))
        place.disc((-9, -11), 9, shade(what.colour, 1.4))
    else:
        left = x < WIDTH / 2
        outside = -70.0 if left else WIDTH + 70.0
        sheet = pen.at((outside + (x - outside) * inside, y), 0.3)
        sheet.rect((42, 54), what.colour, shade(what.colour, 0.75))
        for k in range(-4, 5):
            sheet.line(np.array([[-32.0, k * 10], [32, k * 10]]), 1.5, shade(what.colour, 0.8))


class Distractors:
    """A fan, a tablet whose picture changes, a blinking lamp and a clockwork mouse."""

    def __init__(self, rng: np.random.Generator, duration_s: float, scene: Scene) -> None:
        self._fan_hz, self._blink_hz = rng.uniform(0.8, 2.3), rng.uniform(0.7, 2.5)
        self._cuts = np.cumsum(rng.uniform(0.4, 3.0, int(duration_s / 0.4) + 1))
        self._pictures = rng.integers(30, 230, (len(self._cuts) + 1, 3, 3)).astype(float)
        self._device = scene.device
        self._runs = [
            (rng.uniform(0, duration_s), rng.uniform(2.5, 5.0), rng.uniform(140, 172), rng.random())
            for _ in range(1 + rng.poisson(duration_s / 20))
        ]

    def draw(self, pen: Pen, t: float) -> None:
        fan = pen.at((222, 20))
        fan.disc((0, 0), 16, (66, 66, 70))
        fan.disc((0, 0), 14.5, (110, 112, 116))
        for blade in range(3):
            vane = fan.at((0, 0), 2 * np.pi * (self._fan_hz * t + blade / 3))
            vane.poly(np.array([[0, -2], [9, -5.5], [13, -1], [11, 4], [0, 2]]), (206, 200, 190))
        fan.disc((0, 0), 3.2, (50, 50, 54))
        tablet = pen.at((88, 163), -0.05)
        tablet.rect((24, 15), (34, 32, 32))
        a, b, c = self._pictures[np.searchsorted(self._cuts, t)]
        tablet.rect((21.5, 12.5), tuple(a))
        tablet.at((-9, 2)).rect((9, 7), tuple(b))
        tablet.at((11, -3 + 2 * np.sin(5 * t))).rect((6, 5), tuple(c))
        on = (self._blink_hz * t) % 1.0 < 0.5
        lamp = (60.0, 60.0, 250.0) if on else (20.0, 20.0, 70.0)
        pen.disc((self._device[0] + 17, self._device[1] + 12), 2.2, lamp)
        for start_s, length_s, lane, side in self._runs:
            u = (t - start_s) / length_s
            if 0.0 <= u <= 1.0:
                x = -20 + (WIDTH + 40) * (u if side < 0.5 else 1 - u)
                mouse = pen.at((x, lane + 5 * np.sin(9 * u)), 0.0 if side < 0.5 else np.pi)
                mouse.line(np.array([[-18, 2 * np.sin(14 * t)], [-8, 0]]), 1.2, (150, 130, 190))
                body = np.array([[-9, 0], [-6, -5], [2, -5], [10, 0], [2, 5], [-6, 5]], float)
                mouse.poly(body, (128, 122, 120), (70, 66, 64))
                mouse.disc((3, -4), 2.2, (160, 140, 200))
                mouse.disc((3, 4), 2.2, (160, 140, 200))
