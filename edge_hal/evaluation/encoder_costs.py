"""What a frame encoder costs on this machine: size, time and multiply-adds of its graph."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_hal.config import Encoder
from edge_hal.encoder_kind import OWN
from edge_hal.errors import EdgeHalError
from edge_hal.export.compute import of_graph
from edge_hal.export.graphs import export_encoder
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.model.encoder import FrameEncoder
from edge_hal.runtime.engines.onnxruntime_engine import OnnxEncoder
from edge_hal.spec import EncoderSpec

FRAMES = 60
BUDGET_MS = 10.0
"""Time for a frame: a tenth of the time between two ticks of the preset `tiny`."""
PREFERRED = "efficientnet-lite0@160"
"""Of those that need no file of the user, the encoder with the best scores (docs/encoders.md)."""


@dataclass(frozen=True)
class EncoderCosts:
    """Attributes:
    bytes: of the graph in float32.
    ms: median time for a frame, ONNX Runtime on one thread.
    multiply_adds: for a frame, counted in the graph.
    """

    kind: str
    spec: EncoderSpec
    licence: str
    bytes: int
    ms: float
    multiply_adds: int


def measure(settings: Encoder) -> EncoderCosts:
    """Write the graph to a temporary folder and run it. Raises EdgeHalError as `open_pretrained` does."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "encoder.onnx")
        if settings.pretrained:
            encoder = open_pretrained(settings)
            encoder.write(graph)
            spec, licence = encoder.spec, encoder.licence
        else:
            spec, licence = settings.spec(1.0), "Apache-2.0, trained on your videos"
            export_encoder(FrameEncoder(spec), spec, graph)
        opened = OnnxEncoder.open(graph, spec)
        pictures = np.random.default_rng(0).integers(0, 256, (8, *spec.image.shape), dtype=np.uint8)
        spent_ms = []
        for number in range(FRAMES):
            began_ns = time.perf_counter_ns()
            opened.encode(pictures[number % len(pictures)])
            spent_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
        return EncoderCosts(
            settings.kind, spec, licence, graph.stat().st_size, float(np.median(spent_ms)), of_graph(graph)
        )


def within_budget(budget_ms: float) -> tuple[str, str]:
    """`PREFERRED` if it is installed and takes at most `budget_ms` for a frame on this machine, else `own`; and why."""
    try:
        costs = measure(Encoder(kind=PREFERRED))
    except EdgeHalError as error:
        return OWN, f"{PREFERRED} cannot be used: {error.what}"
    if costs.ms > budget_ms:
        return OWN, f"{PREFERRED} takes {costs.ms:.1f} ms for a frame here, and {budget_ms:g} are allowed"
    return PREFERRED, f"it takes {costs.ms:.1f} ms for a frame here, and {budget_ms:g} are allowed"
