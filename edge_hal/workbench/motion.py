"""The motion of the hand, and what it changes on the bench.

A segment consists of reach, carry, work, put down, and rest if there is idle time. The hand is at rest when a segment
begins, so a viewer would mark the same boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .pen import Points
from .procedure import Fit, Floats, Pattern, Tempo, Use
from .scene import Scene, World
from .schedule import Session

_WITHDRAW_S = 0.45


@dataclass(frozen=True)
class HandTrack:
    """What moves, frame by frame (T frames), in bench units.

    Attributes:
        hand: (T, 2) where the finger tips are.
        item: T names of what is held, or None.
        angle: (T,) how the held item is turned, radians.
        lift: (T,) height above the bench, 0 (on it) to 1.
        world: T states of the bench.
    """

    hand: Points
    item: list[str | None]
    angle: Floats
    lift: Floats
    world: list[World]


@dataclass(frozen=True)
class _Leg:
    end_s: float
    item: str | None
    world: World
    pose: Callable[[Floats], tuple[Points, Floats, Floats]]


@dataclass
class _Choreography:
    scene: Scene
    rng: np.random.Generator
    now_s: float = 0.0
    world: World = field(default_factory=World)
    legs: list[_Leg] = field(default_factory=list)
    hand: Points = field(default_factory=lambda: np.zeros(2))
    angle: float = 0.0
    lift: float = 0.0

    def add(self, seconds: float, pose: Callable[[Floats], tuple[Points, Floats, Floats]]) -> None:
        self.now_s += seconds
        self.legs.append(_Leg(self.now_s, self.world.in_hand, self.world, pose))
        hand, angle, lift = pose(np.array([self.now_s]))
        self.hand, self.angle, self.lift = hand[0], float(angle[0]), float(lift[0])

    def move(self, to: Points, seconds: float, angle: float | None = None) -> None:
        """A reach with the minimum-jerk profile of Flash and Hogan 1985, lifted on the way."""
        start_s, hand, turn, low = self.now_s, self.hand, self.angle, self.lift
        turn_to = turn if angle is None else angle
        across = np.array([-(to - hand)[1], (to - hand)[0]]) * self.rng.normal(0.0, 0.06)

        def pose(t: Floats) -> tuple[Points, Floats, Floats]:
            u = np.clip((t - start_s) / seconds, 0.0, 1.0)
            s = u**3 * (10 - 15 * u + 6 * u**2)
            arc = np.sin(np.pi * s)
            place = hand + s[:, None] * (to - hand) + arc[:, None] * across
            return place, turn + s * (turn_to - turn), np.maximum(low * (1 - s), 0.8 * arc)

        self.add(seconds, pose)

    def work(self, target: Points, seconds: float, pattern: Pattern, done: tuple[float, float]) -> None:
        item = self.world.in_hand
        assert item is not None
        start_s, held = self.now_s, self.scene.held_angle[item]
        began, grip, share = self.hand, self.scene.grip(item, held), done[1] - done[0]

        def pose(t: Floats) -> tuple[Points, Floats, Floats]:
            since_s = t - start_s
            u = np.clip(since_s / seconds, 0.0, 1.0)
            offset, turn, lift = pattern(since_s, done[0] + share * u)
            ease = np.clip(since_s / 0.25, 0.0, 1.0)[:, None]
            return began + ease * (target + grip + offset - began), held + turn, lift

        self.add(seconds, pose)

    def take(self, item: str, seconds: float) -> None:
        angle = self.scene.home_angle[item]
        self.move(self.scene.home[item] + self.scene.grip(item, angle), seconds)
        self.angle, self.world = angle, self.world.take(item)

    def bring(self, target: Points, seconds: float) -> None:
        item = self.world.in_hand
        assert item is not None
        held = self.scene.held_angle[item]
        self.move(target + self.scene.grip(item, held), seconds, held)

    def put_back(self, seconds: float) -> None:
        item = self.world.in_hand
        assert item is not None
        angle = self.scene.home_angle[item]
        self.move(self.scene.home[item] + self.scene.grip(item, angle), seconds, angle)
        self.world = self.world.put_back()


def hand_track(session: Session, scene: Scene, rng: np.random.Generator) -> HandTrack:
    """The path of the hand through a session."""
    show = _Choreography(scene, rng, hand=scene.rest.copy())
    for segment in session.segments:
        action = session.procedure.actions[segment.step]
        if isinstance(action, Fit):
            _fit_part(show, segment.step, action, segment.active_s)
        else:
            for use in action:
                _use_tool(show, use, segment.active_s * use.share)
        if segment.idle_s > 0:
            withdraw_s = min(_WITHDRAW_S, segment.idle_s)
            show.move(scene.rest + rng.normal(0.0, 2.5, 2), withdraw_s)
            if segment.idle_s > withdraw_s:
                show.move(show.hand, segment.idle_s - withdraw_s)
    return _sample(show.legs, session)


def _sample(legs: list[_Leg], session: Session) -> HandTrack:
    at_s = np.arange(session.frames) / session.fps
    ends = np.array([leg.end_s for leg in legs])
    of = np.minimum(np.searchsorted(ends, at_s + 1e-9, "right"), len(legs) - 1)
    hand, angle, lift = np.zeros((len(at_s), 2)), np.zeros(len(at_s)), np.zeros(len(at_s))
    for k in np.unique(of):
        mine = of == k
        hand[mine], angle[mine], lift[mine] = legs[k].pose(at_s[mine])
    items = [legs[k].item for k in of]
    return HandTrack(hand, items, angle, lift, [legs[k].world for k in of])


def _transit_s(active_s: float, rng: np.random.Generator) -> float:
    return float(np.clip(0.13 * active_s * rng.uniform(0.8, 1.2), 0.35, 0.75))


def _use_tool(show: _Choreography, use: Use, active_s: float) -> None:
    move_s = min(_transit_s(active_s, show.rng), active_s / 4)
    target = show.scene.device if use.at == "device" else show.scene.fixture
    show.take(use.tool, move_s)
    show.bring(target, move_s)
    work_s = active_s - 3 * move_s
    pattern = _pattern(show, use.motion, work_s)
    parts = use.parts
    # During long work the hand pauses and draws back with the tool.
    pause_s = show.rng.uniform(0.5, 1.3) if work_s > 4 and show.rng.random() < 0.6 else 0.0
    pause_at = int(show.rng.integers(1, parts)) if parts > 1 else 1
    if parts == 1 and pause_s:
        parts = 2
    each_s = (work_s - pause_s) / parts
    for k in range(parts):
        if pause_s and k == pause_at:
            away = show.hand + (show.scene.rest - show.hand) * show.rng.uniform(0.4, 0.8)
            show.move(away, 0.3 * pause_s)
            show.move(away, 0.7 * pause_s)
        show.work(target, each_s, pattern, (k / parts, (k + 1) / parts))
        if use.leaves is not None:
            show.world = show.world.marked(*use.leaves)
    show.put_back(move_s)


def _fit_part(show: _Choreography, step: str, fit: Fit, active_s: float) -> None:
    procedure = show.scene.procedure
    part = procedure.spares.get(fit.part, fit.part) if fit.part in show.world.fitted else fit.part
    slot = procedure.layout.slots.get(part, np.zeros(2))
    move_s = _transit_s(active_s, show.rng)
    show.take(part, move_s)
    show.bring(show.scene.fixture + slot, move_s)
    work_s = active_s - 2 * move_s
    show.work(show.scene.fixture + slot, work_s, _pattern(show, step, work_s), (0.0, 1.0))
    show.world = show.world.fit(part)


def _pattern(show: _Choreography, motion: str, work_s: float) -> Pattern:
    """A motion, as one person does it this time."""
    tempo = Tempo(show.rng.uniform(0.8, 1.2), show.rng.uniform(0.85, 1.15), show.rng.uniform(0.0, 2 * np.pi))
    return show.scene.procedure.pattern(motion, tempo, work_s)
