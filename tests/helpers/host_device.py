"""A GPU made of host memory, with ONNX Runtime behind TensorRT's interface: what the engine may assume, no speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort


class HostDevice:
    """`Device` in host memory. Work is queued and done on `synchronise`, as on a GPU, so that whoever reads too
    early reads something else. `refuses` turns capture down."""

    stream = 7

    def __init__(self, refuses: bool = False) -> None:
        self.memory: dict[int, bytearray] = {}
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.refuses, self.launches, self.plain = refuses, 0, 0

    def alloc(self, size: int) -> int:
        address = 1 << 20 if not self.memory else max(self.memory) + 4096
        self.memory[address] = bytearray(b"\xff" * size)  # NaN, as fresh device memory may be
        return address

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.empty(shape, dtype)

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def upload(self, address: int, array: np.ndarray) -> None:
        self.put(lambda: self.memory[address].__setitem__(slice(None), array.tobytes()))

    def download(self, array: np.ndarray, address: int) -> None:
        def copy() -> None:
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


class HostEngine:
    """What the engine asks of an ICudaEngine, computed by ONNX Runtime."""

    def __init__(self, path: Path, device: HostDevice) -> None:
        self.session, self.device = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]), device
        self.nodes = {n.name: (n, 0) for n in self.session.get_inputs()}
        self.nodes |= {n.name: (n, 1) for n in self.session.get_outputs()}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.nodes[name][0].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return self.nodes[name][0].type

    def get_tensor_mode(self, name: str) -> int:
        return self.nodes[name][1]

    def create_execution_context(self) -> HostContext:
        return HostContext(self)


class HostContext:
    def __init__(self, engine: HostEngine) -> None:
        self.engine, self.at = engine, {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.at[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostDevice.stream and self.at.keys() == self.engine.nodes.keys()
        self.engine.device.put(self.run)
        return True

    def run(self) -> None:
        memory, nodes = self.engine.device.memory, self.engine.nodes
        given = {
            name: np.frombuffer(memory[self.at[name]], HOST.nptype(node.type)).reshape(node.shape)
            for name, (node, mode) in nodes.items()
            if mode == 0
        }
        results = self.engine.session.run(None, given)
        outputs = [name for name, (_, mode) in nodes.items() if mode == 1]
        for name, value in zip(outputs, results, strict=True):
            memory[self.at[name]][:] = value.tobytes()


HOST = SimpleNamespace(
    TensorIOMode=SimpleNamespace(INPUT=0, OUTPUT=1),
    nptype=lambda kind: {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[kind],
)
