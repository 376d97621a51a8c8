"""The assembly of a small device around a circuit board: a second procedure at the same bench.

It shares the bench, the mat and the hand with the gearbox, and no object, no step and no motion.
"""

from __future__ import annotations

import numpy as np

from .pen import Colour, Pen, Points, shade
from .procedure import Fit, Floats, Layout, Pattern, Procedure, Tempo, Use, visit
from .scene import Scene, World

_SOCKETS: Points = np.array([[-14.0, -4.0], [13.0, -4.0]])
_PINS: Points = np.array([[x, 9.0] for x in (-20.0, -12.0, -4.0, 4.0, 12.0, 20.0)])
_PRINTS: Points = np.array([[-14.0, -8.0], [0.0, 6.0], [14.0, -8.0]])
_LAYOUT = Layout(
    home={
        "board": (204, 84),
        "chip_1": (189, 136),
        "chip_2": (216, 136),
        "case": (203, 34),
        "iron": (34, 74),
        "brush": (78, 20),
        "stamp": (128, 22),
        "scanner": (38, 132),
    },
    home_angle={"iron": 0.5, "brush": 1.3, "stamp": 1.5, "scanner": 0.2},
    held_angle={"iron": 1.0, "brush": 0.6, "stamp": 1.2, "scanner": 0.9},
    grip={
        "board": (25, 12),
        "chip_1": (6, 4),
        "chip_2": (6, 4),
        "case": (24, 14),
        "iron": (25, 0),
        "brush": (24, 0),
        "stamp": (15, 0),
        "scanner": (20, 0),
    },
    slots={"chip_1": _SOCKETS[0], "chip_2": _SOCKETS[1]},
    trays=((("case",), (31, 23)), (("board",), (30, 20)), (("chip_1", "chip_2"), (27, 13))),
    device=(30.0, 34.0),
    cords={"iron": (10.0, 14.0)},
    colours={
        "board": (84, 132, 38),
        "chip": (52, 50, 50),
        "case": (196, 170, 150),
        "iron": (186, 112, 40),
        "brush": (70, 120, 176),
        "stamp": (140, 50, 120),
        "scanner": (40, 190, 214),
    },
)


def _pattern(motion: str, tempo: Tempo, work_s: float) -> Pattern:
    def pattern(t: Floats, done: Floats) -> tuple[Points, Floats, Floats]:
        zero = np.zeros_like(t)
        settle = 1.0 - done
        if motion == "place_board":  # lowered, and tilted until it clicks in
            return np.stack([zero, 7 * tempo.size * tempo.wave(t, 0.7) * settle], 1), 0.3 * settle, 0.5 * settle
        if motion == "seat_chip":  # held above the socket, then wriggled in
            x = 3.0 * tempo.wave(t, 1.8) * settle
            return np.stack([x, -9 * np.clip(1 - 2 * done, 0, 1)], 1), zero, np.clip(0.9 - 1.4 * done, 0, 1)
        if motion == "close_case":  # slid over the board from the side
            return np.stack([22 * tempo.size * settle, 2 * tempo.wave(t, 0.5) * settle], 1), zero, 0.4 * settle
        if motion == "solder_pins":  # still at one pin after the other
            pin = visit(_PINS, done * len(_PINS))
            return pin + 0.6 * np.stack([tempo.wave(t, 2.0), zero], 1), zero, 0.15 * np.clip(tempo.wave(t, 0.8), 0, 1)
        if motion == "brush_board":  # short quick strokes from right to left
            x, y = 24 - 48 * done, 11 * tempo.size * tempo.wave(t, 1.6)
            return np.stack([x, y], 1), 0.2 * tempo.wave(t, 1.6), zero + 0.1
        if motion == "stamp_case":  # pressed down, three times
            place, press = visit(_PRINTS, done * 3), np.clip(tempo.wave(t, 0.7), 0, 1)
            return place - np.stack([zero, 10 * press], 1), zero, press
        x, y = 20 * tempo.size * tempo.wave(t, 0.25), -6 + 4 * tempo.wave(t, 0.5)  # scan_code: to and fro, high above
        return np.stack([x, y], 1), 0.15 * tempo.wave(t, 0.25), zero + 0.8

    return pattern


def _draw_work(work: Pen, scene: Scene, world: World) -> None:
    if "board" in world.fitted:
        _draw_item(work.at((1.5, 2.0)), "board", scene, shade(scene.colours["mat"], 0.5))
        _draw_item(work, "board", scene)
    for socket, chip in zip(_SOCKETS, ("chip_1", "chip_2"), strict=True):
        if chip in world.fitted:
            _draw_item(work.at(socket), chip, scene)
    if "case" not in world.fitted:
        for x, y in _PINS[: world.count("joint")]:
            work.disc((x, y), 2.1, (206, 210, 212))
        return
    _draw_item(work, "case", scene)
    for x, y in _PRINTS[: world.count("print")]:
        work.at((x, y)).rect((4.5, 3.0), (60, 40, 130))


