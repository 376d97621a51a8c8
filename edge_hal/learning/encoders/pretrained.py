"""An encoder that needs no training: one graph, uint8 BGR (H, W, 3) in, float vector (1, D) out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_hal.config import Config
from edge_hal.spec import EncoderSpec


@dataclass(frozen=True)
class PretrainedEncoder:
    """Attributes:
    kind: the name that chose it.
    licence: of its weights, as far as it is known.
    write: writes the graph to a path. It passes the lint of the export, and TensorRT 10.3 reads it.
    """

    kind: str
    spec: EncoderSpec
    licence: str
    write: Callable[[Path], None]


def with_sizes(config: Config, encoder: PretrainedEncoder) -> Config:
    """`config` with the sizes of the pictures and vectors of `encoder`.

    Raises:
        EdgeHalError: `model.projected` is more than the encoder gives.
    """
    spec, model = encoder.spec, config.model
    assert model.encoder is not None
    sizes = {"height": spec.height, "width": spec.width, "size": spec.size, "coarse": spec.coarse}
    model = model.model_copy(update={"encoder": model.encoder.model_copy(update=sizes)})
    model.spec(("any",), None)  # a contradiction is reported now, not after the pictures are encoded
    return config.model_copy(update={"model": model})
