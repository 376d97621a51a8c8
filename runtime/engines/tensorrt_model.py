"""A bundle on TensorRT: its plans are loaded once, and each stream has execution contexts and memory of its own.

A stream has a `CudaDevice` of its own, that is a CUDA stream and its memory in the primary context of the GPU, so
streams in different threads do not wait for each other. A device belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
from pathlib import Path
from typing import Any

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError

from .cuda_device import CudaDevice
from .engine import EngineOptions, Engines
from .tensorrt_engine import TensorRtEncoder, TensorRtEngine
from .tensorrt_plans import PlanCache, default_cache

log = logging.getLogger("edge_hal.engine")


class TensorRtModel:
    """The plans of a bundle on the first GPU; see `OpenedModel`. The thread that opens it must live as long as it.

    Raises:
        EdgeHalError: TensorRT is not installed or cannot run the bundle, there is no GPU, or the GPU failed.
    """

    kind = "tensorrt"
    thread_bound = True

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        if bundle.target == "onnxruntime":
            why = "the bundle is int8 for onnxruntime"
            raise EdgeHalError("TensorRT cannot run this bundle", why, "export it with --target tensorrt")
        self._bundle, self._options, self._trt = bundle, options, _tensorrt()
        self._lock = threading.Lock()
        self._opener = threading.get_ident()
        with contextlib.ExitStack() as on_failure, _device_errors():
            self._device = CudaDevice(graphs=False)  # its context owns the plans
            on_failure.callback(self._device.close)
            self._load_plans()
            self._first: Engines | None = self._open()  # whether the device has the memory, and can capture steps
            on_failure.pop_all()
        levels = [level for level in self._first.levels if isinstance(level, TensorRtEngine)]
        captured = all(level.captured for level in levels)
        how = "captured CUDA graphs" if captured else "plain launches"
        how += "" if captured or not options.cuda_graphs else ": no CUDA graph could be captured"
        notes = "".join(f"; {note}" for note in self._notes)
        self.why = f"TensorRT {self._trt.__version__} on {self._device.id.name}, {how}{notes}"

    def open_stream(self) -> Engines:
        with self._lock:
            if self._first is not None and threading.get_ident() == self._opener:
                first, self._first = self._first, None
                return first
            with _device_errors():
                return self._open()

    def _load_plans(self) -> None:
        """Deserialise the plan of each graph, and build those that this device has not built before."""
        trt, bundle = self._trt, self._bundle
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        plans = PlanCache(self._options.plan_cache or default_cache())
        spec = bundle.spec

        def tell(stage: str, done: int, total: int, remark: str) -> None:
            if done == 0:
                log.info("TensorRT builds the plan of %s, once for this device", remark)
            if self._options.report is not None:
                self._options.report(stage, done, total, remark)

        def plan(graph: Path) -> Any:
            return plans.open(trt, graph, self._device.id, runtime.deserialize_cuda_engine, report=tell)

        self._levels = [{c: plan(bundle.graph(i, c)) for c in spec.chunks(i)} for i in range(len(spec.levels))]
        self._encoder = None if bundle.encoder is None else plan(bundle.encoder)
        self._notes = plans.notes

    def _open(self) -> Engines:
        trt, spec = self._trt, self._bundle.spec
        with contextlib.ExitStack() as on_failure:
            device = CudaDevice(graphs=self._options.cuda_graphs)
            on_failure.callback(device.close)
            levels = [TensorRtEngine(trt, plans, spec, level, device) for level, plans in enumerate(self._levels)]
            encoder = None
            if self._encoder is not None and spec.encoder is not None:
                encoder = TensorRtEncoder(trt, self._encoder, spec.encoder, device)
            on_failure.pop_all()
        return Engines(self, levels, encoder, device.close)


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # ImportError without it, OSError where its libraries do not load
        todo = "a Jetson brings it; elsewhere: pip install 'edge-hal[tensorrt]'"
        raise EdgeHalError("TensorRT is not installed", str(error), todo) from error


@contextlib.contextmanager
def _device_errors() -> Any:
    """Errors of pycuda and TensorRT, such as no memory left or a call that this version lacks, as EdgeHalError."""
    try:
        yield
    except EdgeHalError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise EdgeHalError("TensorRT failed on this device", why, "use --engine onnxruntime") from error
