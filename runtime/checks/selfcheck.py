"""Does the state drift? A stream of any age is compared with a fresh one that saw the last receptive field.

The model can see no further back than its receptive field, so both must be the same: every key, every value,
every front-end sum. The fresh stream runs in a thread with engines of its own; the loop only copies.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.engine import StepEngine
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.spec import PyramidSpec

ABSOLUTE, RELATIVE = 1e-5, 1e-4
"""What float32 may differ by when chunks are cut elsewhere; see the invariants of the pyramid."""

log = logging.getLogger("edge_hal.selfcheck")

States = Mapping[str, NDArray[Any]]


class History:
    """The vectors of the last ticks of an epoch: a receptive field, back to where a fresh stream may
    start, which is a multiple of the slowest level's period."""

    def __init__(self, spec: PyramidSpec) -> None:
        self._field, self._period = spec.receptive_field, spec.period(spec.top)
        self._rows = np.zeros((self._field + self._period, spec.front_end.size), np.float32)
        self._ticks = 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        for vector in vectors:
            self._rows[self._ticks % len(self._rows)] = vector
            self._ticks += 1

    def reset(self) -> None:
        self._ticks = 0

    def recent(self) -> NDArray[np.float32]:
        """(n, D), oldest first: what a fresh stream is fed to arrive at the same state. A copy."""
        start = max(0, (self._ticks - self._field) // self._period * self._period)
        return self._rows[np.arange(start, self._ticks) % len(self._rows)]


def deviation(stream: PyramidStream, vectors: NDArray[np.float32], expected: States) -> float:
    """Reset `stream`, feed it `vectors`, and compare its state with the one expected: the largest
    difference over all tensors, in units of what is allowed (above 1.0 is drift, or a bug)."""
    stream.reset()
    stream.push(vectors, np.arange(len(vectors), dtype=np.int64))
    worst = 0.0
    for name, fresh in stream.states().items():
        allowed = ABSOLUTE + RELATIVE * np.abs(fresh)
        worst = max(worst, float((np.abs(expected[name] - fresh) / allowed).max(initial=0.0)))
    return worst


def open_selfcheck(recognizer: Recognizer, every_s: float, threads: int) -> SelfCheck:
    """Raises EdgeHalError where the engines are of a kind that cannot be checked."""
    if recognizer.engines.kind != "onnxruntime":
        raise EdgeHalError(
            f"--selfcheck cannot check {recognizer.engines.kind}",
            "a second set of engines would have to share the device with the first",
            "add --engine onnxruntime, or run without --selfcheck",
            exit_code=2,
        )
    return SelfCheck(recognizer.spec, every_s, partial(open_engines, recognizer.bundle, threads))


class SelfCheck:
    """Checks the state of one stream every `every_s` seconds of stream time, while it runs.

    Args:
        open_engines: engines of its own, opened in the checking thread.
    """

    def __init__(self, spec: PyramidSpec, every_s: float, open_engines: Callable[[], Sequence[StepEngine]]) -> None:
        self._spec, self._every_ns, self._open = spec, round(every_s * 1e9), open_engines
        self._history = History(spec)
        self._next_ns = self._every_ns
        self._stream: PyramidStream | None = None
        self._thread: threading.Thread | None = None
        self._report: dict[str, Any] = {"checks": 0, "failed": 0, "worst": 0.0, "t_ns": None}

    def health(self) -> dict[str, Any]:
        return self._report

    def saw(self, vectors: NDArray[np.float32], t_ns: int, stream: PyramidStream) -> None:
        """`stream` stepped `vectors`, the last at `t_ns`, and settled. Starts a check where one is due
        and the one before is over."""
        self._history.add(vectors)
        if t_ns < self._next_ns or (self._thread is not None and self._thread.is_alive()):
            return
        self._next_ns = t_ns + self._every_ns
        work = (self._history.recent(), stream.states(), t_ns)
        self._thread = threading.Thread(target=self._check, args=work, name="edge-hal-selfcheck", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """A new epoch."""
        self._history.reset()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _check(self, vectors: NDArray[np.float32], expected: States, t_ns: int) -> None:
        report = dict(self._report)
        try:
            self._stream = self._stream or PyramidStream(self._spec, self._open())
            worst = deviation(self._stream, vectors, expected)
        except Exception as error:  # the run goes on: a check that cannot be made is a failed one
            log.error("the state could not be checked: %s", error)
            worst = float("inf")
        failed = not worst <= 1.0
        report["checks"] += 1
        report["failed"] += failed
        report["worst"] = round(max(report["worst"], worst), 4) if np.isfinite(worst) else None
        report["t_ns"] = t_ns
        self._report = report
        if failed:
            log.error(
                "the state is not that of a fresh stream (%.3g times what is allowed, after %d ticks of it): "
                "please report this; a restart starts afresh",
                worst,
                len(vectors),
            )
