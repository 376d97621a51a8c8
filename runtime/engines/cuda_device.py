"""`Device` on a real GPU: context, memory, stream and pinned buffers by pycuda, CUDA graphs by cuda.bindings.driver.

pycuda has no calls for CUDA graphs. They are captured through the driver API: the CUDA runtime inside cuda-bindings 13
needs a newer driver than JetPack 6 has, the driver's own functions do not. Where a graph is refused, steps are launched
one by one. Nothing in this file has run on a GPU yet: `edge-hal doctor --selftest` is how to find out
(docs/tensorrt.md).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.runtime import jetson

from .device import Launch
from .tensorrt_plans import DeviceId

log = logging.getLogger("edge_hal.engine")


class CudaDevice:
    """The first GPU, its primary context, and a stream, memory and graphs of our own. One thread at a time uses it.

    pycuda keeps a stack of contexts for each thread and aborts the process where a thread, or the process, ends with
    one left on it. So the context is on the stack only inside `active`. The device is closed by `close`, by garbage
    collection, or at the end of the process.

    Args:
        graphs: capture CUDA graphs where that is possible; False compares with plain launches.

    Raises:
        EdgeHalError: there is no GPU that can be used.
    """

    def __init__(self, index: int = 0, *, graphs: bool = True) -> None:
        try:
            self._cuda = importlib.import_module("pycuda.driver")
            self._cuda.init()
            device = self._cuda.Device(index)
            context = device.retain_primary_context()
        except Exception as error:  # ImportError, OSError without a driver, pycuda's own without a GPU
            why, todo = f"{type(error).__name__}: {error}", "edge-hal doctor says what is missing"
            raise EdgeHalError("there is no usable GPU", why, todo) from error
        self._owned = _Owned(context)
        self._closed = weakref.finalize(self, self._owned.release)
        with self._owned.active():
            self._owned.stream = self._cuda.Stream()
            self.stream = int(self._owned.stream.handle)
            major, minor = device.compute_capability()
            platform = jetson.release() or f"driver {self._cuda.get_driver_version()}"
            self.id = DeviceId(device.name(), f"{major}.{minor}", platform)
        self.refusal = ""
        self._driver = self._load_driver() if graphs else None

    def active(self) -> contextlib.AbstractContextManager[None]:
        return self._owned.active()

    def alloc(self, size: int) -> int:
        memory = self._cuda.mem_alloc(max(1, size))
        self._owned.then(memory.free)
        return int(memory)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        flat: NDArray[Any] = self._cuda.pagelocked_empty(max(1, math.prod(shape)), dtype)
        self._owned.then(lambda: flat)  # held until then, and as long as somebody reads it
        return flat[: math.prod(shape)].reshape(shape)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        self._cuda.memcpy_htod_async(address, array, self._owned.stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._owned.stream)

    def synchronise(self) -> None:
        self._owned.stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Launch | None:
        driver, stream = self._driver, self.stream
        if driver is None:
            return None
        try:
            graph = _captured(driver, stream, work)
        except Exception as error:  # not only CUDA's: another version may lack a function or the name of an error
            self._refuse(_named(error))
            return None
        self._owned.then(partial(driver.cuGraphExecDestroy, graph))

        def launch() -> None:
            try:
                _called(driver.cuGraphLaunch, graph, stream)
            except Exception as error:
                raise EdgeHalError("a captured step could not be launched", _named(error), "restart the run") from error

        return launch

    def close(self) -> None:
        """Destroy the graphs, free the memory, give the context back. Twice is no harm; nothing works afterwards."""
        self._closed()

    def _load_driver(self) -> Any:
        try:
            return importlib.import_module("cuda.bindings.driver")
        except Exception as error:  # not installed, or without what it is built on
            self._refuse(f"cuda-bindings cannot be used: {_named(error)}")
            return None

    def _refuse(self, why: str) -> None:
        """No graph on this device: said once, and not tried again, since a second try fails alike."""
        self._driver, self.refusal = None, why
        log.warning("no CUDA graph: %s; every step is launched plainly, which takes longer", why)


class CudaRefusal(Exception):
    """A function of the driver did not succeed; its text is the error's name."""


class _Owned:
    """GPU resources of one `CudaDevice`, and their context. It holds no reference to the device, so that the finaliser
    of the device can release it."""

    def __init__(self, context: Any) -> None:
        self.stream: Any = None
        self._context = context
        self._releases = contextlib.ExitStack()
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The context is current in this thread. The lock makes closing, at the end of the process too, wait for a step
        of another thread: a thread that Python stops inside a step would leave the context on its stack."""
        with self._lock:
            if self._context is None:
                raise EdgeHalError("the GPU was given back", "the stream is closed", "open another one")
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()

    def then(self, release: Callable[[], object]) -> None:
        """Call this, and keep alive until then what it belongs to, when the device is closed."""
        self._releases.callback(release)

    def release(self) -> None:
        """Newest first: graphs before the memory they address, all memory before the stream, all before the context."""
        with self._lock:
            context, self._context = self._context, None
            context.push()
            try:
                self._releases.close()
                self.stream = None
            finally:
                # Takes it off the stack as well. Without this call pycuda gives a primary context back in no thread but
                # the one that retained it, and there by a function for other contexts.
                context.detach()


def _captured(driver: Any, stream: int, work: Callable[[], None]) -> Any:
    """What `work` queues, as an executable graph. The stream has left capture mode whatever happened.

    Raises:
        CudaRefusal: a call of the driver was refused.
    """
    _called(driver.cuStreamBeginCapture, stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    try:
        work()
    except BaseException as error:
        try:
            driver.cuGraphDestroy(_called(driver.cuStreamEndCapture, stream))
        except CudaRefusal as refusal:
            raise CudaRefusal(f"{refusal} ({_named(error)})") from error
        raise
    graph = _called(driver.cuStreamEndCapture, stream)
    try:
        return _called(driver.cuGraphInstantiate, graph, 0)
    finally:
        driver.cuGraphDestroy(graph)  # the executable graph does not need it


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of cuda.bindings returns after its error code. Raises CudaRefusal with the error's name."""
    error, *results = function(*arguments)
    if int(error) != 0:
        raise CudaRefusal(getattr(error, "name", str(error)))
    return results[0] if results else None


def _named(error: BaseException) -> str:
    return str(error) if isinstance(error, CudaRefusal) else f"{type(error).__name__}: {error}"
