"""The pyramid stream: one engine per level, each at its own rate.

The levels are aligned by token index. Token b of a level is made of tokens b * stride .. (b + 1) * stride - 1 of the
level below; token t receives from above the bin t // stride - 1, the last one completed before it. Level 0 is stepped
first and the upper levels later, by `settle`, so that they add no latency to an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.engine import Restorable, StepEngine
from edge_hal.spec import PyramidSpec

from .ring import TIME, PyramidRing

Times = Sequence[int] | NDArray[np.int64]


class PyramidStream:
    """One stream of a pyramid: step, read, settle.

    `epoch` counts resets, `steps` the engine steps of each level within the epoch. `ring` keeps the recent outputs of
    every level, in `dtype`.
    """

    def __init__(self, spec: PyramidSpec, engines: Sequence[StepEngine], dtype: DTypeLike = np.float32) -> None:
        if len(engines) != len(spec.levels):
            raise EdgeHalError(f"{len(engines)} engines for {len(spec.levels)} levels", "each level needs its own")
        self.spec = spec
        self.ring = PyramidRing(spec, dtype)
        self.epoch = 0
        self.steps = [0] * len(engines)
        self._engines = tuple(engines)
        self._stride = spec.first_stride if spec.top else None
        self._chunks = tuple(sorted(spec.chunk_sizes, reverse=True))
        self._nothing_held = [np.zeros((1, level.width), dtype) for level in spec.levels[1:]]

    @property
    def ticks(self) -> int:
        """Tokens of level 0 so far in the epoch."""
        return self.ring.count(0)

    @property
    def room(self) -> int | None:
        """Ticks until the next bin is complete, the most that a step may take; None without upper levels."""
        return None if self._stride is None else self._stride - self.ticks % self._stride

    def legal_chunk(self, available: int) -> int:
        """The largest chunk a step may take now, of `available` >= 1 waiting ticks."""
        room = self.room
        limit = available if room is None else min(available, room)
        return next(chunk for chunk in self._chunks if chunk <= limit)

    def step(self, x: NDArray[np.float32], t_ns: Times) -> None:
        """Step level 0 over one chunk and keep its outputs. Upper levels wait for `settle`.

        Args:
            x: (C, D) input vectors, C one of `spec.chunk_sizes`.
            t_ns: time of each of the C ticks.

        Raises:
            EdgeHalError: the shape is wrong, or a bin would complete inside the chunk.
        """
        self.settle()
        size, room = len(x), self.room
        if x.shape != (size, self.spec.front_end.size) or len(t_ns) != size:
            raise EdgeHalError(
                f"a step got vectors of shape {x.shape} and {len(t_ns)} times",
                f"it takes (C, {self.spec.front_end.size}) and C times",
            )
        if size not in self._chunks or (room is not None and size > room):
            raise EdgeHalError(
                f"a chunk of {size} cannot start at tick {self.ticks}",
                f"chunks are {', '.join(map(str, self.spec.chunk_sizes))} and may not cross a bin",
                "use push(), which cuts any length",
            )
        self._run(0, x=x, t_ns=t_ns)

    def push(self, x: NDArray[np.float32], t_ns: Times) -> None:
        """Step any number of ticks, x (n, D), in the longest chunks that are allowed, and settle after each."""
        done = 0
        while done < len(x):
            end = done + self.legal_chunk(len(x) - done)
            self.step(x[done:end], t_ns[done:end])
            self.settle()
            done = end

    def settle(self) -> None:
        """Step the upper levels whose bins are complete, from the lowest; do nothing if there is none."""
        for level in range(1, len(self._engines)):
            index = self.ring.count(level)
            complete = (index + 1) * self.spec.levels[level].stride
            if self.ring.count(level - 1) < complete:
                return
            times = self.ring.rows(level - 1, TIME, complete - 1, complete)
            self._run(level, bin=self.ring.bin(level, index), t_ns=times)

    def posterior(self, count: int) -> NDArray[np.float32]:
        """Log posteriors of the newest n <= `count` ticks, oldest first: (n, K)."""
        return self.ring.last(0, "frame", count)

    def heads(self, count: int, tick: int | None = None) -> NDArray[np.float32]:
        """Log posteriors of all heads at n <= `count` ticks, oldest first: (n, H K), `frame` first, then those with the
        lags `other_lags_ticks`. `tick`: the last of them, default the newest."""
        stop = self.ticks if tick is None else tick + 1
        start = max(0, stop - count, self.ticks - self.ring.capacity[0])
        names = ("frame", "lagged") if self.spec.other_lags_s else ("frame",)
        parts = [self.ring.rows(0, name, start, stop) for name in names]
        return np.hstack(parts) if len(parts) > 1 else parts[0]

    def change(self, count: int) -> NDArray[np.float32]:
        """Probability of a recent boundary at the newest n <= `count` ticks, oldest first: (n,)."""
        return self.ring.last(0, "change", count)[:, 0]

    def action(self) -> NDArray[np.float32] | None:
        """The newest log posterior of the top level, (K,); None before its first token."""
        name = "action" if self.spec.top else "frame"
        newest = self.ring.last(self.spec.top, name, 1)
        return newest[0] if len(newest) else None

    def reset(self) -> None:
        """Begin a new epoch: clear state and ring, and count tokens from 0."""
        for engine in self._engines:
            engine.reset()
        self.ring.reset()
        self.steps = [0] * len(self._engines)
        self.epoch += 1

    def states(self) -> dict[str, NDArray[Any]]:
        """Copies of the state of all levels by name, once all complete bins are stepped."""
        self.settle()
        return {name: value for engine in self._engines for name, value in engine.state().items()}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; see `restore`."""
        return {"epoch": self.epoch, "steps": list(self.steps), "engines": self.states(), "ring": self.ring.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, with the same spec."""
        self.epoch, self.steps = state["epoch"], list(state["steps"])
        if len(self.steps) != len(self._engines) or not all(
            type(n) is int and n >= 0 for n in (self.epoch, *self.steps)
        ):
            raise ValueError("a count of steps is out of range")
        self.ring.restore(state["ring"])
        for engine in self._engines:
            assert isinstance(engine, Restorable)
            engine.restore(state["engines"])

    def _run(self, level: int, *, t_ns: Times, **inputs: NDArray[np.float32]) -> None:
        index = self.ring.count(level)
        if level < self.spec.top:
            inputs["held"] = self._held(level, index)
        outputs = self._engines[level].step(inputs)
        self.ring.write(level, index, outputs, t_ns)
        self.steps[level] += 1

    def _held(self, level: int, token: int) -> NDArray[np.float32]:
        """(1, width above): what `token` of `level` receives from above; zeros before the first bin."""
        above = token // self.spec.levels[level + 1].stride - 1
        if above < 0:
            return self._nothing_held[level]
        return self.ring.rows(level + 1, "fused", above, above + 1)
