"""The table of rates and shapes that training, export, engines and runtime share. No shape is written elsewhere.

A *token* of level 0 is one tick of the model's clock. A token of level l+1 stands for a *bin* of `stride`
consecutive tokens of level l and exists once that bin is complete. Token indices have no holes within an epoch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.spec_limits import check_spec

SCHEMA = 1
MASKED = -1e4
"""Additive attention bias of a missing key: exp(MASKED) is zero, and the sum of two still fits in float16."""


def lag_in_ticks(lag_s: float, model_hz: float) -> int:
    """A lag in whole ticks; at least 1 if it is positive."""
    return max(1, round(lag_s * model_hz)) if lag_s > 0 else 0


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a step graph. `fill` is the initial value of a state."""

    name: str
    shape: tuple[int, ...]
    fill: float = 0.0


@dataclass(frozen=True)
class EncoderSpec:
    """The frame encoder: uint8 BGR (height, width, 3) in, one float vector out. The model reads its first `size`
    numbers. `moving`: a number of pictures; what has rested for most of them is greyed before (`pictures/moving.py`). 0
    for never. `coarse`: rows of a coarse copy of the picture at the end of the vector; 0 for none."""

    height: int
    width: int
    size: int
    moving: int = 0
    coarse: int = 0

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Rows and columns of the coarse copy."""
        return self.coarse, max(1, round(self.coarse * self.width / self.height)) if self.coarse else 0

    @property
    def unread(self) -> int:
        """Numbers of the coarse copy. The model does not read them (`decoding/familiarity.py` does)."""
        return 3 * math.prod(self.coarse_shape)

    @property
    def vector_size(self) -> int:
        return self.size + self.unread

    @property
    def image(self) -> TensorSpec:
        return TensorSpec("image", (self.height, self.width, 3))

    @property
    def vector(self) -> TensorSpec:
        return TensorSpec("vector", (1, self.vector_size))


@dataclass(frozen=True)
class FrontEndSpec:
    """The input of level 0: the input vector as z-scores, clipped, then its trailing mean, change and deviation.

    `size` is the length of the input vector, `window` the ticks of each trailing window, `clip` in
    standard deviations. `projected`: the number of principal components that replace the vector; 0 for no projection.
    `baseline`: the ticks of the trailing window whose mean and deviation standardise the z-scores once more, so that
    what does not change in it has no influence; 0 for none. `unread`: numbers at the end of the vector that it leaves
    out.
    """

    size: int
    window: int
    clip: float = 5.0
    projected: int = 0
    baseline: int = 0
    unread: int = 0

    @property
    def read(self) -> int:
        """Number of the first numbers of a vector, those that are read."""
        return self.size - self.unread

    @property
    def history(self) -> int:
        """Number of past z-scores that a tick needs: two adjacent windows, without the tick itself."""
        return 2 * self.window - 1

    @property
    def baseline_history(self) -> int:
        """Number of past z-scores in the window of the baseline, without that of the tick itself."""
        return max(0, self.baseline - 1)

    @property
    def states(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of the state: past z-scores `z` and which of them exist, `n`; with a baseline also the z-scores
        before it is taken off, `y`, and which of them exist, `m`."""
        found = {"z": (self.history, self.width), "n": (self.history, 1)}
        if self.baseline:
            found |= {"y": (self.baseline_history, self.width), "m": (self.baseline_history, 1)}
        return found

    @property
    def width(self) -> int:
        """Number of z-scores of a tick."""
        return self.projected or self.read

    @property
    def features(self) -> int:
        return 3 * self.width


@dataclass(frozen=True)
class LevelSpec:
    """One level of the pyramid. `stride`: tokens of the level below in a bin (1 at level 0); `window`:
    tokens a token attends to, itself included; `blocks`: transformer blocks of `width` and `heads`."""

    stride: int
    window: int
    width: int
    heads: int
    blocks: int


