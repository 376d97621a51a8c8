"""`TensorRtModel` on a stand-in for the GPU: what streams share, what each has, and which thread may use it."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_hal.bundle import Bundle, expected_graphs
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines import tensorrt_model
from edge_hal.runtime.engines.engine import EngineOptions, Engines
from edge_hal.runtime.engines.tensorrt_model import TensorRtModel
from edge_hal.runtime.engines.tensorrt_plans import DeviceId
from edge_hal.runtime.model import Model
from edge_hal.runtime.reload import Reloader
from edge_hal.runtime.runner import RunOptions, Stop, run
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.host_device import HOST, HostContext, HostDevice, HostEngine, alive
from tests.helpers.toy_pyramid import toy_bundle, toy_spec


class Gpu:
    """One GPU: memory that all CUDA streams see, and a queue of work for each of them. `allocations_left` bounds it."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = {}
        self.devices: list[Device] = []
        self.loaded: list[str] = []
        self.allocations_left = 10_000
        self.addresses = itertools.count(1 << 20, 1 << 16)


class Device(HostDevice):
    """`CudaDevice`: a CUDA stream and memory of its own. It takes work only while it is active in that thread."""

    def __init__(self, gpu: Gpu, graphs: bool) -> None:
        super().__init__(refuses=not graphs)
        self.gpu, self.memory, self.refusal = gpu, gpu.memory, ""
        self.id = DeviceId("a GPU", "8.7", "driver 12060")
        self.own: list[int] = []
        self.lock, self.active_in = threading.RLock(), list[int]()
        gpu.devices.append(self)
        self.stream = gpu.devices.index(self)

    @contextmanager
    def active(self) -> Iterator[None]:
        with self.lock:
            if self.closed:
                raise EdgeHalError("the GPU was given back")
            self.active_in.append(threading.get_ident())
            yield
            self.active_in.pop()

    def alloc(self, size: int) -> int:
        self.gpu.allocations_left -= 1
        if self.gpu.allocations_left < 0:
            raise MemoryError("out of memory")
        self.own.append(next(self.gpu.addresses))
        self.memory[self.own[-1]] = bytearray(b"\xff" * size)
        return self.own[-1]

    def put(self, work: Any) -> None:
        assert threading.get_ident() in self.active_in
        super().put(work)

    def close(self) -> None:
        self.closed = True
        for address in self.own:
            del self.memory[address]
        self.own.clear()


class Context(HostContext):
    def execute_async_v3(self, stream: int) -> bool:
        engine, at, context = self.engine(), dict(self.at), alive(self, "the execution context")
        assert at.keys() == engine.nodes.keys()
        engine.device.devices[stream].put(lambda: context().run(at))
        return True


class Plan(HostEngine):
    def create_execution_context(self) -> Context:
        return Context(self)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()

    def load(plan: bytes) -> Plan:
        made.loaded.append(Path(plan.decode()).name)
        return Plan(Path(plan.decode()), made)  # type: ignore[arg-type]

    trt = SimpleNamespace(
        **vars(HOST),
        __version__="10.3.0",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=load),
    )
    plans = SimpleNamespace(open=lambda trt, graph, device, load, report: load(str(graph).encode()), notes=[])
    monkeypatch.setattr(tensorrt_model, "_tensorrt", lambda: trt)
    monkeypatch.setattr(tensorrt_model, "PlanCache", lambda folder: plans)
    monkeypatch.setattr(tensorrt_model, "CudaDevice", lambda graphs: Device(made, graphs))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", toy_spec((4, 3)))


def signal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(120, 5)).astype(np.float32)


