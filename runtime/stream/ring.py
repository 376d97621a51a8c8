"""The ring buffer of a pyramid stream: the recent outputs of every level, addressed by absolute token index.

Every row is written twice, `capacity` rows apart. So any range of recent tokens, and any bin, is one contiguous slice,
and reading it copies and allocates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge_hal.spec import PyramidSpec

TIME = "t_ns"


class PyramidRing:
    """Trunk, fused and head outputs of each level, and `t_ns` (int64 ns) of each token.

    Level l keeps `spec.ring_capacity // spec.period(l)` tokens, in `dtype`. Indices count from 0 in
    each epoch. A slice that was returned stays valid until its oldest token is overwritten.
    """

    def __init__(self, spec: PyramidSpec, dtype: DTypeLike = np.float32) -> None:
        self._strides = tuple(level.stride for level in spec.levels)
        levels = range(len(spec.levels))
        self._periods = tuple(spec.period(level) for level in levels)
        self.capacity = tuple(spec.ring_capacity // spec.period(level) for level in levels)
        self._written = [0 for _ in levels]
        self._rows: list[dict[str, NDArray[Any]]] = []
        for level in levels:
            size = 2 * self.capacity[level]
            rows: dict[str, NDArray[Any]] = {
                tensor.name: np.zeros((size, tensor.shape[1]), dtype) for tensor in spec.outputs(level)
            }
            rows[TIME] = np.zeros(size, np.int64)
            self._rows.append(rows)
        self._twice = [  # the same memory, as two copies of `capacity` rows
            {name: values.reshape(2, size, *values.shape[1:]) for name, values in rows.items()}
            for rows, size in zip(self._rows, self.capacity, strict=True)
        ]

    def reset(self) -> None:
        """Begin a new epoch: count tokens from 0, and forget all rows. A row may hold what is not finite."""
        self._written = [0] * len(self._written)
        for rows in self._rows:
            for values in rows.values():
                values.fill(0)

    def state(self) -> dict[str, Any]:
        """All rows and counts; see `restore`."""
        pairs = zip(self._rows, self.capacity, strict=True)
        rows = [{name: values[:size].copy() for name, values in level.items()} for level, size in pairs]
        return {"written": list(self._written), "rows": rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, with the same spec. Raises ValueError if its counts do not belong together
        or a number is not finite."""
        written = list(state["written"])
        whole = len(written) == len(self._rows) and type(written[0]) is int and 0 <= written[0] < 1 << 60
        if not whole or written != [written[0] // period for period in self._periods]:
            raise ValueError("the counts of the levels do not belong together")
        if not all(np.isfinite(values).all() for level in state["rows"] for values in level.values()):
            raise ValueError("an output is not finite")
        self._written = written
        for level, size, kept in zip(self._rows, self.capacity, state["rows"], strict=True):
            for name, values in level.items():
                values[:size] = values[size:] = kept[name]

    def count(self, level: int) -> int:
        """Tokens written at `level` in this epoch; the next index."""
        return self._written[level]

    def write(
        self,
        level: int,
        index: int,
        outputs: Mapping[str, NDArray[Any]],
        t_ns: Sequence[int] | NDArray[np.int64],
    ) -> None:
        """Append the outputs of one step, `len(t_ns)` tokens of which `index` is the first.

        Raises:
            IndexError: `index` is not the next one, or the step is longer than the ring.
        """
        if index != self._written[level]:
            raise IndexError(f"level {level} expects token {self._written[level]}, not {index}")
        size, capacity = len(t_ns), self.capacity[level]
        if size > capacity:
            raise IndexError(f"{size} tokens do not fit a ring of {capacity}")
        start = index % capacity
        before = min(size, capacity - start)
        for name, both in self._twice[level].items():
            values = np.asarray(t_ns, np.int64) if name == TIME else outputs[name]
            both[:, start : start + before] = values[:before]
            if before < size:
                both[:, : size - before] = values[before:]
        self._written[level] = index + size

    def rows(self, level: int, name: str, start: int, stop: int) -> NDArray[Any]:
        """Tokens start..stop-1 of `name` (an output of the level, or `t_ns`), oldest first: a view.

        Raises:
            IndexError: one of them was overwritten, or is not there yet.
        """
        written, capacity = self._written[level], self.capacity[level]
        if not 0 <= start <= stop <= written:
            raise IndexError(f"level {level} has tokens 0..{written - 1} so far, asked for {start}..{stop - 1}")
        if start < written - capacity:
            raise IndexError(
                f"token {start} of level {level} was overwritten: the ring keeps {written - capacity}..{written - 1}"
            )
        first = start % capacity
        return self._rows[level][name][first : first + stop - start]

    def at(self, level: int, name: str, index: int) -> NDArray[Any]:
        """One token: (width,), or an int64 scalar for `t_ns`. Raises IndexError as `rows` does."""
        row: NDArray[Any] = self.rows(level, name, index, index + 1)[0]
        return row

    def last(self, level: int, name: str, count: int) -> NDArray[Any]:
        """The newest n <= `count` tokens kept, oldest first: (n, width), or (n,) for `t_ns`."""
        written = self._written[level]
        n = max(0, min(count, written, self.capacity[level]))
        return self.rows(level, name, written - n, written)

    def bin(self, level: int, index: int) -> NDArray[Any]:
        """What token `index` of `level` is made of: (stride, width below) trunk rows from below."""
        stride = self._strides[level]
        return self.rows(level - 1, "trunk", index * stride, (index + 1) * stride)
