"""Warns of pictures whose shape is not one of training: the model then sees everything squeezed."""

from __future__ import annotations

import logging
import math
from typing import Any

from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.pictures.resize import same_shape

log = logging.getLogger("edge_hal.stream")


class ShapeCheck:
    """Looks at the pictures of one stream and warns once.

    Args:
        aspects: width over height of the pictures of training; empty if nothing is known.
        size: (height, width) of the encoder. Pictures of this size were resized before, for example in a recording.
    """

    def __init__(self, stream: str, aspects: tuple[float, ...], size: tuple[int, int]) -> None:
        self._stream, self._aspects, self._seen = stream, aspects, size

    @classmethod
    def of(cls, bundle: Bundle, stream: str) -> ShapeCheck:
        encoder, known = bundle.spec.encoder, bundle.provenance.get("picture_aspects")
        size = (0, 0) if encoder is None else (encoder.height, encoder.width)
        aspects = known if isinstance(known, list) else []
        right = all(isinstance(aspect, float) and math.isfinite(aspect) and aspect > 0 for aspect in aspects)
        return cls(stream, tuple(aspects) if right else (), size)

    def look(self, picture: NDArray[Any]) -> None:
        """uint8 (H, W, 3)."""
        size = picture.shape[:2]
        if size == self._seen or not self._aspects:
            return
        self._seen = size
        height, width = size
        aspect = width / height
        nearest = min(self._aspects, key=lambda known: max(known / aspect, aspect / known))
        if not same_shape(aspect, nearest):
            log.warning(
                "%s: its pictures are %d x %d, %.2f times as wide as high, and the nearest of training %.2f times; all "
                "are squeezed to one size, so the model sees other proportions; ask the camera for another size "
                "(--size), or train with videos of this shape",
                self._stream,
                width,
                height,
                aspect,
                nearest,
            )
            self._aspects = ()