def _draw_device(pen: Pen, scene: Scene) -> None:
    """The station that heats the iron."""
    station = pen.at(scene.device)
    station.at((2, 3)).rect((20, 17), shade(scene.colours["bench"], 0.65))
    station.rect((20, 17), (150, 146, 140), (90, 86, 80))
    station.at((-5, -5)).rect((11, 6), (40, 30, 28), (20, 20, 20))
    station.disc((11, -5), 4.0, (60, 60, 60))
    station.ring((11, -5), 4.0, 1.0, (200, 200, 200))
    station.disc((10, 11), 2.5, (30, 30, 30))


def _draw_item(pen: Pen, item: str, scene: Scene, flat: Colour | None = None) -> None:
    name = "chip" if item.startswith("chip") else item
    own = scene.colours[name]

    def c(colour: Colour) -> Colour:
        return flat if flat is not None else colour

    edge = c(shade(own, 0.55))
    if name == "board":
        pen.rect((27, 16), c(own), edge)
        if flat is None:
            for y in (-11.0, -6.0, 1.0, 5.0):
                pen.line(np.array([[-24.0, y], [-6.0, y + 3], [24.0, y + 1]]), 0.7, shade(own, 1.5))
            for x, y in _SOCKETS:
                pen.at((x, y)).rect((8, 6), shade(own, 0.6))
            for x, y in _PINS:
                pen.disc((x, y), 1.6, (60, 150, 190))
    elif name == "chip":
        for x in (-5.0, 0.0, 5.0):
            pen.line(np.array([[x, -7.5], [x, 7.5]]), 1.4, c((190, 190, 194)))
        pen.rect((7.5, 5.5), c(own), edge)
        if flat is None:
            pen.disc((-4.5, -2.5), 1.0, (150, 150, 150))
    elif name == "case":
        pen.rect((29, 19), c(own), edge)
        if flat is None:
            pen.rect((25, 15), shade(own, 1.1))
            for x in (-8.0, -4.0, 0.0, 4.0, 8.0):
                pen.line(np.array([[x, 8], [x, 13]]), 1.2, shade(own, 0.5))
    elif name == "iron":
        pen.line(np.array([[0.0, 0], [14, 0]]), 1.8, c((200, 200, 206)))
        pen.line(np.array([[14.0, 0], [34, 0]]), 6.0, c(own))
        if flat is None:
            pen.line(np.array([[15.0, -2], [15, 2]]), 2.0, (40, 40, 40))
    elif name == "brush":
        pen.poly(np.array([[0, -5], [8, -3.6], [8, 3.6], [0, 5]]), c((214, 222, 226)), edge)
        pen.line(np.array([[8.0, 0], [35, 0]]), 4.4, c(own))
        if flat is None:
            pen.line(np.array([[8.0, -3], [8, 3]]), 2.2, (150, 160, 170))
    elif name == "stamp":
        pen.rect((5, 8), c((60, 60, 64)), edge)
        pen.line(np.array([[5.0, 0], [14, 0]]), 4.0, c(shade(own, 0.8)))
        pen.disc((19, 0), 7.0, c(own))
    else:  # scanner
        pen.poly(np.array([[-2, -8], [10, -6], [10, 6], [-2, 8]]), c(own), edge)
        pen.line(np.array([[10.0, 0], [30, 0]]), 7.0, c(shade(own, 0.45)))
        if flat is None:
            pen.line(np.array([[-1.0, -6], [-1, 6]]), 1.6, (40, 40, 220))


CIRCUIT_BOARD = Procedure(
    name="circuit_board",
    durations={
        "place_board": (4.0, 0.40),
        "seat_chip": (5.0, 0.45),
        "solder_pins": (9.0, 0.50),
        "brush_board": (5.0, 0.50),
        "close_case": (4.5, 0.40),
        "stamp_case": (5.0, 0.45),
        "scan_code": (6.0, 0.60),
    },
    after={
        "seat_chip": ("place_board",),
        "solder_pins": ("seat_chip",),
        "brush_board": ("place_board",),
        "close_case": ("solder_pins",),
        "stamp_case": ("close_case",),
    },
    before={"seat_chip": "close_case", "solder_pins": "close_case", "brush_board": "close_case"},
    at_most={"seat_chip": 2, "brush_board": 2, "scan_code": 2},
    occurrences=(
        ("place_board", 1.0),
        ("seat_chip", 1.0),
        ("seat_chip", 0.4),
        ("solder_pins", 1.0),
        ("brush_board", 0.75),
        ("brush_board", 0.3),
        ("close_case", 1.0),
        ("stamp_case", 0.7),
        ("scan_code", 0.75),
        ("scan_code", 0.3),
    ),
    same_tool=frozenset(),
    actions={
        "place_board": Fit("board"),
        "seat_chip": Fit("chip_1"),
        "solder_pins": (Use("iron", "solder_pins", parts=6, leaves=("joint", 1)),),
        "brush_board": (Use("brush", "brush_board"),),
        "close_case": Fit("case"),
        "stamp_case": (Use("stamp", "stamp_case", parts=3, leaves=("print", 1)),),
        "scan_code": (Use("scanner", "scan_code"),),
    },
    parts=("board", "chip_1", "chip_2", "case"),
    tools=("iron", "brush", "stamp", "scanner"),
    spares={"chip_1": "chip_2"},
    layout=_LAYOUT,
    pattern=_pattern,
    draw_item=_draw_item,
    draw_work=_draw_work,
    draw_device=_draw_device,
)
