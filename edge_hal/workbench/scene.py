"""The bench and what lies on it: where everything is in one video, and how it is drawn.

Lengths are in units of a 240 x 180 picture whatever the size it is drawn at; colours are BGR.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .pen import Colour, Image, Pen, Points, shade
from .place import Place
from .procedure import Procedure

WIDTH, HEIGHT = 240.0, 180.0
_FIXTURE = (117.0, 98.0)
_REST = (158.0, 166.0)


@dataclass(frozen=True)
class World:
    """What the work has changed so far: parts in the fixture, and marks of each kind, such as screws or grease."""

    fitted: frozenset[str] = frozenset()
    in_hand: str | None = None
    marks: tuple[tuple[str, int], ...] = ()

    def take(self, item: str) -> World:
        return replace(self, in_hand=item)

    def put_back(self) -> World:
        return replace(self, in_hand=None)

    def fit(self, part: str) -> World:
        return replace(self, in_hand=None, fitted=self.fitted | {part})

    def count(self, mark: str) -> int:
        return dict(self.marks).get(mark, 0)

    def marked(self, mark: str, number: int) -> World:
        """With `number` more of these marks."""
        return replace(self, marks=tuple(sorted({**dict(self.marks), mark: self.count(mark) + number}.items())))


@dataclass(frozen=True)
class Scene:
    """One video's bench: places (jittered), colours and materials."""

    procedure: Procedure
    home: dict[str, Points]
    home_angle: dict[str, float]
    held_angle: dict[str, float]
    fixture: Points
    device: Points
    rest: Points
    shoulder: Points
    colours: dict[str, Colour]
    grain: int

    def grip(self, item: str, angle: float) -> Points:
        """Where the hand is, relative to the item's origin, when it holds it at `angle`."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.procedure.layout.grip[item]
        return np.array([c * x - s * y, s * x + c * y])


def sample_scene(rng: np.random.Generator, place: Place, procedure: Procedure) -> Scene:
    """Places and colours of one video."""
    layout = procedure.layout

    def near(xy: tuple[float, float], std: float) -> Points:
        return np.asarray(xy) + np.clip(rng.normal(0.0, std, 2), -2 * std, 2 * std)

    def tone(*choices: Colour) -> Colour:
        chosen = np.asarray(choices[rng.integers(len(choices))]) * rng.uniform(0.88, 1.1)
        b, g, r = np.clip(chosen + rng.normal(0.0, 5.0, 3), 0, 255)
        return (float(b), float(g), float(r))

    return Scene(
        procedure=procedure,
        home={item: near(xy, 2.5) for item, xy in layout.home.items()},
        home_angle={i: layout.home_angle.get(i, 0.0) + rng.normal(0.0, 0.1) for i in layout.home},
        held_angle={i: layout.held_angle.get(i, 0.0) + rng.normal(0.0, 0.08) for i in layout.home},
        fixture=near(_FIXTURE, 2.5),
        device=near(layout.device, 2.0),
        rest=near(_REST, 5.0),
        shoulder=near((188.0, 262.0), 9.0),
        colours={
            "bench": tone(*place.bench),
            "mat": tone(*place.mat),
            "sleeve": tone(*place.sleeve),
            "skin": tone(*place.skin),
            **{item: tone(colour) for item, colour in layout.colours.items()},
        },
        grain=int(rng.integers(2**31)),
    )


def draw_bench(scene: Scene, width: int, height: int) -> Image:
    """The empty bench with its mat, trays, fixture and device (height, width, 3)."""
    rng = np.random.default_rng(scene.grain)
    colours = scene.colours
    streaks = rng.normal(0.0, 1.0, (height, max(2, width // 24))).astype(np.float32)
    wood = cv2.GaussianBlur(cv2.resize(streaks, (width, height)), (0, 0), 0.8 * width / WIDTH)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall_off = 1.08 - 0.38 * (np.hypot(x / width - 0.42, (y / height - 0.38) * 0.8) ** 1.6)
    surface = (np.asarray(colours["bench"]) + 4.5 * wood[..., None]) * fall_off[..., None]
    image: Image = np.ascontiguousarray(np.clip(surface, 0, 255).astype(np.uint8))

    pen = Pen.on(image, width / WIDTH)
    dark = shade(colours["bench"], 0.62)
    mat = pen.at(scene.fixture)
    mat.at((2, 3)).rect((50, 40), shade(colours["bench"], 0.7))
    mat.rect((50, 40), colours["mat"], shade(colours["mat"], 0.75))
    for k in range(-4, 5):
        mat.line(np.array([[k * 11.0, -38], [k * 11.0, 38]]), 0.5, shade(colours["mat"], 1.12))
    for k in range(-3, 4):
        mat.line(np.array([[-48, k * 11.0], [48, k * 11.0]]), 0.5, shade(colours["mat"], 1.12))
    mat.rect((31, 23), shade(colours["mat"], 0.62))
    mat.rect((29, 21), shade(colours["mat"], 0.8))
    for items, (w, h) in scene.procedure.layout.trays:
        tray = pen.at(np.mean([scene.home[item] for item in items], 0))
        tray.rect((w, h), shade(dark, 0.9), shade(dark, 0.7))
        tray.rect((w - 2.5, h - 2.5), dark)
    scene.procedure.draw_device(pen, scene)
    return image


def draw_world(image: Image, scene: Scene, world: World) -> None:
    """Everything that lies still: items at home and the work in the fixture."""
    pen, procedure = Pen.on(image, image.shape[1] / WIDTH), scene.procedure
    shadow = shade(scene.colours["bench"], 0.5)
    for item in (*procedure.parts, *procedure.tools):
        if item == world.in_hand or item in world.fitted:
            continue
        place, angle = scene.home[item], scene.home_angle[item]
        procedure.draw_item(pen.at(place + np.array([1.3, 1.8]), angle), item, scene, shadow)
        procedure.draw_item(pen.at(place, angle), item, scene, None)
    procedure.draw_work(pen.at(scene.fixture), scene, world)
