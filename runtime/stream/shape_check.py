"""Warns of pictures whose shape is not that of training: the model then sees everything squeezed."""

from __future__ import annotations

import logging
import math
from typing import Any

from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.preprocess import same_shape

log = logging.getLogger("edge_hal.stream")


class ShapeCheck:
    """Looks at the pictures of one stream and warns once.

    Args:
        aspect: width over height of the pictures of training; None if it is not known.
        size: (height, width) of the encoder. Pictures of this size were resized before, for example in a recording.
    """

    def __init__(self, stream: str, aspect: float | None, size: tuple[int, int]) -> None:
        self._stream, self._aspect, self._seen = stream, aspect, size

    @classmethod
    def of(cls, bundle: Bundle, stream: str) -> ShapeCheck:
        encoder, known = bundle.spec.encoder, bundle.provenance.get("picture_aspect")
        right = isinstance(known, float) and math.isfinite(known) and known > 0
        return cls(stream, known if right else None, (0, 0) if encoder is None else (encoder.height, encoder.width))

    def look(self, picture: NDArray[Any]) -> None:
        """uint8 (H, W, 3)."""
        size = picture.shape[:2]
        if size == self._seen or self._aspect is None:
            return
        self._seen = size
        height, width = size
        if not same_shape(width / height, self._aspect):
            log.warning(
                "%s: its pictures are %d x %d, and those of training were %.2f times as wide as high, not %.2f times; "
                "both are squeezed to one size, so the model sees everything too %s; ask the camera for another size "
                "(--size), or train with videos of this shape",
                self._stream,
                width,
                height,
                self._aspect,
                width / height,
                "narrow" if width / height > self._aspect else "wide",
            )
            self._aspect = None
