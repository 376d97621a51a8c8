"""Which engine runs a bundle, and why: TensorRT where module, GPU and bundle allow it, else ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.progress import Progress

from .engine import StepEngine

KINDS = ("auto", "onnxruntime", "tensorrt")

log = logging.getLogger("edge_hal.engine")
"""Told at level INFO: the engine and why, and each plan that is built (minutes, on a device's first use)."""


class Encoder(Protocol):
    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Engines:
    """One engine for each level, lowest first; the encoder where the bundle has one. `why` is for people. `close` gives
    back what they hold of a GPU; twice is no harm. `captured`: every step is a CUDA graph."""

    kind: str
    why: str
    levels: list[StepEngine]
    encoder: Encoder | None
    captured: bool = False
    close: Callable[[], None] = lambda: None


def choose_engines(
    bundle: Bundle,
    kind: str = "auto",
    threads: int = 1,
    cache: Path | None = None,
    report: Progress | None = None,
    graphs: bool = True,
) -> Engines:
    """Open the engines of a bundle.

    Args:
        kind: `auto`, `onnxruntime` or `tensorrt`.
        cache: where TensorRT plans are kept; default the user's cache folder.
        report: of building plans, which takes a while on first use.
        graphs: capture CUDA graphs on TensorRT; False launches plainly.

    Raises:
        EdgeHalError: `tensorrt` was asked for and cannot be, or a graph does not fit.
    """
    if kind not in KINDS:
        raise EdgeHalError(f"--engine {kind}", f"it is one of {', '.join(KINDS)}", exit_code=2)
    chosen = _choose(bundle, kind, threads, cache, report, graphs)
    log.info("engine: %s on %s (%s)", bundle.precision, chosen.kind, chosen.why)
    return chosen


def _choose(
    bundle: Bundle, kind: str, threads: int, cache: Path | None, report: Progress | None, graphs: bool
) -> Engines:
    if kind == "onnxruntime":
        return _onnxruntime(bundle, threads, "as asked for")
    why_not = "" if bundle.target != "onnxruntime" else "the bundle is int8 for onnxruntime"
    if not why_not:
        try:
            return _tensorrt(bundle, cache, report, graphs)
        except EdgeHalError as error:
            if kind == "tensorrt":
                raise
            why_not = f"{error.what}: {error.why}" if error.why else error.what
    if kind == "tensorrt":
        raise EdgeHalError("TensorRT cannot run this bundle", why_not, "export it with --target tensorrt")
    if bundle.target == "tensorrt":
        why_not += "; its int8 graphs are slow on a CPU, float32 ones are not"
    return _onnxruntime(bundle, threads, f"no TensorRT: {why_not}")


def _onnxruntime(bundle: Bundle, threads: int, why: str) -> Engines:
    from .onnxruntime_engine import OnnxEncoder, open_engines

    encoder = None
    if bundle.encoder is not None and bundle.spec.encoder is not None:
        encoder = OnnxEncoder(bundle.encoder, bundle.spec.encoder, threads)
    return Engines("onnxruntime", why, open_engines(bundle, threads), encoder)


def _tensorrt(bundle: Bundle, cache: Path | None, report: Progress | None, graphs: bool) -> Engines:
    try:
        trt: Any = importlib.import_module("tensorrt")
    except Exception as error:  # ImportError without it, OSError where its libraries do not load
        raise EdgeHalError(
            "TensorRT is not installed", str(error), "a Jetson brings it; elsewhere: pip install 'edge-hal[tensorrt]'"
        ) from error
    from .cuda_device import CudaDevice

    with contextlib.ExitStack() as closing:
        try:
            device = CudaDevice(graphs=graphs)
            closing.callback(device.close)
            engines = _on_device(trt, device, bundle, cache, report, closing)
        except EdgeHalError:
            raise
        except Exception as error:  # pycuda's and TensorRT's own: out of memory, a call this version does not know
            why = f"{type(error).__name__}: {error}"
            raise EdgeHalError("TensorRT failed on this device", why, "use --engine onnxruntime") from error
        return replace(engines, close=closing.pop_all().close)


def _on_device(
    trt: Any, device: Any, bundle: Bundle, cache: Path | None, report: Progress | None, closing: contextlib.ExitStack
) -> Engines:
    from .tensorrt_engine import TensorRtEncoder, TensorRtEngine
    from .tensorrt_plans import PlanCache, default_cache

    spec = bundle.spec
    runtime, plans = trt.Runtime(trt.Logger(trt.Logger.ERROR)), PlanCache(cache or default_cache())
    closing.callback(lambda: runtime)  # held so long: it must outlive the engines that it made

    def tell(stage: str, done: int, total: int, remark: str) -> None:
        if done == 0:
            log.info("TensorRT builds the plan of %s, once for this device", remark)
        if report is not None:
            report(stage, done, total, remark)

    def engine(graph: Path) -> Any:
        with device.active():
            return plans.open(trt, graph, device.id, runtime.deserialize_cuda_engine, report=tell)

    levels: list[TensorRtEngine] = []
    for i in range(len(spec.levels)):
        plans_of_level = {c: engine(bundle.graph(i, c)) for c in spec.chunks(i)}
        levels.append(TensorRtEngine(trt, plans_of_level, spec, i, device))
        closing.callback(levels[-1].close)
    encoder = None
    if bundle.encoder is not None and spec.encoder is not None:
        encoder = TensorRtEncoder(trt, engine(bundle.encoder), spec.encoder, device)
        closing.callback(encoder.close)
    captured = all(level.captured for level in levels) and (encoder is None or encoder.captured)
    how = "captured CUDA graphs" if captured else "plain launches"
    how += f": no CUDA graph could be captured ({device.refusal})" if device.refusal else ""
    notes = "".join(f"; {note}" for note in plans.notes)
    why = f"TensorRT {trt.__version__} on {device.id.name}, {how}{notes}"
    return Engines("tensorrt", why, [*levels], encoder, captured)
