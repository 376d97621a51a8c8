"""Frames of a session: the bench, the hand over it, and the nuisance on top."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from .motion import HandTrack, hand_track
from .nuisance import Distractors, Noise, draw_occlusion, sample_light, sample_occlusions, sample_shake
from .pen import Colour, Image, Pen, Points, shade
from .place import HOME, Place, View
from .scene import WIDTH, Scene, draw_bench, draw_world, sample_scene
from .schedule import Session
from .viewpoint import ABOVE, Block, Viewpoint, draw_block, sample_blocks

Seed = int | np.random.SeedSequence


def iter_frames(
    session: Session,
    seed: Seed,
    width: int = 240,
    height: int = 180,
    place: Place = HOME,
    viewpoint: Viewpoint = ABOVE,
) -> Iterator[Image]:
    """The frames of a session.

    Args:
        session: what happens.
        seed: of everything the session does not say: bench, colours, hand, nuisance.
        width, height: pixels; the bench is made for 4:3.
        place: where it is filmed.
        viewpoint: from where. The hand, the bench and what moves on it are the same from each.

    Yields:
        `session.frames` pictures (height, width, 3), uint8 BGR. The same arguments give the same
        bytes.
    """
    rng_scene, rng_hand, rng_light, rng_view = (_generator(seed, part) for part in range(4))
    scene = sample_scene(rng_scene, place, session.procedure)
    track = hand_track(session, scene, rng_hand)
    light = sample_light(rng_light, session.frames, session.fps)
    shake = sample_shake(rng_view, session.frames, session.fps)
    occlusions = sample_occlusions(rng_view, session.duration_s, scene)
    distractors = Distractors(rng_view, session.duration_s, scene)
    if viewpoint.number:
        rng_view = _generator(seed, 10 + viewpoint.number)
        shake = sample_shake(rng_view, session.frames, session.fps)
        occlusions = sample_occlusions(rng_view, session.duration_s, scene)
    noise = Noise(rng_view, width, height)
    view = View(_generator(seed, 4), width, height) if place.varied else None
    blocks = blocks_of(session, seed, viewpoint)

    bench, still, world = draw_bench(scene, width, height), None, None
    scale = width / WIDTH
    for k in range(session.frames):
        t = k / session.fps
        if still is None or track.world[k] != world:
            world = track.world[k]
            still = bench.copy()
            draw_world(still, scene, world)
        image = still.copy()
        pen = Pen.on(image, scale)
        distractors.draw(pen, t)
        image = viewpoint.sees(_draw_hand(image, scene, track, k))
        pen = Pen.on(image, scale)
        for occlusion in occlusions:
            draw_occlusion(pen, occlusion, t, scene)
        for block in blocks:
            draw_block(pen, block, t, scene)
        seen = cv2.warpAffine(
            cv2.LUT(image, light.table(k)),
            _camera(shake[k], scale, width, height),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        yield noise.add(np.asarray(seen, np.uint8) if view is None else view.of(np.asarray(seen, np.uint8)))


def blocks_of(session: Session, seed: Seed, viewpoint: Viewpoint) -> list[Block]:
    """When somebody stands before this camera."""
    return sample_blocks(_generator(seed, 100 + viewpoint.number), session.duration_s) if viewpoint.blocked else []


def _generator(seed: Seed, part: int) -> np.random.Generator:
    """A generator of its own for one part of the picture. Not `spawn`: that counts its calls, and
    the same seed would give other frames the second time."""
    own = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.default_rng(np.random.SeedSequence(own.entropy, spawn_key=(*own.spawn_key, part)))


def _camera(shake: Points, scale: float, width: int, height: int) -> Points:
    """Affine matrix (2, 3) of a camera moved by `shake`, a little closer so that no edge shows."""
    c, s = 1.04 * np.cos(shake[2]), 1.04 * np.sin(shake[2])
    middle = np.array([width / 2, height / 2])
    turn = np.array([[c, -s], [s, c]])
    return np.column_stack([turn, middle - turn @ middle + shake[:2] * scale])


def _draw_hand(image: Image, scene: Scene, track: HandTrack, k: int) -> Image:
    hand, lift, item, angle = track.hand[k], track.lift[k], track.item[k], track.angle[k]
    height, width = image.shape[:2]
    scale = width / WIDTH

    # Soft shadow: the silhouette at a quarter of the size, blurred, further off the higher.
    small = np.full((height // 4, width // 4, 3), 255, np.uint8)
    offset = np.array([3.0, 4.0]) * (1 + 1.6 * lift)
    below = Pen.on(small, scale / 4)
    dark = (118.0, 118.0, 118.0)
    if item is not None:
        scene.procedure.draw_item(below.at(hand - scene.grip(item, angle) + offset, angle), item, scene, dark)
    _arm(below, hand + offset, scene, item is not None, dark)
    softness = (0.9 + 0.8 * lift) * scale
    small = cv2.GaussianBlur(small, (0, 0), softness)
    shadow = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    image = np.asarray(cv2.multiply(image, shadow, scale=1 / 255), np.uint8)

    pen = Pen.on(image, scale)
    if item is not None:
        zoom = 1 + 0.12 * lift
        held = pen.at(hand - scene.grip(item, angle) * zoom, angle, zoom)
        if item in scene.procedure.layout.cords:
            _cord(pen, scene, item, hand)
        scene.procedure.draw_item(held, item, scene, None)
    _arm(pen, hand, scene, item is not None)
    return image


def _cord(pen: Pen, scene: Scene, item: str, hand: Points) -> None:
    u = np.linspace(0, 1, 12)[:, None]
    socket, sag = scene.device + scene.procedure.layout.cords[item], np.array([10.0, 14.0])
    way = socket + (hand + np.array([4.0, 6.0]) - socket) * u + sag * np.sin(np.pi * u)
    pen.line(way, 1.2, (30, 30, 34))


# The hand in its own frame: finger tips at the origin, the forearm along +x.
_FOREARM = np.array([[25.0, -8.0], [44.0, -9.5], [44.0, 9.5], [25.0, 8.0]])
_SLEEVE = np.array([[37.0, -11.5], [250.0, -24.0], [250.0, 24.0], [37.0, 11.5]])
_CUFF = np.array([[37.5, -11.0], [37.5, 11.0]])
_SEAM = np.array([[40.0, 5.0], [250.0, 11.0]])
_PALM = np.array([[14.5, 0.0], [25.0, 0.0]])
_FINGERS_M = np.array([[4.0, 0.0], [10.0, 0.0]])
_KNUCKLES = [np.array([[9.0, y], [13.0, y]]) for y in (-4.2, 0.0, 4.2)]


def _fingers(spread: float, thumb: float) -> list[Points]:
    tips = ((-6.3, 3.5), (-2.1, 0.0), (2.1, 0.5), (6.0, 4.0))
    fingers = [np.array([[9.0, y], [x, spread * y]]) for y, x in tips]
    return [*fingers, np.array([[13.0, -7.0], [8.0, -thumb]])]


_OPEN, _CLOSED = _fingers(1.0, 13.0), _fingers(0.55, 9.0)


def _arm(pen: Pen, tip: Points, scene: Scene, closed: bool, flat: Colour | None = None) -> None:
    """The hand with its finger tips at `tip` and the arm it belongs to; `flat`: its shadow."""
    along = scene.shoulder - tip
    arm = pen.at(tip, float(np.arctan2(along[1], along[0])))
    fingers = _CLOSED if closed else _OPEN
    if flat is not None:
        arm.poly(_FOREARM, flat)
        arm.poly(_SLEEVE, flat)
        arm.line(_PALM, 15.5, flat)
        arm.line(_FINGERS_M, 9.0 if closed else 14.0, flat)
        return
    skin, sleeve = scene.colours["skin"], scene.colours["sleeve"]
    line = shade(skin, 0.7)
    arm.poly(_FOREARM, skin, line)
    arm.poly(_SLEEVE, sleeve, shade(sleeve, 0.7))
    arm.line(_CUFF, 2.5, shade(sleeve, 0.75))
    arm.line(_SEAM, 1.0, shade(sleeve, 0.85))
    for finger in fingers:
        arm.line(finger, 5.6, line)
        arm.line(finger, 4.4, skin)
    arm.line(_PALM, 15.5, skin)
    for knuckle in _KNUCKLES:
        arm.line(knuckle, 0.8, line)
