"""Frames as input vectors of level 0: what a bundle accepts as a frame, and how a picture becomes a vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.files.feature_file import as_float32, is_real
from edge_hal.pictures.moving import MovingParts
from edge_hal.pictures.resize import resize
from edge_hal.runtime.engines.engine import FrameEncoder

from .shape_check import ShapeCheck


class FrameInput:
    """The frames of one stream. Its state is the background of the pictures, if they are greyed (`pictures/moving.py`).

    Args:
        encoder: None for a bundle that takes vectors.
    """

    def __init__(self, bundle: Bundle, encoder: FrameEncoder | None, stream: str) -> None:
        self._encoder, self._spec = encoder, bundle.spec
        self._moving = MovingParts.of(bundle.spec.encoder)
        self._shape = ShapeCheck.of(bundle, stream)

    def vector(self, data: NDArray[Any]) -> NDArray[np.float32]:
        """(D,) float32.

        Args:
            data: a uint8 BGR picture (H, W, 3) of any size, or a vector (D,) of finite numbers.

        Raises:
            EdgeHalError: it is neither, or the bundle has no encoder for pictures.
        """
        self.check(data)
        if data.ndim == 1:
            return as_float32(data)
        assert self._encoder is not None and self._spec.encoder is not None
        self._shape.look(data)
        picture = resize(data, self._spec.encoder.height, self._spec.encoder.width)
        return self._encoder.encode(picture if self._moving is None else self._moving(picture))

    def check(self, data: NDArray[Any]) -> None:
        """Raises EdgeHalError if `vector` would, but does not run the encoder."""
        shape, size = data.shape, self._spec.front_end.size
        if data.ndim == 1:
            if shape != (size,) or not is_real(data.dtype):
                raise EdgeHalError(f"a vector has shape {shape} and type {data.dtype}", f"the bundle takes ({size},)")
            if not np.isfinite(as_float32(data)).all():
                raise EdgeHalError(
                    "a vector holds a number that is not finite in float32",
                    "it would spoil every tick within the receptive field",
                    "leave the frame out: a short gap is bridged",
                )
        elif self._encoder is None:
            raise EdgeHalError(f"a frame has shape {shape}", f"the bundle has no encoder, it takes vectors ({size},)")
        elif data.dtype != np.uint8 or data.ndim != 3 or shape[2] != 3 or 0 in shape:
            raise EdgeHalError(
                f"a frame has shape {shape} and type {data.dtype}",
                "the encoder takes uint8 BGR pictures (height, width, 3)",
            )

    def reset(self) -> None:
        """A new epoch: the background is not known."""
        if self._moving is not None:
            self._moving.reset()

    def state(self) -> dict[str, Any]:
        return {} if self._moving is None else {"moving": self._moving.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """`state`: of the recogniser, which holds that of this. Raises ValueError if a number is out of range."""
        if self._moving is not None:
            self._moving.restore(state["moving"])
