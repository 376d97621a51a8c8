"""Check a running stream for state drift: compare its state with that of a fresh stream over the last receptive field.

The output of the model depends on no input older than its receptive field, so both states must be equal: every key,
every value, every front-end sum. The fresh stream runs in another thread with its own engines; the loop only copies.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Gap
from edge_hal.runtime.engines.engine import StepEngine
from edge_hal.runtime.observer import Checkpoint, Observer
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.threads import Worker
from edge_hal.spec import PyramidSpec

ABSOLUTE, RELATIVE = 1e-5, 1e-4
"""Tolerance of float32 states that were computed in other chunks; see the invariants of the pyramid."""

log = logging.getLogger("edge_hal.selfcheck")

States = Mapping[str, NDArray[Any]]
OpenLevels = Callable[[], Sequence[StepEngine]]


class History:
    """The input vectors of the last ticks of an epoch: a receptive field, and back from there to a multiple of the
    period of the slowest level, where a fresh stream can start."""

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
        """A copy of the vectors that give a fresh stream the same state: (n, D), oldest first."""
        start = max(0, (self._ticks - self._field) // self._period * self._period)
        return self._rows[np.arange(start, self._ticks) % len(self._rows)]


def deviation(stream: PyramidStream, vectors: NDArray[np.float32], expected: States) -> float:
    """Reset `stream`, step it over `vectors`, and compare its state with the one expected. Returns the largest
    difference over all tensors, in units of the tolerance: above 1.0 there is drift, or a bug."""
    stream.reset()
    stream.push(vectors, np.arange(len(vectors), dtype=np.int64))
    worst = 0.0
    for name, fresh in stream.states().items():
        allowed = ABSOLUTE + RELATIVE * np.abs(fresh)
        difference = float((np.abs(expected[name] - fresh) / allowed).max(initial=0.0))
        worst = max(worst, difference if math.isfinite(difference) else math.inf)  # `max` would pass over a NaN
    return worst


def open_selfcheck(recognizer: Recognizer, every_s: float) -> SelfCheck:
    """Raises EdgeHalError if the model cannot open engines in the background."""
    model = recognizer.engines.model
    if not model.opens_in_background:
        raise EdgeHalError(
            f"--selfcheck cannot check {model.kind}",
            "a second set of engines would have to share the device with the first",
            "add --engine onnxruntime, or run without --selfcheck",
            exit_code=2,
        )
    return SelfCheck(recognizer.spec, every_s, _levels_of_another_stream(recognizer))


def _levels_of_another_stream(recognizer: Recognizer) -> OpenLevels:
    return lambda: recognizer.engines.model.open_stream().levels


class SelfCheck(Observer):
    """Checks the state of a run every `every_s` seconds of stream time.

    Args:
        open_levels: called in the checking thread; engines of a stream of the same bundle.
    """

    def __init__(self, spec: PyramidSpec, every_s: float, open_levels: OpenLevels) -> None:
        self._every_ns = round(every_s * 1e9)
        self._begin(spec, open_levels)

    def _begin(self, spec: PyramidSpec, open_levels: OpenLevels) -> None:
        self._spec, self._open_levels = spec, open_levels
        self._history = History(spec)
        self._next_ns = self._every_ns
        self._stream: PyramidStream | None = None
        self._thread: Worker | None = None
        self._worst = 0.0  # infinite once a check could not be made
        self._report: dict[str, Any] = {"checks": 0, "failed": 0, "worst": 0.0, "t_ns": None}

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        """Starts a check if one is due and the previous one is over."""
        self._history.add(vectors)
        if t_ns < self._next_ns or (self._thread is not None and self._thread.is_alive()):
            return
        self._next_ns = t_ns + self._every_ns
        self._thread = Worker(partial(self._check, self._history.recent(), pyramid.states(), t_ns), "selfcheck")
        self._thread.start()

    def published(self, event: Event) -> None:
        if isinstance(event, Gap) and event.reset:  # a new epoch
            self._history.reset()

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        self.close()
        self._begin(successor.spec, _levels_of_another_stream(successor))

    def health(self) -> dict[str, Any]:
        return {"selfcheck": self._report}

    def close(self) -> None:
        if self._thread is not None:
            self._thread.finish()

    def _check(self, vectors: NDArray[np.float32], expected: States, t_ns: int) -> None:
        report = dict(self._report)
        try:
            self._stream = self._stream or PyramidStream(self._spec, self._open_levels())
            worst = deviation(self._stream, vectors, expected)
        except Exception as error:  # the run goes on; a check that cannot be made counts as failed
            log.error("the state could not be checked: %s", error)
            worst = math.inf
        failed = not worst <= 1.0
        report["checks"] += 1
        report["failed"] += failed
        self._worst = max(self._worst, worst)
        report["worst"] = round(self._worst, 4) if math.isfinite(self._worst) else None  # JSON has no infinity
        report["t_ns"] = t_ns
        self._report = report
        if failed:
            log.error(
                "the state is not that of a fresh stream (%.3g times the tolerance, after %d ticks): "
                "please report this; a restart clears the state",
                worst,
                len(vectors),
            )
