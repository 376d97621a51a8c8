"""The assembly of a small gearbox: the procedure of the demo."""

from __future__ import annotations

import numpy as np

from .pen import Colour, Pen, Points, mix, shade
from .procedure import Fit, Floats, Layout, Pattern, Procedure, Tempo, Use, visit
from .scene import Scene, World

_CORNERS: Points = np.array([[-22.0, -15.0], [22.0, -15.0], [22.0, 15.0], [-22.0, 15.0]])
_SLOTS: Points = np.array([[-9.5, 0.0], [9.5, 0.0]])
_METER_PADS: Points = np.array([[-9.0, 10.0], [7.0, 10.0]])
_LAYOUT = Layout(
    home={
        "cover": (40, 36),
        "base": (40, 88),
        "gear_1": (28, 133),
        "gear_2": (51, 133),
        "screwdriver": (92, 18),
        "tube": (124, 20),
        "cloth": (162, 30),
        "magnifier": (196, 52),
        "probe": (196, 86),
    },
    home_angle={"screwdriver": 1.45, "tube": 1.75, "cloth": 0.1, "magnifier": 0.5, "probe": 0.35},
    held_angle={"screwdriver": 0.75, "tube": 0.95, "cloth": 0.4, "magnifier": 0.7, "probe": 1.2},
    grip={
        "cover": (22, 12),
        "base": (24, 14),
        "gear_1": (7, 5),
        "gear_2": (7, 5),
        "screwdriver": (27, 0),
        "tube": (20, 0),
        "cloth": (5, 3),
        "magnifier": (27, 0),
        "probe": (22, 0),
    },
    slots={"gear_1": _SLOTS[0], "gear_2": _SLOTS[1]},
    trays=((("cover",), (30, 22)), (("base",), (31, 24)), (("gear_1", "gear_2"), (27, 15))),
    device=(206.0, 124.0),
    cords={"probe": (12.0, -14.0)},
    colours={
        "base": (164, 152, 138),
        "gear": (72, 172, 216),
        "cover": (120, 128, 50),
        "screwdriver": (48, 48, 206),
        "tube": (58, 196, 232),
        "cloth": (222, 206, 178),
        "magnifier": (58, 54, 52),
        "probe": (40, 40, 44),
    },
)


def _pattern(motion: str, tempo: Tempo, work_s: float) -> Pattern:
    def pattern(t: Floats, done: Floats) -> tuple[Points, Floats, Floats]:
        zero = np.zeros_like(t)
        settle = 1.0 - done  # parts come to rest in their place
        quarter = np.pi / 2
        if motion == "place_base":  # slid to and fro until it seats
            return np.stack([8 * tempo.size * tempo.wave(t, 0.8) * settle, zero], 1), zero, 0.25 * settle
        if motion == "insert_gear":  # turned until the teeth mesh
            x, y = 2.0 * tempo.wave(t, 0.6) * settle, 2.0 * tempo.wave(t, 0.9, 1.0) * settle
            return np.stack([x, y], 1), 0.7 * tempo.wave(t, 1.3) * settle, 0.3 * settle
        if motion == "fit_cover":  # rocked and pressed down
            press = np.clip(tempo.wave(t, 0.9), 0, 1)
            y = -7 * tempo.size * press * settle
            return np.stack([zero, y], 1), 0.12 * tempo.wave(t, 0.9, quarter) * settle, 0.7 * press
        if motion == "grease_gear":  # a slow zigzag over the gears
            return np.stack([-17 + 34 * done, 9 * tempo.size * tempo.wave(t, 0.7)], 1), zero, zero + 0.35
        if motion == "drive_screws":  # small circles at one corner after the other
            corner = visit(_CORNERS, done * 4)
            circle = np.stack([tempo.wave(t, 1.7), tempo.wave(t, 1.7, quarter)], 1)
            return corner + 3.6 * tempo.size * circle, 0.22 * tempo.wave(t, 1.7), zero + 0.1
        if motion == "tap_cover":  # same tool, same corners, but it hops
            corner = visit(_CORNERS[::-1], done * work_s / 1.1)
            hop = np.abs(tempo.wave(t, 1.1))
            return corner - np.stack([3 * hop, 13 * tempo.size * hop], 1), 0.1 * hop, hop
        if motion == "wipe":  # long strokes that work their way down
            x, y = 26 * tempo.size * tempo.wave(t, 0.9), -15 + 30 * done + 3 * tempo.wave(t, 1.8)
            return np.stack([x, y], 1), 0.15 * tempo.wave(t, 0.9), zero
        if motion == "inspect":  # a lens drifting over the work
            x, y = 15 * tempo.size * tempo.wave(t, 0.16), 8 * tempo.wave(t, 0.11, 1.0)
            return np.stack([x, y], 1), 0.05 * tempo.wave(t, 0.2), zero + 0.6
        pad = visit(_METER_PADS, t / 1.4 * tempo.rate)  # probe: touch one pad, then the other
        lift = np.clip(tempo.wave(t, 0.7), 0, 1)
        return pad - np.stack([zero, 6 * lift], 1), zero, lift

    return pattern


