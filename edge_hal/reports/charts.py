"""Charts of a report as SVG texts: no script, no font and no address. Colours are CSS variables of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from .figures import Times
from .history import CycleRun
from .local_time import LocalTime

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 260, 60, 34, 10
SMOOTHED = 25
"""Cycles in the running median."""


def cycle_times(cycles: Sequence[CycleRun], local: LocalTime) -> str:
    """A point for each cycle at its end; hollow if it was incomplete. The line is the running median of the others."""
    if not cycles:
        return ""
    times = np.array([cycle.end.utc_ns for cycle in cycles], float)
    durations = np.array([cycle.duration_s for cycle in cycles])
    complete = np.array([cycle.complete for cycle in cycles])
    first, last = times[0], max(times[-1], times[0] + 1e9)  # nanoseconds: a float64 has steps of 256 of them
    top = _round_up(float(np.percentile(durations, 99)) * 1.15)
    x = LEFT + (WIDTH - LEFT - 10) * (times - first) / (last - first)
    y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - np.minimum(durations, top) / top)
    parts = [_grid_y(top), _days(first, last, local)]
    for name, chosen in (("point", complete), ("hollow", ~complete)):
        dots = "".join(f"M{a:.1f} {b:.1f}h.01" for a, b in zip(x[chosen], y[chosen], strict=True))
        parts.append(f'<path class="{name}" d="{dots}"/>' if dots else "")
    if complete.sum() >= SMOOTHED:
        windows = np.lib.stride_tricks.sliding_window_view(durations[complete], SMOOTHED)
        middle = np.minimum(np.median(windows, axis=1), top)
        at = x[complete][SMOOTHED // 2 : SMOOTHED // 2 + len(middle)]
        heights = TOP + (HEIGHT - TOP - BOTTOM) * (1 - middle / top)
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(at, heights, strict=True))
        parts.append(f'<path class="line" d="M{line}"/>')
    label = f"{len(cycles)} cycles by time of their end, duration in seconds"
    return _svg(WIDTH, HEIGHT, label, "".join(parts))


def quantiles(times: Times, longest_s: float, width: int = 260) -> str:
    """A bar from the 10 % to the 90 % quantile with a mark at the median, on a scale from 0 to `longest_s`."""
    if times.median_s is None or times.p10_s is None or times.p90_s is None or longest_s <= 0:
        return ""
    a, m, b = (width * min(1.0, value / longest_s) for value in (times.p10_s, times.median_s, times.p90_s))
    label = f"{times.p10_s:.1f} to {times.p90_s:.1f} seconds, median {times.median_s:.1f}"
    bar = f'<rect class="bar" x="{a:.1f}" y="4" width="{max(1.0, b - a):.1f}" height="8"/>'
    return _svg(width, 16, label, f'{bar}<rect class="mark" x="{max(0.0, m - 1):.1f}" y="1" width="2" height="14"/>')


def amount(value: float, largest: float, label: str, width: int = 160) -> str:
    """A bar of a length that is proportional to `value`."""
    length = width * value / largest if largest > 0 else 0.0
    return _svg(width, 14, label, f'<rect class="bar" x="0" y="2" width="{length:.1f}" height="10"/>')


def _svg(width: int, height: int, label: str, inside: str) -> str:
    text = escape(label)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{text}">'
        f"<title>{text}</title>{inside}</svg>"
    )


def _grid_y(top: float) -> str:
    lines = []
    for part in range(5):
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - part / 4)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - 10}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * part / 4:g} s</text>')
    return "".join(lines)


def _days(first: float, last: float, local: LocalTime) -> str:
    """Date and time at five places."""
    texts = []
    for part in range(5):
        moment = local.at(int(first + (last - first) * part / 4))
        x = LEFT + (WIDTH - LEFT - 10) * part / 4
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        texts.append(f'<text x="{x:.0f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{moment:%Y-%m-%d %H:%M}</text>')
    return "".join(texts)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(each * power for each in (1, 2, 4, 8, 10) if each * power >= value)
