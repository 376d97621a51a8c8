"""Which adapter opens the encoder that the configuration names."""

from __future__ import annotations

from edge_hal.config import Encoder
from edge_hal.encoder_kind import LITE, parse_kind

from .pretrained import PretrainedEncoder


def open_pretrained(settings: Encoder) -> PretrainedEncoder:
    """The encoder that `settings.kind` names. Nothing is downloaded.

    Raises:
        EdgeHalError: a package or the weights are missing, a hash differs, or the model cannot be used.
    """
    kind = parse_kind(settings.kind)
    if kind.family in LITE:
        from .efficientnet_lite import open_lite

        return open_lite(settings, kind)
    if kind.family == "onnx":
        from .onnx_file import open_onnx

        return open_onnx(settings)
    from .libraries import open_library_model

    return open_library_model(settings, kind)
