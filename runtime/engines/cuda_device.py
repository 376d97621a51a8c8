"""`Device` on a real GPU: memory, stream and pinned buffers by pycuda, captured graphs by cuda.bindings.

pycuda has no calls for CUDA graphs; where cuda.bindings is missing, steps are enqueued plainly. Nothing in this file
has run on a GPU yet: `edge-hal doctor --selftest` is how to find out (docs/tensorrt.md).
"""

from __future__ import annotations

import importlib
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .tensorrt_engine import Launch
from .tensorrt_plans import DeviceId

L4T = Path("/etc/nv_tegra_release")


class CudaDevice:
    """The first GPU, its primary context and a stream of our own. Belongs to the thread that made it.

    Args:
        graphs: capture CUDA graphs where that is possible; False compares with plain launches.
    """

    def __init__(self, index: int = 0, *, graphs: bool = True) -> None:
        try:
            self._cuda = importlib.import_module("pycuda.driver")
            self._cuda.init()
            device = self._cuda.Device(index)
        except Exception as error:  # ImportError, OSError without a driver, pycuda's own without a GPU
            raise EdgeHalError("there is no usable GPU", f"{type(error).__name__}: {error}") from error
        context = device.retain_primary_context()
        context.push()
        self._memory: list[Any] = []
        # pycuda aborts a process that ends with a context on its stack, so it is taken off at the latest then.
        self._closed = weakref.finalize(self, _close, context, self._memory)
        self._stream = self._cuda.Stream()
        self.stream = int(self._stream.handle)
        major, minor = device.compute_capability()
        platform = L4T.read_text().splitlines()[0] if L4T.is_file() else f"driver {self._cuda.get_driver_version()}"
        self.id = DeviceId(device.name(), f"{major}.{minor}", platform)
        self._runtime = _cudart() if graphs else None

    def alloc(self, size: int) -> int:
        memory = self._cuda.mem_alloc(max(1, size))
        self._memory.append(memory)  # freed when this object goes
        return int(memory)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        flat: NDArray[Any] = self._cuda.pagelocked_empty(max(1, math.prod(shape)), dtype)
        return flat[: math.prod(shape)].reshape(shape)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def synchronise(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Launch | None:
        cudart = self._runtime
        if cudart is None:
            return None
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if _failed(cudart.cudaStreamBeginCapture(self.stream, mode)):
            return None
        try:
            work()
        except Exception:
            cudart.cudaStreamEndCapture(self.stream)  # the stream must leave capture mode whatever happened
            return None
        found = cudart.cudaStreamEndCapture(self.stream)
        if _failed(found):
            return None
        made = cudart.cudaGraphInstantiate(found[1], 0)
        if _failed(made):
            return None
        graph = made[1]

        def launch() -> None:
            result = cudart.cudaGraphLaunch(graph, self.stream)
            if _failed(result):
                raise EdgeHalError("a captured step could not be launched", str(result[0]))

        return launch

    def close(self) -> None:
        """Give memory and context back; at the latest the end of the process does. Twice is no harm."""
        self._closed()


def _close(context: Any, memory: list[Any]) -> None:
    memory.clear()
    context.pop()


def _cudart() -> Any:
    """cuda.bindings.runtime, or the module of versions before 12.8; None without either."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _failed(result: Any) -> bool:
    return int(result[0]) != 0
