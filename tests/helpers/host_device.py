"""A GPU made of host memory, with ONNX Runtime behind TensorRT's interface: what the engine may assume, no speed.

What is queued or captured holds addresses and owns nothing, as on a GPU. Weak references tell what was freed
meanwhile: using it fails here, where a GPU would compute with whatever lies there now.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

Owner = Callable[[], Any]


class HostDevice:
    """`Device` in host memory. Work is queued and done on `synchronise`, as on a GPU, so that whoever reads too
    early reads something else. `refuses` turns capture down. `closed`: everything was given back."""

    stream = 7

    def __init__(self, refuses: bool = False) -> None:
        self.memory: dict[int, bytearray] = {}
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.refuses, self.launches, self.closed = refuses, 0, False
        self.refusal = "as asked for" if refuses else ""

    @contextmanager
    def active(self) -> Iterator[None]:
        assert not self.closed
        yield

    def alloc(self, size: int) -> int:
        address = 1 << 20 if not self.memory else max(self.memory) + 4096
        self.memory[address] = bytearray(b"\xff" * size)  # NaN, as fresh device memory may be
        return address

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.empty(shape, dtype)

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def upload(self, address: int, array: np.ndarray) -> None:
        host = borrowed(array)
        self.put(lambda: self.memory[address].__setitem__(slice(None), host().tobytes()))

    def download(self, array: np.ndarray, address: int) -> None:
        host = borrowed(array)

        def copy() -> None:
            array = host()
            array[...] = np.frombuffer(self.memory[address], array.dtype).reshape(array.shape)

        self.put(copy)

    def synchronise(self) -> None:
        for work in self.queue:
            work()
        self.queue.clear()

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        if self.refuses:
            return None
        self.recording = []
        work()
        recorded, self.recording = self.recording, None

        def launch() -> None:
            self.launches += 1
            self.queue.extend(recorded)

        return launch

    def close(self) -> None:
        self.closed = True
        self.memory.clear()


def borrowed(array: np.ndarray) -> Owner:
    """The array again, made of its address; fails once the memory is freed."""
    owner = alive(array if array.base is None else array.base, "pinned memory")
    where, shape, dtype = array.__array_interface__, array.shape, array.dtype

    def found() -> np.ndarray:
        assert owner() is not None
        return np.asarray(SimpleNamespace(__array_interface__=where)).view(dtype).reshape(shape)

    return found


def alive(thing: Any, what: str) -> Owner:
    """A weak reference that says what was freed too early."""
    reference = weakref.ref(thing)

    def found() -> Any:
        kept = reference()
        assert kept is not None, f"freed too early: {what}"
        return kept

    return found


class HostRuntime:
    """What deserialises: a plan is the path of its graph."""

    def __init__(self, device: HostDevice) -> None:
        self.device = device

    def deserialize_cuda_engine(self, plan: bytes) -> HostEngine:
        return HostEngine(Path(plan.decode()), self.device)


class HostEngine:
    """What the engine asks of an ICudaEngine, computed by ONNX Runtime."""

    def __init__(self, path: Path, device: HostDevice) -> None:
        self.session, self.device = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]), device
        self.nodes: dict[str, tuple[Any, int]] = {n.name: (n, 0) for n in self.session.get_inputs()}
        self.nodes |= {n.name: (n, 1) for n in self.session.get_outputs()}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.nodes[name][0].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.nodes[name][0].type)

    def get_tensor_mode(self, name: str) -> int:
        return self.nodes[name][1]

    def create_execution_context(self) -> HostContext:
        return HostContext(self)


class HostContext:
    """Scratch memory and addresses. What it queues needs it, and the engine with its weights, until it has run."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = alive(engine, "the engine")
        self.at: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.at[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, at, context = self.engine(), dict(self.at), alive(self, "the execution context")
        assert stream == HostDevice.stream and at.keys() == engine.nodes.keys()
        engine.device.put(lambda: context().run(at))
        return True

    def run(self, at: dict[str, int]) -> None:
        engine = self.engine()
        memory, nodes = engine.device.memory, engine.nodes
        given = {
            name: np.frombuffer(memory[at[name]], HOST.nptype(node.type)).reshape(node.shape)
            for name, (node, mode) in nodes.items()
            if mode == 0
        }
        results = engine.session.run(None, given)
        outputs = [name for name, (_, mode) in nodes.items() if mode == 1]
        for name, value in zip(outputs, results, strict=True):
            memory[at[name]][:] = value.tobytes()


HOST = SimpleNamespace(
    TensorIOMode=SimpleNamespace(INPUT=0, OUTPUT=1),
    nptype=lambda kind: {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[kind],
)
