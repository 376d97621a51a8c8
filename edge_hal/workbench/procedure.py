"""What a rendered procedure is made of: its steps and their order, what lies on the bench, and how the hand moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from .pen import Colour, Pen, Points

if TYPE_CHECKING:
    from .scene import Scene, World

Floats = npt.NDArray[np.float64]
Pattern = Callable[[Floats, Floats], tuple[Points, Floats, Floats]]
"""Offset (n, 2) of the item from its target, turn (n,) in radians and lift (n,) in 0..1, as functions of the seconds
since work began (n,) and the share of the work done (n,)."""


@dataclass(frozen=True)
class Tempo:
    """How one person does one step: faster or slower, wider or narrower, and where in the swing it begins."""

    rate: float
    size: float
    phase: float

    def wave(self, t: Floats, hz: float, shift: float = 0.0) -> Floats:
        return np.sin(2 * np.pi * hz * self.rate * t + self.phase + shift)


@dataclass(frozen=True)
class Use:
    """A tool is taken, used and put back. `motion` names its pattern. It takes `share` of the step. `parts`: the work
    is divided where it changes the bench; each part leaves a number of marks of one kind."""

    tool: str
    motion: str
    share: float = 1.0
    at: Literal["fixture", "device"] = "fixture"
    parts: int = 1
    leaves: tuple[str, int] | None = None


@dataclass(frozen=True)
class Fit:
    """A part is taken and fitted. If it is fitted already, its spare one is, or else another one of the same kind."""

    part: str


@dataclass(frozen=True)
class Layout:
    """Where things lie in a picture of 240 x 180, how they are turned there and in the hand, and where the hand takes
    them: a point in the frame of the item, whose origin is the tip of a tool or the middle of a part.

    Attributes:
        home, grip: of each item; `home_angle`, `held_angle`: of those that are turned.
        slots: where a part goes, relative to the fixture.
        trays: half width and half height of the tray below these items.
        device: what stands on the bench. `cords`: tools with a cord, and its socket relative to the device.
        colours: of the items.
    """

    home: Mapping[str, tuple[float, float]]
    home_angle: Mapping[str, float]
    held_angle: Mapping[str, float]
    grip: Mapping[str, tuple[float, float]]
    slots: Mapping[str, Points]
    trays: tuple[tuple[tuple[str, ...], tuple[float, float]], ...]
    device: tuple[float, float]
    cords: Mapping[str, tuple[float, float]]
    colours: Mapping[str, Colour]


@dataclass(frozen=True, eq=False)
class Procedure:
    """One product and its assembly.

    Attributes:
        durations: median seconds of each step and standard deviation of the logarithm.
        after: steps that must have happened before this one. `before`: the step after which it is no longer possible.
        occurrences: how likely each occurrence is; several entries of one step are repeats of it.
        same_tool: neighbours with one tool are separated by a rest.
        actions: what the hand does in each step.
        parts, tools: the items, in the order in which they are drawn. `spares`: see `Fit`.
        pattern: the motion of that name at this tempo, for work of a given number of seconds.
        draw_item: one item around the origin of the pen; in one colour for its shadow.
        draw_work: what was made so far, around the fixture. `draw_device`: what stands on the bench.
    """

    name: str
    durations: Mapping[str, tuple[float, float]]
    after: Mapping[str, tuple[str, ...]]
    before: Mapping[str, str]
    at_most: Mapping[str, int]
    occurrences: tuple[tuple[str, float], ...]
    same_tool: frozenset[str]
    actions: Mapping[str, tuple[Use, ...] | Fit]
    parts: tuple[str, ...]
    tools: tuple[str, ...]
    spares: Mapping[str, str]
    layout: Layout = field(repr=False)
    pattern: Callable[[str, Tempo, float], Pattern] = field(repr=False)
    draw_item: Callable[[Pen, str, Scene, Colour | None], None] = field(repr=False)
    draw_work: Callable[[Pen, Scene, World], None] = field(repr=False)
    draw_device: Callable[[Pen, Scene], None] = field(repr=False)

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.durations)


def visit(places: Points, progress: Floats) -> Points:
    """(n, 2) positions: while progress is in k..k+1 the hand moves to place k and stays there. The places repeat."""
    k = np.maximum(np.ceil(progress).astype(int) - 1, 0)
    u = np.clip((progress - k) / 0.2, 0.0, 1.0)[:, None]
    there, before = places[k % len(places)], places[np.maximum(k - 1, 0) % len(places)]
    moved: Points = before + u**2 * (3 - 2 * u) * (there - before)
    return moved
