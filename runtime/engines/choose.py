"""Which engine runs a bundle, and why: TensorRT where module, GPU and bundle allow it, else ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.progress import Progress

from .engine import EngineOptions, Engines, OpenedModel
from .trial import try_bundle

log = logging.getLogger("edge_hal.engine")
"""At level INFO: the engine and why it was chosen, and each plan that is built (minutes, once for a device)."""


def _tensorrt(bundle: Bundle, options: EngineOptions, why: str) -> OpenedModel:
    from .tensorrt_model import TensorRtModel

    return TensorRtModel(bundle, options)


def _onnxruntime(bundle: Bundle, options: EngineOptions, why: str) -> OpenedModel:
    from .onnxruntime_engine import OnnxRuntimeModel

    return OnnxRuntimeModel(bundle, options.threads, why)


ENGINES: dict[str, Callable[[Bundle, EngineOptions, str], OpenedModel]] = {
    "tensorrt": _tensorrt,
    "onnxruntime": _onnxruntime,
}
"""How each engine opens a bundle. `auto` takes the first that can; the last runs every bundle. A function imports its
engine when it is called, because the module may not be installed. It gets the reason for the choice as text."""

KINDS = ("auto", *sorted(ENGINES))


def open_model(bundle: Bundle, kind: str = "auto", options: EngineOptions | None = None) -> OpenedModel:
    """Try a bundle (see `trial.py`), and open its graphs with the engine `kind`, one of `KINDS`.

    Raises:
        EdgeHalError: there is no such engine, the one asked for cannot run the bundle, the bundle failed its trial, or
            a graph does not fit.
    """
    if kind not in KINDS:
        raise EdgeHalError(f"--engine {kind}", f"it is one of {', '.join(KINDS)}", exit_code=2)
    options = options or EngineOptions()
    try_bundle(bundle)
    opened = _first_that_can(bundle, options) if kind == "auto" else ENGINES[kind](bundle, options, "as asked for")
    log.info("engine: %s on %s (%s)", bundle.precision, opened.kind, opened.why)
    return opened


def choose_engines(
    bundle: Bundle,
    kind: str = "auto",
    threads: int = 1,
    cache: Path | None = None,
    report: Progress | None = None,
    graphs: bool = True,
) -> Engines:
    """The engines of the only stream of a bundle; see `open_model` and `EngineOptions`."""
    model = open_model(bundle, kind, EngineOptions(threads, cache, report, graphs))
    return model.open_stream().closing(model.close)


def _first_that_can(bundle: Bundle, options: EngineOptions) -> OpenedModel:
    *preferred, last = ENGINES
    refused = []
    for kind in preferred:
        try:
            return ENGINES[kind](bundle, options, "")
        except EdgeHalError as error:
            refused.append(f"{error.what}: {error.why}" if error.why else error.what)
    if bundle.target in preferred:
        refused.append(f"int8 graphs for {bundle.target} are slower here than float32 ones")
    return ENGINES[last](bundle, options, "; ".join(refused))
