"""The bench and what lies on it: where everything is in one video, and how it is drawn.

Lengths are in units of a 240 x 180 picture whatever the size it is drawn at; colours are BGR.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .pen import Colour, Image, Pen, Points, mix, shade
from .place import Place

WIDTH, HEIGHT = 240.0, 180.0
TOOLS = ("screwdriver", "tube", "cloth", "magnifier", "probe")
PARTS = ("base", "gear_1", "gear_2", "cover")

# Where an item lies, how it is turned there and in the hand, and where the hand takes it:
# a point in the item's own frame, whose origin is the tip of a tool or the middle of a part.
_HOME: dict[str, tuple[float, float]] = {
    "cover": (40, 36),
    "base": (40, 88),
    "gear_1": (28, 133),
    "gear_2": (51, 133),
    "screwdriver": (92, 18),
    "tube": (124, 20),
    "cloth": (162, 30),
    "magnifier": (196, 52),
    "probe": (196, 86),
}
_HOME_ANGLE = {"screwdriver": 1.45, "tube": 1.75, "cloth": 0.1, "magnifier": 0.5, "probe": 0.35}
_HELD_ANGLE = {"screwdriver": 0.75, "tube": 0.95, "cloth": 0.4, "magnifier": 0.7, "probe": 1.2}
_GRIP: dict[str, tuple[float, float]] = {
    "cover": (22, 12),
    "base": (24, 14),
    "gear_1": (7, 5),
    "gear_2": (7, 5),
    "screwdriver": (27, 0),
    "tube": (20, 0),
    "cloth": (5, 3),
    "magnifier": (27, 0),
    "probe": (22, 0),
}
_FIXTURE = (117.0, 98.0)
_METER = (206.0, 124.0)
_REST = (158.0, 166.0)
CORNERS: Points = np.array([[-22.0, -15.0], [22.0, -15.0], [22.0, 15.0], [-22.0, 15.0]])
SLOTS: Points = np.array([[-9.5, 0.0], [9.5, 0.0]])
METER_PADS: Points = np.array([[-9.0, 10.0], [7.0, 10.0]])


@dataclass(frozen=True)
class World:
    """What the work has changed so far: parts in the fixture, blobs of grease, screws, clean."""

    fitted: frozenset[str] = frozenset()
    in_hand: str | None = None
    grease: int = 0
    screws: int = 0

    def take(self, item: str) -> World:
        return replace(self, in_hand=item)

    def put_back(self) -> World:
        return replace(self, in_hand=None)

    def fit(self, part: str) -> World:
        return replace(self, in_hand=None, fitted=self.fitted | {part})


@dataclass(frozen=True)
class Scene:
    """One video's bench: places (jittered), colours and materials."""

    home: dict[str, Points]
    home_angle: dict[str, float]
    held_angle: dict[str, float]
    fixture: Points
    meter: Points
    rest: Points
    shoulder: Points
    colours: dict[str, Colour]
    grain: int

    def grip(self, item: str, angle: float) -> Points:
        """Where the hand is, relative to the item's origin, when it holds it at `angle`."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = _GRIP[item]
        return np.array([c * x - s * y, s * x + c * y])


def sample_scene(rng: np.random.Generator, place: Place) -> Scene:
    """Places and colours of one video."""

    def near(xy: tuple[float, float], std: float) -> Points:
        return np.asarray(xy) + np.clip(rng.normal(0.0, std, 2), -2 * std, 2 * std)

    def tone(*choices: Colour) -> Colour:
        chosen = np.asarray(choices[rng.integers(len(choices))]) * rng.uniform(0.88, 1.1)
        b, g, r = np.clip(chosen + rng.normal(0.0, 5.0, 3), 0, 255)
        return (float(b), float(g), float(r))

    return Scene(
        home={item: near(xy, 2.5) for item, xy in _HOME.items()},
        home_angle={i: _HOME_ANGLE.get(i, 0.0) + rng.normal(0.0, 0.1) for i in _HOME},
        held_angle={i: _HELD_ANGLE.get(i, 0.0) + rng.normal(0.0, 0.08) for i in _HOME},
        fixture=near(_FIXTURE, 2.5),
        meter=near(_METER, 2.0),
        rest=near(_REST, 5.0),
        shoulder=near((188.0, 262.0), 9.0),
        colours={
            "bench": tone(*place.bench),
            "mat": tone(*place.mat),
            "sleeve": tone(*place.sleeve),
            "skin": tone(*place.skin),
            "base": tone((164, 152, 138)),
            "gear": tone((72, 172, 216)),
            "cover": tone((120, 128, 50)),
            "screwdriver": tone((48, 48, 206)),
            "tube": tone((58, 196, 232)),
            "cloth": tone((222, 206, 178)),
            "magnifier": tone((58, 54, 52)),
            "probe": tone((40, 40, 44)),
        },
        grain=int(rng.integers(2**31)),
    )


def draw_bench(scene: Scene, width: int, height: int) -> Image:
    """The empty bench with its mat, trays, fixture and meter (height, width, 3)."""
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
    for item, half in (("cover", (30, 22)), ("base", (31, 24))):
        tray = pen.at(scene.home[item])
        tray.rect(half, shade(dark, 0.9), shade(dark, 0.7))
        tray.rect((half[0] - 2.5, half[1] - 2.5), dark)
    tray = pen.at((scene.home["gear_1"] + scene.home["gear_2"]) / 2)
    tray.rect((27, 15), shade(dark, 0.9), shade(dark, 0.7))
    tray.rect((24.5, 12.5), dark)
    meter = pen.at(scene.meter)
    meter.at((2, 3)).rect((22, 18), shade(colours["bench"], 0.65))
    meter.rect((22, 18), (70, 140, 210), (36, 70, 110))
    meter.rect((20, 16), (62, 58, 56))
    meter.at((0, -6)).rect((16, 7), (150, 176, 160), (30, 30, 30))
    for px, py in METER_PADS:
        meter.disc((px, py), 3.4, (30, 30, 30))
        meter.disc((px, py), 2.0, (120, 180, 210))
    return image


def draw_world(image: Image, scene: Scene, world: World) -> None:
    """Everything that lies still: items at home and the work in the fixture."""
    pen = Pen.on(image, image.shape[1] / WIDTH)
    work = pen.at(scene.fixture)
    shadow = shade(scene.colours["bench"], 0.5)
    for item in (*PARTS, *TOOLS):
        if item == world.in_hand or item in world.fitted:
            continue
        place, angle = scene.home[item], scene.home_angle[item]
        draw_item(pen.at(place + np.array([1.3, 1.8]), angle), item, scene, flat=shadow)
        draw_item(pen.at(place, angle), item, scene)
    if "base" in world.fitted:
        draw_item(work.at((1.5, 2.2)), "base", scene, flat=shade(scene.colours["mat"], 0.5))
        draw_item(work, "base", scene)
    for slot, gear in enumerate(("gear_1", "gear_2")):
        if gear in world.fitted:
            draw_item(work.at(SLOTS[slot], 0.3 * slot), gear, scene)
    if "cover" in world.fitted:
        draw_item(work, "cover", scene)
        for x, y in CORNERS[: world.screws]:
            work.disc((x, y), 3.1, (70, 70, 70))
            work.disc((x, y), 2.4, (214, 214, 214))
            work.line(np.array([[x - 1.4, y - 1.0], [x + 1.4, y + 1.0]]), 0.8, (60, 60, 60))
    else:
        rng = np.random.default_rng(scene.grain)
        for x, y in rng.uniform((-18, -9), (18, 9), (24, 2))[: world.grease]:
            work.disc((float(x), float(y)), 2.3, (30, 130, 190))
            work.disc((float(x) - 0.5, float(y) - 0.6), 1.1, (110, 214, 245))


def draw_item(pen: Pen, item: str, scene: Scene, flat: Colour | None = None) -> None:
    """One item around the pen's origin; `flat` draws its silhouette in one colour (a shadow)."""
    name = "gear" if item.startswith("gear") else item
    own = scene.colours[name]

    def c(colour: Colour) -> Colour:
        return flat if flat is not None else colour

    edge = c(shade(own, 0.55))
    if name == "base":
        pen.rect((28, 20), c(own), edge)
        if flat is None:
            pen.rect((25.5, 17.5), shade(own, 1.14))
            for x, y in SLOTS:
                pen.disc((x, y), 8.6, shade(own, 0.55))
                pen.disc((x, y), 1.8, shade(own, 1.3))
            for x, y in CORNERS:
                pen.disc((x, y), 2.2, shade(own, 0.4))
    elif name == "gear":
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radius = np.where(np.arange(40) % 4 < 2, 10.2, 7.9)
        pen.poly(np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None], c(own), edge)
        if flat is None:
            pen.ring((0, 0), 5.4, 1.2, shade(own, 0.72))
            pen.disc((-1.5, -1.8), 3.2, shade(own, 1.2))
            pen.disc((0, 0), 2.0, shade(own, 0.3))
    elif name == "cover":
        pen.rect((27, 19), c(own), edge)
        if flat is None:
            pen.rect((24.5, 16.5), shade(own, 1.18))
            pen.rect((13, 7), (226, 230, 232), shade(own, 0.6))
            pen.line(np.array([[-9.0, -2], [9, -2]]), 1.0, (90, 90, 90))
            pen.line(np.array([[-9.0, 2], [4, 2]]), 1.0, (90, 90, 90))
            for x, y in CORNERS:
                pen.disc((x, y), 2.2, shade(own, 0.35))
    elif name == "screwdriver":
        pen.line(np.array([[0.0, 0], [17, 0]]), 2.4, c((176, 176, 180)))
        grip = np.array([[15, -2.4], [19, -4.2], [34, -4.2], [37, -2.2]])
        pen.poly(np.concatenate([grip, grip[::-1] * (1, -1)]), c(own), edge)
        if flat is None:
            pen.line(np.array([[20.0, -1.6], [33, -1.6]]), 1.3, mix(own, (255, 255, 255), 0.5))
    elif name == "tube":
        half = np.array([[0, -0.8], [5, -1.6], [8, -5.0], [24, -5.8], [30, -6.4]])
        pen.poly(np.concatenate([half, half[::-1] * (1, -1)]), c(own), edge)
        if flat is None:
            pen.poly(np.array([[0, -0.8], [6, -1.6], [6, 1.6], [0, 0.8]]), (40, 40, 200))
            pen.poly(np.array([[12, -4.6], [18, -4.8], [18, 4.8], [12, 4.6]]), (60, 70, 60))
    elif name == "cloth":
        turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        radius = 15.0 + 1.6 * np.sin(5 * turn) + 1.2 * np.cos(3 * turn)
        outline = np.stack([np.cos(turn) * radius, np.sin(turn) * radius * 0.78], 1)
        pen.poly(outline, c(own), edge)
        if flat is None:
            for shift in (-5.0, 1.0, 7.0):
                fold = np.array([[shift - 4, -7], [shift, -1], [shift - 1, 7]])
                pen.line(fold, 1.0, shade(own, 0.8))
    elif name == "magnifier":
        pen.line(np.array([[12.0, 0], [34, 0]]), 4.0, c(own))
        if flat is None:
            pen.line(np.array([[18.0, -0.8], [33, -0.8]]), 1.0, shade(own, 2.2))
            pen.ring((0, 0), 9.6, 1.0, (240, 232, 214))
            pen.line(np.array([[-5.0, -4], [-1, -7]]), 1.6, (255, 250, 240))
        pen.ring((0, 0), 11.5, 2.6, c(own))
    else:  # probe
        pen.line(np.array([[0.0, 0], [9, 0]]), 1.3, c((200, 200, 206)))
        pen.line(np.array([[8.0, 0], [30, 0]]), 4.2, c((50, 50, 190)))
        pen.line(np.array([[22.0, 0], [31, 0]]), 4.6, c(own))
