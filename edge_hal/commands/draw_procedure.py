"""The graph of a procedure as a picture: a layer of steps for each stage, from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.plotting import drawing, shown
from edge_hal.procedure.rules import Procedure

LIKELY = 0.1
"""Smaller chances to follow are not drawn."""
WIDTH, HEIGHT = 2.4, 0.9
"""Inches between the middles of two layers, and of two steps of a layer."""
SWEEPS = 8
"""Passes of the barycentre heuristic, which moves each step near to those it is connected with."""


def draw(procedure: Procedure, requires: Mapping[str, Sequence[str]], path: Path) -> None:
    """Write the picture; its format follows from the suffix.

    Args:
        requires: what each step requires, without what follows from the others.
    """
    at = layout(procedure, requires)
    columns, rows = (int(max(place[axis] for place in at.values()) + 1) for axis in (0, 1))
    size_inch, style = (WIDTH * columns + 0.6, HEIGHT * rows + 1.1), {"savefig.dpi": 130, "savefig.bbox": "tight"}
    with drawing(path, 1, 1, size_inch, style=style) as (figure, axes):
        _draw(procedure, requires, at, figure, axes[0, 0])


def _draw(
    procedure: Procedure,
    requires: Mapping[str, Sequence[str]],
    at: Mapping[str, tuple[int, float]],
    figure: Any,
    axis: Any,
) -> None:
    columns, rows = (int(max(place[axis_] for place in at.values()) + 1) for axis_ in (0, 1))
    for name, step in procedure.steps.items():
        for to, chance in step.then.items():
            if chance >= LIKELY and name not in requires[to]:
                _arrow(axis, at[name], at[to], color="0.6", linestyle="--", linewidth=0.5 + 1.5 * chance, bend=0.25)
        for before in requires[name]:
            _arrow(axis, at[before], at[name], color="0.1", linestyle="-", linewidth=1.3, bend=0.0)
    for name, step in procedure.steps.items():
        marks = [word for word, holds in (("begins", step.begins_cycle), ("ends", step.ends_cycle)) if holds]
        marks += ["repeatable"] if step.repeatable and not step.background else []
        text = f"{shown(name)}\n{step.median_s:.1f} s" + (f", {', '.join(marks)}" if marks else "")
        box = {
            "boxstyle": "round,pad=0.35",
            "facecolor": "0.92" if step.background else "white",
            "edgecolor": "0.1",
            "linestyle": "--" if step.optional else "-",
            "linewidth": 2.0 if step.begins_cycle or step.ends_cycle else 1.0,
        }
        x, y = at[name]
        axis.text(x * WIDTH, -y * HEIGHT, text, ha="center", va="center", fontsize=8, bbox=box)
    axis.set_xlim(-WIDTH / 2, (columns - 0.5) * WIDTH)
    axis.set_ylim(-(rows - 0.3) * HEIGHT, 0.7 * HEIGHT)
    axis.set_axis_off()
    note = "solid: must come before; dashed arrow: may follow; dashed frame: optional"
    figure.text(0.01, 0.01, note, fontsize=7, color="0.35")


def layout(procedure: Procedure, requires: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, float]]:
    """(layer, place in it) of each step. A step is to the right of all that it requires, and of those that lead to it
    most often from the begin, if nothing is required."""
    layer = _layers(procedure, requires)
    rows: dict[int, list[str]] = {}
    for name in procedure.steps:
        rows.setdefault(layer[name], []).append(name)
    near: dict[str, set[str]] = {name: set(requires[name]) for name in procedure.steps}
    for name, step in procedure.steps.items():
        near[name] |= {to for to, chance in step.then.items() if chance >= LIKELY}
    for name, others in list(near.items()):
        for other in others:
            near[other] = near[other] | {name}
    highest = max(map(len, rows.values()))
    place = {name: _spread(row, len(names), highest) for names in rows.values() for row, name in enumerate(names)}
    for _ in range(SWEEPS):
        for names in rows.values():
            pull = {name: np.mean([place[other] for other in near[name]] or [place[name]]) for name in names}
            names.sort(key=lambda name: float(pull[name]))
            place |= {name: _spread(row, len(names), highest) for row, name in enumerate(names)}
    return {name: (layer[name], place[name]) for name in procedure.steps}


def _spread(row: int, count: int, highest: int) -> float:
    return row + (highest - count) / 2


def _layers(procedure: Procedure, requires: Mapping[str, Sequence[str]]) -> dict[str, int]:
    if any(requires.values()):
        layer = dict.fromkeys(procedure.steps, 0)
        for _ in procedure.steps:  # the longest chain of requirements ends within so many rounds
            for name, before in requires.items():
                layer[name] = max([layer[one] + 1 for one in before], default=0)
        return layer
    first = max(procedure.steps, key=lambda name: procedure.steps[name].first)
    layer, front = {first: 0}, [first]
    while front:
        name = front.pop(0)
        for to, chance in procedure.steps[name].then.items():
            if chance >= LIKELY and to not in layer:
                layer[to] = layer[name] + 1
                front.append(to)
    return {name: layer.get(name, 0) for name in procedure.steps}


def _arrow(axis: object, begin: tuple[int, float], end: tuple[int, float], *, bend: float, **line: object) -> None:
    properties = {"arrowstyle": "-|>", "shrinkA": 24, "shrinkB": 24, "connectionstyle": f"arc3,rad={bend}", **line}
    places = [(x * WIDTH, -y * HEIGHT) for x, y in (end, begin)]
    axis.annotate("", xy=places[0], xytext=places[1], arrowprops=properties)  # type: ignore[attr-defined]
