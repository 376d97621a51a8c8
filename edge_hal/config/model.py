"""Sections of the model: what runs on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from edge_hal.encoder_kind import OWN
from edge_hal.spec import EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec, lag_in_ticks

from .section import Components, Positive, Section, Weight


class Level(Section):
    """One level of a pyramid, as in `spec.LevelSpec`."""

    stride: int = 1
    window: int
    width: int
    heads: int = 4
    blocks: int = 2

    def spec(self) -> LevelSpec:
        return LevelSpec(self.stride, self.window, self.width, self.heads, self.blocks)


COARSE = 6
"""Rows of a coarse copy of the picture: a foreign thing that covers a few of its cells is noticed."""


class Encoder(Section):
    """The frame encoder (docs/encoders.md): pictures of `height` x `width` pixels in, vectors of `size` numbers out.
    `kind` is `own` or the name of a pretrained one, which has its own sizes. `weights`: the file of the weights, for a
    model of torchvision or timm. For an ONNX file that does not read uint8 BGR pictures: `layout` of its input (None
    finds it from the shape), `channels`, and `mean` and `std` of pixels in 0..255. `int8`: the convolutions of a
    pretrained one run in 8 bits, for CPUs. The student learns from their vectors, so export changes no event.
    `moving_s`: what has rested for most of these seconds is greyed before (`pictures/moving.py`); 0 for never.
    `coarse`: rows of a coarse copy of the picture behind the numbers of the network, which only tells whether it is
    familiar (`decoding/familiarity.py`). 0 for none; None for `COARSE`, and for none behind a graph of the user."""

    kind: str = OWN
    height: int = 96
    width: int = 128
    size: int = 64
    weights: Path | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    channels: Literal["bgr", "rgb"] = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    int8: bool = False
    moving_s: Weight = 0.0
    coarse: Components | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_onnx(cls, data: Any) -> Any:
        """`onnx: FILE` of earlier versions is `kind: onnx:FILE`."""
        if not isinstance(data, dict) or "onnx" not in data:
            return data
        data = dict(data)
        file = data.pop("onnx")
        return data if file in (None, "") else {**data, "kind": f"onnx:{file}"}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Encoder:
        if self.int8 and not self.pretrained:
            raise ValueError("int8 is for a pretrained encoder; `edge-hal export --precision int8` quantises `own`")
        if self.coarse and self._is_a_graph:
            raise ValueError("coarse has no effect on an ONNX file: it gives its own numbers only")
        return self

    @property
    def pretrained(self) -> bool:
        return self.kind != OWN

    def spec(self, hz: float) -> EncoderSpec:
        moving = max(1, round(self.moving_s * hz)) if self.moving_s > 0 else 0
        return EncoderSpec(self.height, self.width, self.size, moving, min(self.coarse_rows, self.height))

    @property
    def coarse_rows(self) -> int:
        """`coarse`, if it is given."""
        return (0 if self._is_a_graph else COARSE) if self.coarse is None else self.coarse

    @property
    def _is_a_graph(self) -> bool:
        return self.kind.startswith("onnx:")


class Model(Section):
    """The causal pyramid that runs on the device. `model_hz`: ticks per second; with None, training chooses the rate
    (`learning/data/rates.py`). `lag_s`: the posteriors at tick t describe time t - lag_s. `other_lags_s`: lags of
    further heads; those that round to the same tick as another are left out. `projected`: the number of principal
    components that the front end keeps of a vector; 0 keeps the vector. `baseline_s`: the seconds whose mean and
    deviation standardise the vectors once more (`model/front_end.py`); 0 for none. The other fields are those of
    `spec.PyramidSpec`; `front_end_window_s` is the front end's window in seconds."""

    model_hz: Positive | None = 10.0
    front_end_window_s: Positive = 0.5
    clip: Positive = 5.0
    change_window_s: Positive = 0.5
    lookback_s: Positive = 30.0
    lag_s: Weight = 0.6
    other_lags_s: tuple[Weight, ...] = (0.0, 0.3)
    projected: Components = 0
    baseline_s: Weight = 0.0
    encoder: Encoder | None = None
    levels: tuple[Level, ...]

    @property
    def hz(self) -> float:
        """`model_hz`, or 10 if training will choose it: the checks of a configuration do not depend on the rate."""
        return 10.0 if self.model_hz is None else self.model_hz

    @property
    def reads(self) -> Literal["features", "video"]:
        """What the model is trained on and runs on."""
        return "features" if self.encoder is None else "video"

    @property
    def front_end_ticks(self) -> int:
        return max(1, round(self.front_end_window_s * self.hz))

    @property
    def baseline_ticks(self) -> int:
        return max(2, round(self.baseline_s * self.hz)) if self.baseline_s > 0 else 0

    def spec(self, labels: tuple[str, ...], background: str | None, features: int | None = None) -> PyramidSpec:
        """The table of shapes for these labels. `features`: the numbers of a vector; not needed with an encoder."""
        hz, encoder = self.hz, None if self.encoder is None else self.encoder.spec(self.hz)
        size, unread = (features or 0, 0) if encoder is None else (encoder.vector_size, encoder.unread)
        front_end = FrontEndSpec(size, self.front_end_ticks, self.clip, self.projected, self.baseline_ticks, unread)
        return PyramidSpec(
            model_hz=hz,
            labels=labels,
            background=background,
            front_end=front_end,
            levels=tuple(level.spec() for level in self.levels),
            encoder=encoder,
            change_window_s=self.change_window_s,
            lookback_s=self.lookback_s,
            lag_s=self.lag_s,
            other_lags_s=distinct_lags_s(self.other_lags_s, self.lag_s, hz),
        )


def distinct_lags_s(lags_s: Sequence[float], other_than_s: float, hz: float) -> tuple[float, ...]:
    """The lags in ascending order, without those that are the same number of ticks as another or as `other_than_s`."""
    first: dict[int, float] = {}
    for lag_s in sorted(lags_s):
        first.setdefault(lag_in_ticks(lag_s, hz), lag_s)
    return tuple(lag_s for ticks, lag_s in first.items() if ticks != lag_in_ticks(other_than_s, hz))
