"""Failures on order: `fault:drop=5%,freeze@10s+3s,unplug@30s+5s:SOURCE` rehearses what cameras do.

A script is a list of faults. Times count from the source's first frame; the same seed gives the same
faults.

    drop=5%            frames that never come             jitter=20ms        frames late by up to that
    dup, dup=5%        frames that come twice             clockstep=-1s@40s  stamps jump, from then on
    freeze@10s+3s      the same picture for 3 s           seed=7
    hang@20s[+5s]      a read that does not return        unplug@30s+5s      gone; connecting fails

Without a length a freeze or a hang lasts until the camera is opened again, an unplugging for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

HANG_S = 5
"""How long a hang without a length lasts where nobody can end it: in a file read as fast as possible."""

UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9}
PATTERNS = {
    "chance": re.compile(r"(drop|dup)(?:=(\d+(?:\.\d+)?)%)?"),
    "jitter": re.compile(r"jitter=(\d+(?:\.\d+)?)(ms|s)"),
    "seed": re.compile(r"seed=(\d+)"),
    "window": re.compile(r"(freeze|hang|unplug)@(\d+(?:\.\d+)?)(ms|s|m)(?:\+(\d+(?:\.\d+)?)(ms|s|m))?"),
    "step": re.compile(r"clockstep=([+-]?\d+(?:\.\d+)?)(ms|s|m)@(\d+(?:\.\d+)?)(ms|s|m)"),
}
EXAMPLE = "fault:drop=5%,freeze@10s+3s,hang@20s,unplug@30s+5s,dup=1%,jitter=20ms,clockstep=-1s@40s:0"


@dataclass(frozen=True)
class Window:
    """`kind` (freeze, hang or unplug) from `begin_ns` to `end_ns`, None for ever."""

    kind: str
    begin_ns: int
    end_ns: int | None

    def holds(self, t_ns: int) -> bool:
        return self.begin_ns <= t_ns and (self.end_ns is None or t_ns < self.end_ns)


@dataclass(frozen=True)
class FaultScript:
    """What to do to a source. `drop` and `dup` are probabilities a frame; `steps` are (at, by) in ns."""

    drop: float = 0.0
    dup: float = 0.0
    jitter_ns: int = 0
    seed: int = 0
    windows: tuple[Window, ...] = ()
    steps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FaultScript:
        """Raises EdgeHalError, naming the fault that cannot be read."""
        chances: dict[str, float] = {}
        jitter_ns = seed = 0
        windows: list[Window] = []
        steps: list[tuple[int, int]] = []
        for part in text.split(","):
            kind, match = _read(part.strip())
            if kind == "chance":
                chances[match[1]] = min(1.0, float(match[2] or 100) / 100)
            elif kind == "jitter":
                jitter_ns = _ns(match[1], match[2])
            elif kind == "seed":
                seed = int(match[1])
            elif kind == "window":
                begin_ns = _ns(match[2], match[3])
                end_ns = begin_ns + _ns(match[4], match[5]) if match[4] else None
                windows.append(Window(match[1], begin_ns, end_ns))
            else:
                steps.append((_ns(match[3], match[4]), _ns(match[1], match[2])))
        return cls(jitter_ns=jitter_ns, seed=seed, windows=tuple(windows), steps=tuple(steps), **chances)


class Faults:
    """A script being played. `opened_ns`: how old the stream was when this reader was opened."""

    def __init__(self, script: FaultScript, opened_ns: int = 0) -> None:
        self._script, self._opened_ns = script, opened_ns
        self._random = np.random.default_rng((script.seed, opened_ns // 10**9))
        self._hung: set[Window] = set()

    def unplugged(self, t_ns: int) -> bool:
        return any(window.kind == "unplug" and window.holds(t_ns) for window in self._script.windows)

    def frozen(self, t_ns: int) -> bool:
        return any(
            window.kind == "freeze" and window.begin_ns >= self._opened_ns and window.holds(t_ns)
            for window in self._script.windows
        )

    def hang(self, t_ns: int) -> Window | None:
        """A hang that is due now, once."""
        for window in self._script.windows:
            due = window.kind == "hang" and self._opened_ns <= window.begin_ns <= t_ns
            if due and window not in self._hung:
                self._hung.add(window)
                return window
        return None

    def shift_ns(self, t_ns: int) -> int:
        """How wrong the stamps are by now."""
        return sum(by_ns for at_ns, by_ns in self._script.steps if at_ns <= t_ns)

    def dropped(self) -> bool:
        return self._script.drop > 0 and self._random.random() < self._script.drop

    def doubled(self) -> bool:
        return self._script.dup > 0 and self._random.random() < self._script.dup

    def late_ns(self) -> int:
        return int(self._random.integers(self._script.jitter_ns + 1)) if self._script.jitter_ns else 0


Timed = tuple[int, NDArray[Any] | None]
"""When a frame was taken, ns of stream time, and what it shows; None where it cannot be decoded."""


def afflict(script: FaultScript, frames: Iterator[Timed]) -> Iterator[Timed]:
    """A file's frames with the faults of a script: time is the file's, so the result is always the same."""
    faults, latest_ns = Faults(script), 0
    silent_ns, shown = 0, None
    for t_ns, data in frames:
        if (hang := faults.hang(t_ns)) is not None:
            silent_ns = hang.begin_ns + HANG_S * 10**9 if hang.end_ns is None else hang.end_ns
        if t_ns < silent_ns or faults.unplugged(t_ns) or faults.dropped():
            continue
        if not faults.frozen(t_ns) or shown is None:
            shown = data
        latest_ns = max(latest_ns, t_ns + faults.late_ns())
        for _ in range(1 + faults.doubled()):
            yield latest_ns + faults.shift_ns(t_ns), shown


def _read(part: str) -> tuple[str, re.Match[str]]:
    for kind, pattern in PATTERNS.items():
        if match := pattern.fullmatch(part):
            return kind, match
    raise EdgeHalError(
        f"there is no fault '{part}'",
        "known: drop=, dup, jitter=, freeze@, hang@, unplug@, clockstep=, seed=",
        f"for example {EXAMPLE}",
        exit_code=2,
    )


def _ns(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])
