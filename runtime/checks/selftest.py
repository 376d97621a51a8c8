"""Proof on the user's own device that TensorRT computes what ONNX Runtime does, from the bundle's graphs alone.

Nobody here had a GPU of every kind. So the proof travels with the program: it runs in a minute, needs no torch, and
what it prints can be pasted into an issue.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.choose import choose_engines
from edge_hal.runtime.engines.cuda_device import L4T
from edge_hal.runtime.engines.engine import Engines, StepEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .bench import measure

PACKAGES = ("edge-hal", "numpy", "onnxruntime", "tensorrt", "pycuda", "cuda-bindings")
MAX_RMS = {"fp32": 1e-3, "fp16": 0.03, "int8": 0.3}
"""RMS of the difference over the RMS of the tensor. float32 on a GPU may use TF32 (10 bits) and other orders of
summation; float16 twice the certificate's bound, because both sides round; int8 the certificate's."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    passed: bool
    detail: str


def compare_engines(
    spec: PyramidSpec, tested: Sequence[StepEngine], trusted: Sequence[StepEngine], max_rms: float
) -> list[Finding]:
    """Random input, longer than the receptive field, in random chunks: outputs, then states, then after a reset."""
    rng = np.random.default_rng(0)
    streams = PyramidStream(spec, tested), PyramidStream(spec, trusted)
    findings = []
    for name, ticks in (("from a start", spec.receptive_field + 200), ("after a reset", 200)):
        x = rng.normal(size=(ticks, spec.front_end.size)).astype(np.float32)
        done, worst = 0, 0.0
        while done < ticks:
            part = x[done : done + int(rng.integers(1, 2 * spec.first_stride + 1))]
            for stream in streams:
                stream.push(part, range(done, done + len(part)))
            done += len(part)
            a, b = (np.exp(stream.posterior(len(part))) for stream in streams)
            worst = max(worst, _rms(a, b))
        findings.append(Finding(f"posteriors {name}", worst <= max_rms, f"worst RMS {worst:.2e} of {max_rms:g}"))
        a_states, b_states = (stream.states() for stream in streams)
        rms = {key: _rms(a_states[key], b_states[key]) for key in b_states}
        key = max(rms, key=lambda k: rms[k])
        findings.append(
            Finding(f"states {name}", rms[key] <= max_rms, f"worst RMS {rms[key]:.2e} of {max_rms:g}, {key}")
        )
        for stream in streams:
            stream.reset()
    return findings


def selftest(bundle: Bundle, choose: Callable[..., Engines] = choose_engines) -> list[Finding]:
    """Everything that can be proved on this device, in order; what fails, in whatever way, is told and ends it."""
    findings = [Finding("machine", True, describe_machine())]
    now = "ONNX Runtime"
    try:
        trusted = choose(bundle, "onnxruntime")
        engines: dict[str, Engines] = {}
        for graphs in (True, False):
            now = f"TensorRT with {'CUDA graphs' if graphs else 'plain launches'}"
            engines[now] = choose(bundle, "tensorrt", graphs=graphs)
            findings.append(Finding(now, True, engines[now].why))
            found = compare_engines(bundle.spec, engines[now].levels, trusted.levels, MAX_RMS[bundle.precision])
            findings += [Finding(f"{now}: {one.name}", one.passed, one.detail) for one in found]
            if bundle.spec.encoder is not None:
                one = compare_encoders(bundle, engines[now], trusted)
                findings.append(Finding(f"{now}: {one.name}", one.passed, one.detail))
        for name, chosen in (*engines.items(), ("the CPU", trusted)):
            now = f"a tick on {name}"
            tick = measure(bundle, chosen, 1000, 2.0)
            parts = ((kind, tick[f"{kind}_us"]["tick"]["p50"]) for kind in ("back_to_back", "paced"))
            findings.append(Finding(now, True, ", ".join(f"{kind} p50 {p50:g} us" for kind, p50 in parts)))
    except Exception as error:  # of TensorRT, pycuda, CUDA: the report is there to show it
        text = f"{error.what}: {error.why}" if isinstance(error, EdgeHalError) else f"{type(error).__name__}: {error}"
        findings.append(Finding(now, False, text))
    return findings


def compare_encoders(bundle: Bundle, tested: Engines, trusted: Engines) -> Finding:
    assert bundle.spec.encoder is not None and tested.encoder is not None and trusted.encoder is not None
    shape = bundle.spec.encoder.image.shape
    pictures = np.random.default_rng(1).integers(0, 256, (4, *shape), dtype=np.uint8)
    rms = max(_rms(tested.encoder.encode(p), trusted.encoder.encode(p)) for p in pictures)
    limit = MAX_RMS[bundle.precision]
    return Finding("encoder", rms <= limit, f"worst RMS {rms:.2e} of {limit:g}")


def describe_machine() -> str:
    """Versions of everything that matters, a Jetson's L4T release among them."""
    parts = [f"{platform.machine()} Linux {platform.release()}, Python {platform.python_version()}"]
    with contextlib.suppress(OSError):
        parts.append(L4T.read_text().splitlines()[0].strip("# "))
    for package in PACKAGES:
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{package} -")
    return ", ".join(parts)


def _rms(a: NDArray[Any], b: NDArray[Any]) -> float:
    """RMS of the difference over the RMS of `b`; infinite where either is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.sqrt(((a - b) ** 2).mean() / max((b**2).mean(), 1e-12)))