def posteriors(bundle: Bundle, engines: Engines, x: np.ndarray, before_each: Any = lambda: None) -> np.ndarray:
    """One row a tick."""
    stream, rows = PyramidStream(bundle.spec, engines.levels), []
    for tick, row in enumerate(x):
        before_each()
        stream.push(row[None], (tick,))
        rows.append(stream.posterior(1)[0].copy())
    return np.array(rows)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_streams_share_plans_and_nothing_that_changes(bundle: Bundle, gpu: Gpu, cuda_graphs: bool) -> None:
    """One stream in the thread that opened the model, two in threads of their own, all at the same time."""
    options = EngineOptions(cuda_graphs=cuda_graphs)
    expected = [posteriors(bundle, TensorRtModel(bundle, options).open_stream(), signal(seed)) for seed in range(3)]
    gpu.loaded.clear()
    model, found, together = TensorRtModel(bundle, options), dict[int, np.ndarray](), threading.Barrier(3, timeout=60)

    def run_stream(seed: int) -> None:
        engines = model.open_stream()
        found[seed] = posteriors(bundle, engines, signal(seed), together.wait)
        engines.close()

    threads = [threading.Thread(target=run_stream, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    run_stream(0)
    for thread in threads:
        thread.join()
    for seed in range(3):
        np.testing.assert_array_equal(found[seed], expected[seed])
    assert sorted(gpu.loaded) == sorted(expected_graphs(bundle.spec, bundle.precision))
    assert ("captured CUDA graphs" in model.why) is cuda_graphs


def test_the_memory_of_a_stream_is_freed_and_that_of_the_others_is_not(bundle: Bundle, gpu: Gpu) -> None:
    model = TensorRtModel(bundle, EngineOptions())
    kept = model.open_stream()
    before = len(gpu.memory)
    for _ in range(3):
        model.open_stream().close()
        assert len(gpu.memory) == before
    assert np.isfinite(posteriors(bundle, kept, signal(0))).all()


def test_a_closed_model_opens_no_stream_and_open_streams_go_on(bundle: Bundle, gpu: Gpu) -> None:
    expected = posteriors(bundle, TensorRtModel(bundle, EngineOptions()).open_stream(), signal(0))
    model = TensorRtModel(bundle, EngineOptions())
    streams = [model.open_stream() for _ in range(2)]
    for _ in range(2):
        model.close()
    with pytest.raises(EdgeHalError, match="given back"):
        model.open_stream()
    gc.collect()
    for stream in streams:  # they keep what they need of the model; the stand-in notices what was freed
        np.testing.assert_array_equal(posteriors(bundle, stream, signal(0)), expected)
        stream.close()
    unused = TensorRtModel(bundle, EngineOptions())
    unused.close()
    assert not any(device.own for device in gpu.devices[-2:])


def test_a_full_device_fails_with_an_error_and_keeps_no_memory(bundle: Bundle, gpu: Gpu) -> None:
    gpu.allocations_left = 20
    with pytest.raises(EdgeHalError, match=r"failed on this device: MemoryError(.|\n)*--engine onnxruntime"):
        TensorRtModel(bundle, EngineOptions())
    assert not gpu.memory and all(device.closed for device in gpu.devices)
    gpu.allocations_left = 20
    opened = Model(bundle).opened
    assert opened.kind == "onnxruntime" and "out of memory" in opened.why
    gpu.allocations_left = 10_000
    model = TensorRtModel(bundle, EngineOptions())
    first = model.open_stream()
    gpu.allocations_left = 20
    held = len(gpu.memory)
    with pytest.raises(EdgeHalError, match="out of memory"):
        model.open_stream()
    assert len(gpu.memory) == held and np.isfinite(posteriors(bundle, first, signal(0))).all()


def test_a_run_closes_its_device_and_opens_no_engines_in_the_background(
    bundle: Bundle, gpu: Gpu, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "f.npy", signal(0))
    options = RunOptions(bundle.path, f"features:{tmp_path}/f.npy@10", "tcp://127.0.0.1:*", "asap", engine="tensorrt")
    summary = run(options)
    assert summary.health["engine"]["kind"] == "tensorrt" and summary.counters["ticks"] == 120
    assert gpu.devices and all(device.closed for device in gpu.devices) and not gpu.memory
    with pytest.raises(EdgeHalError, match="--selfcheck cannot check tensorrt"):
        run(replace(options, selfcheck_s=5.0))
    stop, recognizer = Stop(), Model(bundle, "tensorrt").stream()
    devices = len(gpu.devices)
    successor = Model(bundle, "onnxruntime").stream()
    reloader = Reloader(options, stop, make=lambda bundle: recognizer, keep=lambda bundle, current: successor)

    def reload(current: Recognizer) -> Recognizer | None:
        stop.reload_asked = True
        assert reloader.poll(current) is None
        reloader.close()
        return reloader.poll(current)

    assert reload(recognizer) is successor and len(gpu.devices) == devices  # the graphs are the same
    recognizer.bundle = replace(bundle, fingerprint="of other graphs")
    assert reload(recognizer) is None and "other graphs cannot be loaded by tensorrt" in caplog.text
    assert "restart the run" in reloader.health()["reload"]["refused"]


def test_a_bundle_for_another_engine_is_refused(bundle: Bundle, gpu: Gpu) -> None:
    other = replace(bundle, target="onnxruntime")
    with pytest.raises(EdgeHalError, match="--target tensorrt"):
        TensorRtModel(other, EngineOptions())
    opened = Model(other).opened
    assert opened.kind == "onnxruntime" and "int8 for onnxruntime" in opened.why and not gpu.devices
