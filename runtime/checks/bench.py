"""Measure a bundle on this device: latency of each level, memory, clock rates, and streams per core.

Back to back measures the engine alone. *Paced* at the model's rate measures what a run with a camera pays: between two
ticks the clock rate falls and caches are lost.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.pictures.moving import MovingParts
from edge_hal.runtime.engines.engine import Engines, FrameEncoder, StepEngine
from edge_hal.runtime.stream.pyramid import PyramidStream

from .readings import readings

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
WARM_UP_TICKS = 50


class Timed:
    """A step engine that records the duration of each step, in microseconds."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self.reset, self.state = engine.reset, engine.state
        self.spent_us: list[float] = []

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        began_ns = time.perf_counter_ns()
        outputs = self._engine.step(inputs)
        self.spent_us.append((time.perf_counter_ns() - began_ns) / 1e3)
        return outputs


class TimedEncoder:
    """The same for a frame encoder."""

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder
        self.spent_us: list[float] = []

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        began_ns = time.perf_counter_ns()
        vector = self._encoder.encode(image)
        self.spent_us.append((time.perf_counter_ns() - began_ns) / 1e3)
        return vector


def summary(spent_us: Sequence[float]) -> dict[str, float]:
    """Count, mean and percentiles of microseconds."""
    if not spent_us:
        return {"count": 0}
    values = np.percentile(spent_us, list(PERCENTILES.values()))
    figures = {name: round(float(value), 1) for name, value in zip(PERCENTILES, values, strict=True)}
    return {"count": len(spent_us), "mean": round(float(np.mean(spent_us)), 1), **figures}


def measure(bundle: Bundle, engines: Engines, ticks: int, paced_s: float) -> dict[str, Any]:
    """Stream random input, tick by tick, as fast as it goes, then at the model's rate.

    Args:
        ticks: back to back, after a warm-up.
        paced_s: seconds at the model's rate; 0 leaves that out.

    Returns:
        ready for JSON; latencies in microseconds, sizes in bytes.
    """
    spec = bundle.spec
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(256, spec.front_end.size)).astype(np.float32)
    pictures = None
    if spec.encoder is not None:
        pictures = rng.integers(0, 256, (16, *spec.encoder.image.shape), dtype=np.uint8)
    levels = [Timed(engine) for engine in engines.levels]
    timed = None if engines.encoder is None else TimedEncoder(engines.encoder)
    moving = MovingParts.of(spec.encoder)
    stream = PyramidStream(spec, levels)
    spent_us: list[float] = []

    def tick() -> None:
        began_ns = time.perf_counter_ns()
        number = stream.ticks
        x = vectors[number % len(vectors)][None]
        if timed is not None and pictures is not None:
            picture = pictures[number % len(pictures)]
            x = timed.encode(picture if moving is None else moving(picture))[None]
        stream.step(x, (number,))
        stream.settle()
        spent_us.append((time.perf_counter_ns() - began_ns) / 1e3)

    def taken() -> dict[str, Any]:
        parts = {f"level{i}": summary(level.spent_us) for i, level in enumerate(levels)}
        if timed is not None:
            parts["encoder"] = summary(timed.spent_us)
        parts["tick"] = summary(spent_us)
        for kept in (*(level.spent_us for level in levels), spent_us, *([] if timed is None else [timed.spent_us])):
            kept.clear()
        return parts

    for _ in range(WARM_UP_TICKS):
        tick()
    taken()
    for _ in range(max(ticks, spec.period(spec.top))):
        tick()
    back_to_back, before = taken(), readings()
    paced: dict[str, Any] = {}
    count = math.ceil(paced_s * spec.model_hz)
    if count > 0:
        due_s = time.monotonic()
        for _ in range(count):
            time.sleep(max(0.0, due_s - time.monotonic()))  # at the pace of a camera
            tick()
            due_s += 1 / spec.model_hz
        paced = taken()
    mean_us = back_to_back["tick"]["mean"]
    return {
        "bundle": str(bundle.path),
        "precision": bundle.precision,
        "target": bundle.target,
        "engine": engines.kind,
        "why": engines.why,
        "machine": platform.machine(),
        "model_hz": spec.model_hz,
        "back_to_back_us": back_to_back,
        "paced_us": paced,
        "state_bytes": sum(value.nbytes for value in stream.states().values()),
        "weight_bytes": weight_bytes(bundle),
        "multiply_adds": bundle.provenance.get("multiply_adds"),
        "resident_bytes": resident_bytes(),
        "streams_per_core": round(1e6 / (mean_us * spec.model_hz), 1),
        "readings": {"before_paced": before, "after_paced": readings()},
    }


def weight_bytes(bundle: Bundle) -> int:
    """Size of the graphs that a live stream runs: those of single steps, and the encoder."""
    graphs = [bundle.graph(level, 1) for level in range(len(bundle.spec.levels))]
    return sum(path.stat().st_size for path in (*graphs, *([] if bundle.encoder is None else [bundle.encoder])))


def resident_bytes() -> int | None:
    """Memory of this process, if the system reports it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
