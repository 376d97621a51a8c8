"""Fault injection: `fault:drop=5%,freeze@10s+3s,unplug@30s+5s:SOURCE` makes a source fail as cameras do.

A script is a list of faults. Times count from the first frame of the source. The same seed gives the same faults.

    drop=5%            frames that never come             jitter=20ms        frames late by up to 20 ms
    dup, dup=5%        frames that come twice             clockstep=-1s@40s  timestamps jump by -1 s at 40 s
    freeze@10s+3s      the same picture for 3 s           seed=7             chooses which frames
    hang@20s[+5s]      a read that does not return        unplug@30s+5s      no camera; connecting fails

Without a length, a freeze or a hang lasts until the camera is opened again, an unplugged camera never comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.redaction import HIDDEN

ASAP_HANG_S = 5
"""Length of a hang without a length in a file read as fast as possible, where no watchdog ends it."""

UNITS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9}
PATTERNS = {
    "probability": re.compile(r"(drop|dup)(?:=(\d+(?:\.\d+)?)%)?"),
    "jitter": re.compile(r"jitter=(\d+(?:\.\d+)?)(ms|s)"),
    "seed": re.compile(r"seed=(\d+)"),
    "window": re.compile(r"(freeze|hang|unplug)@(\d+(?:\.\d+)?)(ms|s|m)(?:\+(\d+(?:\.\d+)?)(ms|s|m))?"),
    "step": re.compile(r"clockstep=([+-]?\d+(?:\.\d+)?)(ms|s|m)@(\d+(?:\.\d+)?)(ms|s|m)"),
}
EXAMPLE = "fault:drop=5%,freeze@10s+3s,hang@20s,unplug@30s+5s,dup=1%,jitter=20ms,clockstep=-1s@40s:0"


@dataclass(frozen=True)
class Window:
    """A fault of some length: `kind` is freeze, hang or unplug; `end_ns` None means for ever."""

    kind: str
    begin_ns: int
    end_ns: int | None

    def contains(self, t_ns: int) -> bool:
        return self.begin_ns <= t_ns and (self.end_ns is None or t_ns < self.end_ns)


@dataclass(frozen=True)
class FaultScript:
    """The faults to inject. `drop` and `dup` are probabilities per frame. `clock_steps` are pairs (when, by how much),
    ns."""

    drop: float = 0.0
    dup: float = 0.0
    jitter_ns: int = 0
    seed: int = 0
    windows: tuple[Window, ...] = ()
    clock_steps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FaultScript:
        """Raises EdgeHalError that names the first fault that cannot be parsed."""
        probabilities: dict[str, float] = {}
        jitter_ns = seed = 0
        windows: list[Window] = []
        clock_steps: list[tuple[int, int]] = []
        for part in text.split(","):
            kind, match = _parse_fault(part.strip())
            if kind == "probability":
                probabilities[match[1]] = min(1.0, float(match[2] or 100) / 100)
            elif kind == "jitter":
                jitter_ns = _ns(match[1], match[2])
            elif kind == "seed":
                seed = int(match[1])
            elif kind == "window":
                begin_ns = _ns(match[2], match[3])
                end_ns = begin_ns + _ns(match[4], match[5]) if match[4] else None
                windows.append(Window(match[1], begin_ns, end_ns))
            else:
                clock_steps.append((_ns(match[3], match[4]), _ns(match[1], match[2])))
        return cls(
            jitter_ns=jitter_ns, seed=seed, windows=tuple(windows), clock_steps=tuple(clock_steps), **probabilities
        )


class FaultInjector:
    """Says which faults of a script happen at a stream time.

    Args:
        opened_ns: stream time when this reader was opened. Freezes and hangs that began before are over.
    """

    def __init__(self, script: FaultScript, opened_ns: int = 0) -> None:
        self._script, self._opened_ns = script, opened_ns
        self._random = np.random.default_rng((script.seed, opened_ns // 10**9))
        self._hung: set[Window] = set()

    def unplugged(self, t_ns: int) -> bool:
        return any(window.kind == "unplug" and window.contains(t_ns) for window in self._script.windows)

    def frozen(self, t_ns: int) -> bool:
        return any(
            window.kind == "freeze" and window.begin_ns >= self._opened_ns and window.contains(t_ns)
            for window in self._script.windows
        )

    def hang(self, t_ns: int) -> Window | None:
        """The next hang that has begun by `t_ns`. Each is returned once."""
        for window in self._script.windows:
            begun = window.kind == "hang" and self._opened_ns <= window.begin_ns <= t_ns
            if begun and window not in self._hung:
                self._hung.add(window)
                return window
        return None

    def shift_ns(self, t_ns: int) -> int:
        """Error of the timestamps at `t_ns`."""
        return sum(by_ns for at_ns, by_ns in self._script.clock_steps if at_ns <= t_ns)

    def dropped(self) -> bool:
        return self._script.drop > 0 and self._random.random() < self._script.drop

    def duplicated(self) -> bool:
        return self._script.dup > 0 and self._random.random() < self._script.dup

    def jitter_ns(self) -> int:
        return int(self._random.integers(self._script.jitter_ns + 1)) if self._script.jitter_ns else 0


TimedFrame = tuple[int, NDArray[Any] | None]
"""Stream time of a frame, ns, and its picture or vector; None where it cannot be decoded."""


def inject_faults(script: FaultScript, frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """The frames of a file with the faults of a script. Time is the file's, so the result is always the same."""
    faults, latest_ns = FaultInjector(script), 0
    hang_end_ns, shown = 0, None
    for t_ns, data in frames:
        if (hang := faults.hang(t_ns)) is not None:
            hang_end_ns = hang.begin_ns + ASAP_HANG_S * 10**9 if hang.end_ns is None else hang.end_ns
        if t_ns < hang_end_ns or faults.unplugged(t_ns) or faults.dropped():
            continue
        if not faults.frozen(t_ns) or shown is None:
            shown = data
        latest_ns = max(latest_ns, t_ns + faults.jitter_ns())
        for _ in range(1 + faults.duplicated()):
            yield latest_ns + faults.shift_ns(t_ns), shown


def _parse_fault(part: str) -> tuple[str, re.Match[str]]:
    for kind, pattern in PATTERNS.items():
        if match := pattern.fullmatch(part):
            return kind, match
    shown = (
        part if re.fullmatch(r"[a-z]+([=@+-]+[\d.]*[a-z%]{0,2}){0,4}", part) else HIDDEN
    )  # an address without a script
    raise EdgeHalError(
        f"there is no fault '{shown}'",
        "known: drop=, dup, jitter=, freeze@, hang@, unplug@, clockstep=, seed=",
        f"for example {EXAMPLE}",
        exit_code=2,
    )


def _ns(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])
