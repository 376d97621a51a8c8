"""`CudaDevice` and `choose_engines` on stand-ins for pycuda, cuda.bindings and tensorrt. That a GPU agrees is for
`edge-hal doctor --selftest` to show."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.api import open_stream
from edge_hal.runtime.engines.choose import choose_engines
from edge_hal.runtime.engines.cuda_device import CudaDevice
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers.cuda_modules import CUresult, Gpu, keep_plans
from tests.helpers.processes import call
from tests.helpers.small_models import MadeOnce, picture_bundles, random_input


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    made = Gpu()
    modules = {"pycuda": ModuleType("pycuda"), "pycuda.driver": made.driver, "tensorrt": made.tensorrt,
               "cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings"),
               "cuda.bindings.driver": made.bindings}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield made
    gc.collect()
    assert not made.misused and not made.left, "neither closing nor forgetting gave this back"


@pytest.fixture(scope="module")
def bundle(made_once: MadeOnce) -> Bundle:
    return load_bundle(picture_bundles(made_once)["fp16"])


@pytest.fixture
def cache(bundle: Bundle, tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Path:
    keep_plans(gpu, bundle, tmp_path)
    monkeypatch.setenv("EDGE_HAL_CACHE", str(tmp_path))
    return tmp_path


def test_a_device_with_plans_runs_captured_graphs(bundle: Bundle, cache: Path, gpu: Gpu) -> None:
    engines = choose_engines(bundle)
    assert (engines.kind, engines.why) == ("tensorrt", "TensorRT 10.3.0 on a GPU, captured CUDA graphs")
    assert engines.captured and len(gpu.stacks[threading.get_ident()]) == 0
    streams = PyramidStream(bundle.spec, engines.levels), PyramidStream(bundle.spec, open_engines(bundle))
    x = random_input(40)
    for stream in streams:
        stream.push(x, range(len(x)))
    np.testing.assert_allclose(streams[0].posterior(20), streams[1].posterior(20), atol=1e-6)
    assert gpu.host.launches >= 20
    engines.close()
    assert not gpu.left
    engines.close()
    for use in (lambda: engines.levels[0].step({"x": x[:1]}), engines.levels[1].state, engines.levels[0].reset):
        with pytest.raises(EdgeHalError, match="the GPU was given back"):
            use()
    plain = choose_engines(bundle, "tensorrt", graphs=False)
    assert plain.why.endswith("plain launches") and not plain.captured
    assert gpu.left
    plain.close()
    assert not gpu.left


REFUSED = {
    "cuStreamBeginCapture": CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    "cuStreamEndCapture": CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
    "cuGraphInstantiate": CUresult.CUDA_ERROR_INVALID_VALUE,
}


@pytest.mark.parametrize("function", REFUSED)
def test_a_refused_capture_is_told_once_by_name_and_steps_are_launched_plainly(
    bundle: Bundle, cache: Path, gpu: Gpu, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    gpu.refuses[function] = REFUSED[function]
    engines = choose_engines(bundle, "tensorrt")
    name = REFUSED[function].name
    assert engines.why.endswith(f"plain launches: no CUDA graph could be captured ({name})") and not engines.captured
    assert [record.getMessage().count(name) for record in caplog.records if record.levelname == "WARNING"] == [1]
    streams = PyramidStream(bundle.spec, engines.levels), PyramidStream(bundle.spec, open_engines(bundle))
    for stream in streams:
        stream.push(random_input(20), range(20))
    np.testing.assert_allclose(streams[0].posterior(20), streams[1].posterior(20), atol=1e-6)
    engines.close()
    assert not gpu.left


def test_a_step_that_cannot_be_captured_leaves_the_stream_usable(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    device = CudaDevice()
    with device.active():
        assert device.capture(lambda: 1 // 0) is None  # type: ignore[arg-type]
        assert gpu.host.recording is None and "ZeroDivisionError" in device.refusal
        device.synchronise()
    device.close()
    gpu.refuses["cuStreamEndCapture"] = CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    device = CudaDevice()
    with device.active():
        assert device.capture(lambda: 1 // 0) is None  # type: ignore[arg-type]
    assert device.refusal.startswith("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (ZeroDivisionError")


@pytest.mark.parametrize("missing", ["cuda.bindings.driver", "pycuda.driver", "tensorrt"])
def test_a_missing_module_is_named(
    bundle: Bundle, cache: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    engines = choose_engines(bundle)
    assert missing in engines.why and engines.kind == ("tensorrt" if missing.startswith("cuda.") else "onnxruntime")
    engines.close()


def test_what_fails_on_a_device_is_told_and_onnx_runtime_runs(
    bundle: Bundle, cache: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    for memory_left in (5, 20, 30):
        gpu.memory_left = memory_left
        engines = choose_engines(bundle)
        assert engines.kind == "onnxruntime" and "out of memory" in engines.why and not gpu.left
    gpu.memory_left = 20
    with pytest.raises(EdgeHalError, match=r"TensorRT failed on this device: MemoryError(.|\n)*--engine onnxruntime"):
        choose_engines(bundle, "tensorrt")
    gpu.memory_left = 10_000
    with monkeypatch.context() as patch:
        patch.setattr(gpu.driver, "Stream", lambda: 1 // 0)
        assert "ZeroDivisionError" in choose_engines(bundle).why
    engines = choose_engines(bundle, "tensorrt")
    gpu.refuses["cuGraphLaunch"] = CUresult.CUDA_ERROR_LAUNCH_FAILED
    x, held = random_input(1), np.zeros((1, bundle.spec.levels[1].width), np.float32)
    with pytest.raises(EdgeHalError, match="could not be launched: CUDA_ERROR_LAUNCH_FAILED"):
        engines.levels[0].step({"x": x, "held": held})


def test_a_device_gives_everything_back_once(gpu: Gpu) -> None:
    device = CudaDevice()
    with device.active():
        host = device.pinned((3,), np.dtype(np.float32))
        host[:] = 1.5
        address = device.alloc(host.nbytes)
        device.upload(address, host)
        device.synchronise()
        host[:] = 0
        device.download(host, address)
        device.synchronise()
        assert host.tolist() == [1.5, 1.5, 1.5]
        launch = device.capture(lambda: device.download(host, address))
        assert launch is not None
        launch()
        device.synchronise()
    assert gpu.left
    device.close()
    assert not gpu.left
    device.close()
    with pytest.raises(EdgeHalError, match="given back"), device.active():
        pass
    forgotten = CudaDevice()
    with forgotten.active():
        forgotten.alloc(3)
    assert gpu.left
    del forgotten
    gc.collect()
    assert not gpu.left


def test_open_stream_closes_the_device(bundle: Bundle, cache: Path, gpu: Gpu) -> None:
    """Also where no frame came, where another thread closes, and where nobody does."""
    with open_stream(bundle.path) as stream:
        assert stream.recognizer.engines.kind == "tensorrt"
        for number in range(30):
            stream.push(random_input(1, seed=number)[0], number * 100_000_000)
    assert not gpu.left
    with pytest.raises(EdgeHalError, match="the stream is closed"):
        stream.push(random_input(1)[0], 10**10)
    open_stream(bundle.path).close()
    assert not gpu.left

    stream = open_stream(bundle.path)
    for work in (partial(stream.push, random_input(1)[0], 0), stream.close):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
    assert not gpu.left
    stream = open_stream(bundle.path)
    assert gpu.left
    del stream
    gc.collect()
    assert not gpu.left


ENDING = """
import os, sys, threading
from unittest.mock import MagicMock

