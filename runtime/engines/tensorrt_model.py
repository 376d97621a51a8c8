"""A bundle on TensorRT: its plans are loaded once, and each stream has execution contexts and memory of its own.

Each stream has a `CudaDevice`, that is a CUDA stream and memory in the primary context of the GPU. So streams in
different threads do not wait for each other.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
from collections.abc import Iterator
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
    """The plans of a bundle on the first GPU; see `OpenedModel`.

    Opening more engines may build plans, which takes minutes and gigabytes, so it is not done while a stream runs.

    Raises:
        EdgeHalError: TensorRT is not installed or cannot run the bundle, there is no GPU, or the GPU failed.
    """

    kind = "tensorrt"
    opens_in_background = False

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        if bundle.target == "onnxruntime":
            why = "the bundle is int8 for onnxruntime"
            todo = (
                "export it with --target tensorrt; if its encoder was trained in int8, train without model.encoder.int8"
            )
            raise EdgeHalError("TensorRT cannot run this bundle", why, todo)
        self._spec, self._options, self._trt = bundle.spec, options, _tensorrt()
        self._lock = threading.Lock()
        self._runtime: Any = None
        self._levels: list[dict[int, Any]] = []
        self._refusal = ""
        with contextlib.ExitStack() as on_failure, _device_errors():
            self._device = CudaDevice(graphs=False)  # keeps the context of the plans
            on_failure.callback(self._device.close)
            notes = self._load_plans(bundle)
            # Whether the memory suffices, and steps can be captured, is known once a stream is open.
            self._first: Engines | None = self._open()
            on_failure.pop_all()
        how = "captured CUDA graphs" if self._first.captured else "plain launches"
        how += f": no CUDA graph could be captured ({self._refusal})" if self._refusal else ""
        self.why = "; ".join([f"TensorRT {self._trt.__version__} on {self._device.id.name}, {how}", *notes])

    def open_stream(self) -> Engines:
        with self._lock, self._device.active(), _device_errors():
            first, self._first = self._first, None
            return first or self._open()

    def close(self) -> None:
        with self._lock:
            if self._runtime is None:
                return
            if self._first is not None:
                self._first.close()
            with self._device.active():
                self._levels, self._encoder, self._first, self._runtime = [], None, None, None
            self._device.close()

    def _load_plans(self, bundle: Bundle) -> list[str]:
        """Load the plan of each graph, and build those that this device has not built before. Returns remarks."""
        trt, spec = self._trt, bundle.spec
        self._runtime = runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # must outlive the plans
        plans = PlanCache(self._options.plan_cache or default_cache())

        def tell(stage: str, done: int, total: int, remark: str) -> None:
            if done == 0:
                log.info("TensorRT builds the plan of %s, once for this device", remark)
            if self._options.report is not None:
                self._options.report(stage, done, total, remark)

        def load(graph: Path) -> Any:
            with self._device.active():
                return plans.open(trt, graph, self._device.id, runtime.deserialize_cuda_engine, report=tell)

        self._levels = [{c: load(bundle.graph(i, c)) for c in spec.chunks(i)} for i in range(len(spec.levels))]
        self._encoder = None if bundle.encoder is None else load(bundle.encoder)
        return plans.notes

    def _open(self) -> Engines:
        trt, spec, runtime = self._trt, self._spec, self._runtime
        with contextlib.ExitStack() as closing:
            device = CudaDevice(graphs=self._options.cuda_graphs)
            closing.callback(device.close)
            closing.callback(lambda: runtime)  # kept until then, also if the model is closed before
            levels: list[TensorRtEngine] = []
            for number, plans in enumerate(self._levels):
                levels.append(TensorRtEngine(trt, plans, spec, number, device))
                closing.callback(levels[-1].close)
            encoder = None
            if self._encoder is not None and spec.encoder is not None:
                encoder = TensorRtEncoder(trt, self._encoder, spec.encoder, device)
                closing.callback(encoder.close)
            self._refusal = device.refusal
            captured = all(level.captured for level in levels) and (encoder is None or encoder.captured)
            return Engines(self, levels, encoder, captured, closing.pop_all().close)


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except Exception as error:  # ImportError without it, OSError where its libraries do not load
        todo = "a Jetson brings it; elsewhere: pip install 'edge-hal[tensorrt]'"
        raise EdgeHalError("TensorRT is not installed", str(error), todo) from error


@contextlib.contextmanager
def _device_errors() -> Iterator[None]:
    """Errors of pycuda and TensorRT, such as no memory left or a call that this version lacks, as EdgeHalError."""
    try:
        yield
    except EdgeHalError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise EdgeHalError("TensorRT failed on this device", why, "use --engine onnxruntime") from error
