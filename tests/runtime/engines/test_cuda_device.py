"""`CudaDevice` and `choose_engines` on stand-ins for pycuda, cuda.bindings and tensorrt: the calls and their order as
documented, the memory that of the host. That a GPU agrees is for `edge-hal doctor --selftest` to show."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edge_hal.bundle import Bundle, expected_graphs
from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import export_bundle
from edge_hal.export.graphs import export_encoder
from edge_hal.model.encoder import FrameEncoder
from edge_hal.runtime.checks.selftest import selftest
from edge_hal.runtime.engines.choose import choose_engines
from edge_hal.runtime.engines.cuda_device import CudaDevice
from edge_hal.runtime.engines.tensorrt_plans import BuildOptions, DeviceId, pack, plan_key
from edge_hal.spec import EncoderSpec
from tests.helpers.host_device import HOST, HostDevice, HostEngine
from tests.helpers.processes import call
from tests.helpers.small_models import TWO, random_input, save_run, small_spec


class Gpu:
    """The modules, on one `HostDevice`. `stack`: contexts pushed and not yet popped; `memory_left`: allocations
    before the GPU is full; `refuses`: no stream can be captured."""

    def __init__(self) -> None:
        self.host, self.stack, self.memory_left, self.refuses = HostDevice(), [], 10_000, False
        context = SimpleNamespace(push=lambda: self.stack.append(1), pop=self.stack.pop)
        stream = SimpleNamespace(handle=HostDevice.stream, synchronize=self.synchronise)
        self.driver = SimpleNamespace(
            init=lambda: None,
            Device=lambda index: SimpleNamespace(
                name=lambda: "a GPU", compute_capability=lambda: (8, 7), retain_primary_context=lambda: context
            ),
            Stream=lambda: stream,
            get_driver_version=lambda: 12060,
            mem_alloc=self.alloc,
            pagelocked_empty=self.current(self.host.pinned),
            memcpy_htod_async=self.current(lambda address, array, on: self.host.upload(address, array)),
            memcpy_dtoh_async=self.current(lambda array, address, on: self.host.download(array, address)),
        )
        self.runtime = SimpleNamespace(
            cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
            cudaStreamBeginCapture=self.begin,
            cudaStreamEndCapture=self.end,
            cudaGraphInstantiate=lambda graph, flags: (0, graph),
            cudaGraphLaunch=self.launch,
        )

    def current(self, work: Any) -> Any:
        """pycuda refuses whatever it is asked without a current context."""

        def checked(*arguments: Any) -> Any:
            assert self.stack, "no context is current"
            return work(*arguments)

        return checked

    def alloc(self, size: int) -> int:
        self.memory_left -= 1
        if self.memory_left < 0:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return self.current(self.host.alloc)(size)

    def synchronise(self) -> None:
        assert self.host.recording is None, "a stream that is captured cannot be waited for"
        self.host.synchronise()

    def begin(self, stream: int, mode: int) -> tuple[int]:
        assert stream == HostDevice.stream
        if self.refuses:
            return (900,)
        self.host.recording = []
        return (0,)

    def end(self, stream: int) -> tuple[int, Any]:
        recorded, self.host.recording = self.host.recording, None
        return (0, recorded)

    def launch(self, graph: Any, stream: int) -> tuple[int]:
        self.host.launches += 1
        self.host.queue.extend(graph)
        return (0,)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    made = Gpu()
    trt = ModuleType("tensorrt")
    trt.__dict__.update(
        vars(HOST),
        __version__="10.3.0",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: HostEngine(Path(plan.decode()), made.host)
        ),
    )
    modules = {"pycuda": ModuleType("pycuda"), "pycuda.driver": made.driver, "tensorrt": trt,
               "cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings"),
               "cuda.bindings.runtime": made.runtime}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    yield made
    gc.collect()
    assert not made.stack, "pycuda aborts a process that ends like this"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("cuda")
    spec = small_spec(TWO, encoder=EncoderSpec(24, 32, 3))
    run = save_run(folder / "run", spec, seed=5, reference=random_input(300))
    torch.manual_seed(0)
    assert spec.encoder is not None
    export_encoder(FrameEncoder(spec.encoder), spec.encoder, run / "encoder.onnx")
    return export_bundle(run, folder / "bundle", precision="fp16")


@pytest.fixture
def cache(bundle: Bundle, tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plans as built before on this device: each is the path of its graph, which `deserialize_cuda_engine` knows."""
    device = DeviceId("a GPU", "8.7", "driver 12060")
    for name in expected_graphs(bundle.spec, bundle.precision):
        key = plan_key(sys.modules["tensorrt"], bundle.path / name, device, BuildOptions())
        (tmp_path / f"{key}.plan").write_bytes(pack(key, str(bundle.path / name).encode()))
    monkeypatch.setenv("EDGE_HAL_CACHE", str(tmp_path))
    return tmp_path


