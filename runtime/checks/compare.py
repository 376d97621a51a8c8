"""Two engines of one bundle side by side: every output and every state of theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.runtime.engines.engine import FrameEncoder, StepEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .finding import NOTHING, Finding

MAX_RMS = {"fp32": 1e-4, "fp16": 0.03, "int8": 0.3}
"""RMS of the difference over the RMS of the tensor. float32 differs by the order of summation alone, since TF32 is off;
float16 gets more than the certificate's bound, because both sides round; int8 gets the certificate's."""
LOGARITHMS = ("frame", "lagged", "action")
"""Outputs that are log posteriors. They are compared as probabilities."""
TODO = "run it with --engine onnxruntime, and report this (docs/tensorrt.md)"


def compare_engines(
    spec: PyramidSpec, tested: Sequence[StepEngine], trusted: Sequence[StepEngine], max_rms: float
) -> Iterator[Finding]:
    """Random input, longer than the receptive field: outputs and states from a start, and again after a reset.

    The tested engines get it in random chunks, the trusted ones tick by tick.
    """
    rng = np.random.default_rng(0)
    streams = PyramidStream(spec, tested), PyramidStream(spec, trusted)
    for name, ticks in (("from a start", spec.receptive_field + 200), ("after a reset", 200)):
        x = rng.normal(size=(ticks, spec.front_end.size)).astype(np.float32)
        sums: dict[str, tuple[float, float]] = {}
        done = 0
        while done < ticks:
            part = x[done : done + int(rng.integers(1, 2 * spec.first_stride + 1))]
            before = [streams[0].ring.count(level) for level in range(len(spec.levels))]
            streams[0].push(part, range(done, done + len(part)))
            for row in part:
                streams[1].push(row[None], (done,))
                done += 1
            for level, count in enumerate(before):
                for tensor in spec.outputs(level):
                    a, b = (_newest(stream, level, tensor.name, count) for stream in streams)
                    was = sums.get(key := f"level {level} {tensor.name}", (0.0, 0.0))
                    sums[key] = (was[0] + _energy(a - b), was[1] + _energy(b))
        yield _verdict(f"outputs {name}", {key: _ratio(*sums[key]) for key in sums}, max_rms)
        a_states, b_states = (stream.states() for stream in streams)
        yield _verdict(f"states {name}", {key: _rms(a_states[key], b_states[key]) for key in b_states}, max_rms, told=1)
        for stream in streams:
            stream.reset()


def compare_encoders(bundle: Bundle, tested: FrameEncoder, trusted: FrameEncoder, max_rms: float) -> Finding:
    """Vectors of four random pictures."""
    assert bundle.spec.encoder is not None
    shape = bundle.spec.encoder.image.shape
    pictures = np.random.default_rng(1).integers(0, 256, (4, *shape), dtype=np.uint8)
    return _verdict("encoder", {"vector": max(_rms(tested.encode(p), trusted.encode(p)) for p in pictures)}, max_rms)


def _newest(stream: PyramidStream, level: int, name: str, since: int) -> NDArray[np.float64]:
    """The tokens of an output from number `since` on, as numbers that may be compared."""
    stream.settle()
    values = stream.ring.last(level, name, stream.ring.count(level) - since).astype(np.float64)
    return np.exp(values) if name in LOGARITHMS else values


def _verdict(check: str, rms: dict[str, float], max_rms: float, told: int | None = None) -> Finding:
    """The furthest off come first. `told`: how many are named; all by default."""
    order = sorted(rms, key=lambda key: -rms[key])
    text = ", ".join(f"{key} {rms[key]:.1e}" for key in order[:told])
    right = rms[order[0]] <= max_rms
    return Finding(check, "ok" if right else "fail", f"RMS {text}; allowed {max_rms:g}", NOTHING if right else TODO)


def _rms(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return _ratio(_energy(a - b), _energy(b))


def _energy(values: NDArray[Any]) -> float:
    return float((values**2).sum())


def _ratio(difference: float, reference: float) -> float:
    """RMS of the difference over the RMS of the reference; infinite where one of them is not finite."""
    ratio = float(np.sqrt(difference / max(reference, 1e-12)))
    return ratio if np.isfinite(ratio) and np.isfinite(reference) else float("inf")
