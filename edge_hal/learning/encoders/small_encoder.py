"""A small encoder of whole pictures, for the first alignments only.

Thumbnails align 90 % of the frames of the rendered workbench right. An encoder that is trained on these labels gives
vectors whose discriminants align 94 to 96 % right (docs/negative-results.md). It sees pictures of half the size, so it
is trained in a fraction of the time, and the encoder of the model then learns from better labels. If that one sees
moving parts only, this one still sees the bench: the step list says which step comes next, so the state of the bench
tells when a step was done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Learning
from edge_hal.learning.data.recordings import Labels, SampledRecording
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.world import World
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.pictures.resize import resize
from edge_hal.spec import EncoderSpec

from .train_encoder import learn_encoder

SHRINK, SMALLEST = 2, 32
"""The factor of the sides, and a side that is kept."""
MOST_EPOCHS = 8
LEAST_REFINED = 4
"""With fewer videos there is no small encoder: it learns them by heart, with the errors of their labels."""


def small_encoder_vectors(
    recordings: Sequence[SampledRecording],
    labels: Sequence[Labels],
    spec: EncoderSpec,
    count: int,
    model_hz: float,
    config: Learning,
    stage: Stage,
    world: World,
) -> list[NDArray[np.float32]]:
    """Vectors (T, size) of the whole pictures of each recording, by an encoder that is trained on `labels` (T,).

    Args:
        spec: of the encoder of the model.
        count: of the steps.
    """
    from edge_hal.export.graphs import export_encoder  # needs onnx

    height, width = (side // SHRINK if side // SHRINK >= SMALLEST else side for side in (spec.height, spec.width))
    small = EncoderSpec(height, width, spec.size)
    shrunk = [replace(recording, inputs=_resized(recording, small)) for recording in recordings]
    brief = config.encoder.model_copy(update={"epochs": min(config.encoder.epochs, MOST_EPOCHS)})
    rest = (small, count, model_hz, config.model_copy(update={"encoder": brief}), stage)
    module = learn_encoder(shrunk, labels, *rest)
    with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:
        graph = Path(folder, "encoder.onnx")
        export_encoder(module, small, graph)
        return world.each(lambda recording: encode_pictures(graph, np.asarray(recording.inputs, np.uint8)), shrunk)


def _resized(recording: SampledRecording, spec: EncoderSpec) -> NDArray[np.uint8]:
    """(T, height, width, 3)."""
    pictures = np.asarray(recording.inputs, np.uint8)
    if pictures.shape[1:3] == (spec.height, spec.width):
        return pictures
    return np.stack([resize(picture, spec.height, spec.width) for picture in pictures])