def test_a_device_with_plans_runs_tensorrt_and_proves_it(bundle: Bundle, cache: Path, gpu: Gpu) -> None:
    engines = choose_engines(bundle)
    assert (engines.kind, engines.why) == ("tensorrt", "TensorRT 10.3.0 on a GPU, captured CUDA graphs")
    del engines
    before = gpu.host.launches
    findings = selftest(bundle)
    assert [one.name for one in findings if not one.passed] == [] and len(findings) == 1 + 2 * 6 + 3
    assert gpu.host.launches > before + 1000
    gpu.refuses = True
    assert "no CUDA graph could be captured" in choose_engines(bundle, "tensorrt").why


def test_what_fails_on_a_device_is_told_and_onnx_runtime_runs(
    bundle: Bundle, cache: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.memory_left = 20
    engines = choose_engines(bundle)
    assert engines.kind == "onnxruntime" and "out of memory" in engines.why and not gpu.stack
    gpu.memory_left = 20
    with pytest.raises(EdgeHalError, match=r"TensorRT failed on this device: MemoryError(.|\n)*--engine onnxruntime"):
        choose_engines(bundle, "tensorrt")
    gpu.memory_left = 10_000
    with monkeypatch.context() as patch:
        patch.setattr(gpu.driver, "Stream", lambda: 1 // 0)
        assert "ZeroDivisionError" in choose_engines(bundle).why
    monkeypatch.setattr(gpu.runtime, "cudaGraphLaunch", lambda graph, stream: (719, None))
    failed = selftest(bundle)[-1]
    assert not failed.passed and "could not be launched: 719" in failed.detail


def test_a_device_gives_its_context_back_once(gpu: Gpu) -> None:
    device = CudaDevice()
    host = device.pinned((3,), np.dtype(np.float32))
    host[:] = 1.5
    address = device.alloc(host.nbytes)
    device.upload(address, host)
    device.synchronise()
    host[:] = 0
    device.download(host, address)
    device.synchronise()
    assert host.tolist() == [1.5, 1.5, 1.5]
    assert len(gpu.stack) == 1
    device.close()
    device.close()
    assert not gpu.stack
    forgotten = CudaDevice()
    assert len(gpu.stack) == 1
    del forgotten
    gc.collect()
    assert not gpu.stack


def test_a_process_that_just_ends_leaves_no_context_behind() -> None:
    code = """
import atexit, os, sys
from unittest.mock import MagicMock
stack = []
atexit.register(lambda: os._exit(134 if stack else 0))  # as pycuda does when its module is cleaned up
driver = MagicMock()
context = driver.Device().retain_primary_context()
context.push = lambda: stack.append(1)
context.pop = stack.pop
driver.Device().compute_capability.return_value = (8, 7)
driver.Stream().handle = 7
sys.modules["pycuda"], sys.modules["pycuda.driver"] = MagicMock(), driver
from edge_hal.runtime.cuda_device import CudaDevice
device = CudaDevice(graphs=False)
assert stack
"""
    returned, _, err = call(code=code)
    assert returned == 0, err