def _draw_work(work: Pen, scene: Scene, world: World) -> None:
    if "base" in world.fitted:
        _draw_item(work.at((1.5, 2.2)), "base", scene, shade(scene.colours["mat"], 0.5))
        _draw_item(work, "base", scene)
    for slot, gear in enumerate(("gear_1", "gear_2")):
        if gear in world.fitted:
            _draw_item(work.at(_SLOTS[slot], 0.3 * slot), gear, scene)
    if "cover" in world.fitted:
        _draw_item(work, "cover", scene)
        for x, y in _CORNERS[: world.count("screw")]:
            work.disc((x, y), 3.1, (70, 70, 70))
            work.disc((x, y), 2.4, (214, 214, 214))
            work.line(np.array([[x - 1.4, y - 1.0], [x + 1.4, y + 1.0]]), 0.8, (60, 60, 60))
    else:
        rng = np.random.default_rng(scene.grain)
        for x, y in rng.uniform((-18, -9), (18, 9), (24, 2))[: world.count("grease")]:
            work.disc((float(x), float(y)), 2.3, (30, 130, 190))
            work.disc((float(x) - 0.5, float(y) - 0.6), 1.1, (110, 214, 245))


def _draw_device(pen: Pen, scene: Scene) -> None:
    meter = pen.at(scene.device)
    meter.at((2, 3)).rect((22, 18), shade(scene.colours["bench"], 0.65))
    meter.rect((22, 18), (70, 140, 210), (36, 70, 110))
    meter.rect((20, 16), (62, 58, 56))
    meter.at((0, -6)).rect((16, 7), (150, 176, 160), (30, 30, 30))
    for px, py in _METER_PADS:
        meter.disc((px, py), 3.4, (30, 30, 30))
        meter.disc((px, py), 2.0, (120, 180, 210))


def _draw_item(pen: Pen, item: str, scene: Scene, flat: Colour | None = None) -> None:
    name = "gear" if item.startswith("gear") else item
    own = scene.colours[name]

    def c(colour: Colour) -> Colour:
        return flat if flat is not None else colour

    edge = c(shade(own, 0.55))
    if name == "base":
        pen.rect((28, 20), c(own), edge)
        if flat is None:
            pen.rect((25.5, 17.5), shade(own, 1.14))
            for x, y in _SLOTS:
                pen.disc((x, y), 8.6, shade(own, 0.55))
                pen.disc((x, y), 1.8, shade(own, 1.3))
            for x, y in _CORNERS:
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
            for x, y in _CORNERS:
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


GEARBOX = Procedure(
    name="gearbox",
    durations={
        "place_base": (4.5, 0.40),
        "insert_gear": (5.5, 0.45),
        "grease_gear": (5.5, 0.50),
        "fit_cover": (4.5, 0.40),
        "drive_screws": (8.5, 0.50),
        "tap_cover": (5.0, 0.45),
        "wipe": (5.5, 0.60),
        "inspect": (8.0, 0.50),
    },
    after={
        "insert_gear": ("place_base",),
        "grease_gear": ("place_base",),
        "fit_cover": ("insert_gear",),
        "drive_screws": ("fit_cover",),
        "tap_cover": ("fit_cover",),
        "inspect": ("insert_gear",),
    },
    before={"insert_gear": "fit_cover", "grease_gear": "fit_cover"},
    at_most={"insert_gear": 2, "wipe": 2, "inspect": 2},
    occurrences=(
        ("place_base", 1.0),
        ("insert_gear", 1.0),
        ("insert_gear", 0.35),
        ("grease_gear", 0.75),
        ("fit_cover", 1.0),
        ("drive_screws", 1.0),
        ("tap_cover", 0.7),
        ("wipe", 0.7),
        ("wipe", 0.25),
        ("inspect", 0.7),
        ("inspect", 0.25),
    ),
    same_tool=frozenset({"drive_screws", "tap_cover"}),
    actions={
        "place_base": Fit("base"),
        "insert_gear": Fit("gear_1"),
        "grease_gear": (Use("tube", "grease_gear", parts=8, leaves=("grease", 2)),),
        "fit_cover": Fit("cover"),
        "drive_screws": (Use("screwdriver", "drive_screws", parts=4, leaves=("screw", 1)),),
        "tap_cover": (Use("screwdriver", "tap_cover"),),
        "wipe": (Use("cloth", "wipe"),),
        # Half-way through, this step changes its tool, its place and its motion.
        "inspect": (Use("magnifier", "inspect", share=0.5), Use("probe", "probe", share=0.5, at="device")),
    },
    parts=("base", "gear_1", "gear_2", "cover"),
    tools=("screwdriver", "tube", "cloth", "magnifier", "probe"),
    spares={"gear_1": "gear_2"},
    layout=_LAYOUT,
    pattern=_pattern,
    draw_item=_draw_item,
    draw_work=_draw_work,
    draw_device=_draw_device,
)