class Stack(list):
    # pycuda keeps one for each thread, and aborts when a thread or the process drops one that is not empty.
    def __del__(self):
        if self:
            os._exit(134)

class Local(threading.local):
    def __init__(self):
        self.stack = Stack()

local = Local()
log = []
driver = MagicMock()
driver.Device().retain_primary_context.return_value = context = MagicMock()
context.push = lambda: local.stack.append(1)
context.pop = context.detach = lambda: local.stack.pop()
driver.Device().compute_capability.return_value = (8, 7)
driver.Stream().handle = 7
driver.mem_alloc().free = lambda: print("freed", len(local.stack), flush=True)
driver.mem_alloc().__int__ = lambda self: 4096
sys.modules["pycuda"], sys.modules["pycuda.driver"] = MagicMock(), driver
from edge_hal.runtime.engines.cuda_device import CudaDevice
"""


@pytest.mark.parametrize(
    "ending",
    [
        # A thread that ends while its engine lives, then the process.
        "devices = []\ndef use():\n device = CudaDevice(graphs=False)\n devices.append(device)\n"
        " with device.active():\n  device.alloc(1)\n"
        "thread = threading.Thread(target=use)\nthread.start()\nthread.join()",
        # A process that just ends.
        "device = CudaDevice(graphs=False)\nwith device.active():\n device.alloc(1)",
        # A process that ends by an error inside.
        "device = CudaDevice(graphs=False)\nwith device.active():\n device.alloc(1)\n sys.exit(0)",
        # A process that ends while a daemon thread is inside a step: closing waits for the step.
        "device = CudaDevice(graphs=False)\ninside, ended = threading.Event(), threading.Event()\n"
        "def use():\n with device.active():\n  device.alloc(1)\n  inside.set()\n  ended.wait(0.3)\n"
        "threading.Thread(target=use, daemon=True).start()\ninside.wait()",
    ],
    ids=["thread", "process", "error", "daemon"],
)
def test_no_end_of_a_thread_or_process_leaves_a_context_on_its_stack(ending: str) -> None:
    returned, out, err = call(code=f"{ENDING}\n{ending}")
    assert (returned, out, err) == (0, "freed 1\n", "")