@dataclass(frozen=True)
class PyramidSpec:
    """All that determines the shapes of the model: levels, model rate, labels, input.

    `lag_s`: the posteriors at tick t describe time t - lag_s. The model stays causal: at t it has seen `lag_s` of what
    follows (as in Bounded Future MS-TCN++, arXiv 2209.14647). `other_lags_s`: further heads, each with a lag of its
    own, in ascending order.

    Raises:
        EdgeHalError: a number is out of range or contradicts another; the message names the field.
    """

    model_hz: float
    labels: tuple[str, ...]
    front_end: FrontEndSpec
    levels: tuple[LevelSpec, ...]
    encoder: EncoderSpec | None = None
    background: str | None = None
    change_window_s: float = 0.5
    lookback_s: float = 30.0
    lag_s: float = 0.0
    other_lags_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_spec(self)

    # --- time -----------------------------------------------------------------------------------

    def period(self, level: int) -> int:
        """Ticks per token of `level`: the product of the strides up to it."""
        return math.prod(entry.stride for entry in self.levels[: level + 1])

    @property
    def lag_ticks(self) -> int:
        """`lag_s` in ticks."""
        return lag_in_ticks(self.lag_s, self.model_hz)

    @property
    def heads_width(self) -> int:
        """Log posteriors of all heads of one tick, H K."""
        return len(self.labels) * (1 + len(self.other_lags_s))

    @property
    def other_lags_ticks(self) -> tuple[int, ...]:
        """`other_lags_s` in ticks."""
        return tuple(lag_in_ticks(lag_s, self.model_hz) for lag_s in self.other_lags_s)

    @property
    def first_stride(self) -> int:
        """Ticks in a bin of the first level. It is 1 for a model with one level, which can decide at every tick."""
        return self.levels[1].stride if len(self.levels) > 1 else 1

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """Numbers of ticks that a level-0 step may take at once: the divisors of the first stride, so that no bin
        completes inside a step and chunking cannot change a result. A model with one level has no bins: 1 and 8."""
        if len(self.levels) == 1:
            return (1, 8)
        stride = self.first_stride
        return tuple(c for c in range(1, stride + 1) if stride % c == 0)

    def chunks(self, level: int) -> tuple[int, ...]:
        return self.chunk_sizes if level == 0 else (1,)

    @property
    def receptive_field(self) -> int:
        """Number of ticks that can change the output at a tick, the tick itself included.

        Trunk of level l: T_l = T_{l-1} + (stride_l - 1) P_{l-1} + blocks_l (window_l - 1) P_l with P the
        period. Fused: F_l = max(T_l, stride_{l+1} P_l + F_{l+1}): the bin held from above ended between 1
        and stride_{l+1} tokens ago.
        """
        trunk: list[int] = []
        for index, level in enumerate(self.levels):
            reach = level.blocks * (level.window - 1) * self.period(index)
            if index == 0:
                trunk.append(self.front_end.history + self.front_end.baseline_history + 1 + reach)
            else:
                below = self.period(index - 1)
                trunk.append(trunk[-1] + (level.stride - 1) * below + reach)
        fused = trunk[-1]
        for index in range(len(self.levels) - 2, -1, -1):
            fused = max(trunk[index], self.period(index + 1) + fused)
        return fused

    @property
    def warm_s(self) -> float:
        """Seconds after which a stream gives the same outputs as one that started earlier."""
        return self.receptive_field / self.model_hz

    @property
    def ring_capacity(self) -> int:
        """Level-0 tokens that the runtime keeps: those of `lookback_s`, rounded up so that each bin is one slice."""
        total = self.period(len(self.levels) - 1)
        ticks = max(math.ceil(self.lookback_s * self.model_hz), 2 * total)
        return -(-ticks // total) * total

    # --- tensors --------------------------------------------------------------------------------

    @property
    def top(self) -> int:
        return len(self.levels) - 1

    def inputs(self, level: int, chunk: int = 1) -> tuple[TensorSpec, ...]:
        """Inputs of a step graph besides its state.

        `x` (chunk, D): the input vectors. `bin` (stride, width below): trunk outputs of one completed bin.
        `held` (1, width above): fused output of the last bin completed above, zeros before the first.
        """
        if level == 0:
            tensors = [TensorSpec("x", (chunk, self.front_end.size))]
        else:
            below = self.levels[level - 1].width
            tensors = [TensorSpec("bin", (self.levels[level].stride, below))]
        if level < self.top:
            tensors.append(TensorSpec("held", (1, self.levels[level + 1].width)))
        return tuple(tensors)

    def outputs(self, level: int, chunk: int = 1) -> tuple[TensorSpec, ...]:
        """Outputs of a step graph besides its state.

        `frame` (chunk, K): log posterior of the label `lag_ticks` before each tick. `change` (chunk, 1): probability
        that a boundary lies within `change_window_s` before that. `lagged` (chunk, L K): log posteriors of the L heads
        with the lags `other_lags_ticks`, one after another. `action` (1, K): log posterior at the top. `trunk` feeds
        the level above, `fused` the level below.
        """
        width, tensors = self.levels[level].width, []
        if level < self.top:
            tensors.append(TensorSpec("trunk", (chunk, width)))
        if level > 0:
            tensors.append(TensorSpec("fused", (chunk, width)))
        if level == 0:
            tensors.append(TensorSpec("frame", (chunk, len(self.labels))))
            tensors.append(TensorSpec("change", (chunk, 1)))
            if self.other_lags_s:
                tensors.append(TensorSpec("lagged", (chunk, len(self.other_lags_s) * len(self.labels))))
        elif level == self.top:
            tensors.append(TensorSpec("action", (chunk, len(self.labels))))
        return tuple(tensors)

    def states(self, level: int) -> tuple[TensorSpec, ...]:
        """State tensors, of constant size. The output `NAME.next` of a step is the input `NAME` of the next step.

        `l0.z`, `l0.n`, ...: those of the front end. `lL.valid` (1, window - 1): 0 or `MASKED` for each cached key.
        `lL.bB.k`, `lL.bB.v` (heads, window - 1, width / heads): keys and values of block B.
        """
        entry, name = self.levels[level], f"l{level}"
        tensors: list[TensorSpec] = []
        if level == 0:
            tensors += [TensorSpec(f"{name}.{state}", shape) for state, shape in self.front_end.states.items()]
        cache = (entry.heads, entry.window - 1, entry.width // entry.heads)
        tensors.append(TensorSpec(f"{name}.valid", (1, entry.window - 1), fill=MASKED))
        for block in range(entry.blocks):
            tensors.append(TensorSpec(f"{name}.b{block}.k", cache))
            tensors.append(TensorSpec(f"{name}.b{block}.v", cache))
        return tuple(tensors)

    @property
    def state_bytes(self) -> int:
        """Bytes of float32 state of one stream, all levels."""
        return 4 * sum(math.prod(tensor.shape) for level in range(len(self.levels)) for tensor in self.states(level))

    @property
    def ring_bytes(self) -> int:
        """Bytes of the ring of recent float32 outputs of one stream; every row is kept twice."""
        widths = (sum(tensor.shape[1] for tensor in self.outputs(level)) for level in range(len(self.levels)))
        rows = (self.ring_capacity // self.period(level) for level in range(len(self.levels)))
        return sum(8 * count * (width + 2) for count, width in zip(rows, widths, strict=True))

    # --- files ----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON holds them. Later ones (other lags, projection, baseline, moving parts, coarse copies) are
        left out if they are unused, so that fingerprints stay."""
        fields = dataclasses.asdict(self)
        fields["other_lags_s"] = list(self.other_lags_s)
        if not self.other_lags_s:
            del fields["other_lags_s"]
        later = [("front_end", name) for name in ("projected", "baseline", "unread")]
        later += [("encoder", name) for name in ("moving", "coarse") if self.encoder is not None]
        for part, name in later:
            if not fields[part][name]:
                del fields[part][name]
        return fields

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PyramidSpec:
        """Inverse of `to_dict`, for data read from a file.

        Raises:
            EdgeHalError: a field is missing, unknown or of the wrong type.
        """
        try:
            fields = dict(data)
            encoder = fields.pop("encoder", None)
            return cls(
                labels=tuple(str(label) for label in fields.pop("labels")),
                front_end=FrontEndSpec(**fields.pop("front_end")),
                levels=tuple(LevelSpec(**level) for level in fields.pop("levels")),
                encoder=None if encoder is None else EncoderSpec(**encoder),
                other_lags_s=tuple(fields.pop("other_lags_s", ())),
                **fields,
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise EdgeHalError(
                "the model's table of rates and shapes cannot be read",
                f"{type(error).__name__}: {error}",
                "export the checkpoint again with this version",
            ) from error

    def fingerprint(self) -> str:
        """SHA-256 over the table, in hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
