"""Stand-ins for pycuda, cuda.bindings.driver and tensorrt: the calls and their order as documented, the memory that of
the host. What a GPU refuses, they refuse: work without a current context, a graph that was destroyed, freed memory.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

from edge_hal.bundle import Bundle, expected_graphs
from edge_hal.runtime.engines.tensorrt_builder import BuildOptions
from edge_hal.runtime.engines.tensorrt_plans import DeviceId, pack, plan_key
from tests.helpers.host_device import HOST, HostDevice, HostRuntime


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Mode(Enum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


OK = CUresult.CUDA_SUCCESS


class Handle:
    """What cuda.bindings wraps a graph in. `work` is None once it is destroyed: using it again fails, as on a GPU."""

    def __init__(self, work: list[Any]) -> None:
        self.work: list[Any] | None = work


class Gpu:
    """The modules, on one `HostDevice`. `stacks`: contexts pushed and not yet popped, by thread; `memory_left`:
    allocations before the GPU is full; `refuses`: functions of the driver that fail, with their error; `left`: what was
    not given back; `misused`: what pycuda would warn of."""

    def __init__(self) -> None:
        self.host, self.memory_left = HostDevice(), 10_000
        self.stacks: dict[int, list[Any]] = defaultdict(list)
        self.refuses: dict[str, CUresult] = {}
        self.graphs: list[Handle] = []
        self.streams: WeakSet[Any] = WeakSet()
        self.contexts: list[Any] = []
        self.misused: list[str] = []
        gpu = self

        class Context:
            def __init__(self) -> None:
                gpu.contexts.append(self)

            def push(self) -> None:
                gpu.stacks[threading.get_ident()].append(self)

            def pop(self) -> None:
                gpu.stacks[threading.get_ident()].pop()

            def detach(self) -> None:
                assert gpu.stacks[threading.get_ident()][-1] is self, (
                    "pycuda gives back a current context in any thread"
                )
                gpu.stacks[threading.get_ident()].remove(self)
                gpu.contexts.remove(self)

        class Stream:
            handle = HostDevice.stream

            def __init__(self) -> None:
                gpu.check()
                gpu.streams.add(self)

            def synchronize(self) -> None:
                gpu.check()
                assert gpu.host.recording is None, "a stream that is captured cannot be waited for"
                gpu.host.synchronise()

            def __del__(self) -> None:
                if not gpu.stacks[threading.get_ident()]:
                    gpu.misused.append("a stream was destroyed without its context")

        class Memory:
            def __init__(self, size: int) -> None:
                gpu.check()
                gpu.memory_left -= 1
                if gpu.memory_left < 0:
                    raise MemoryError("cuMemAlloc failed: out of memory")
                self.address = gpu.host.alloc(size)

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                gpu.check()
                del gpu.host.memory[self.address]

        self.driver = SimpleNamespace(
            init=lambda: None,
            Device=lambda index: SimpleNamespace(
                name=lambda: "a GPU", compute_capability=lambda: (8, 7), retain_primary_context=Context
            ),
            Stream=Stream,
            get_driver_version=lambda: 12060,
            mem_alloc=Memory,
            pagelocked_empty=self.current(self.host.pinned),
            memcpy_htod_async=self.current(lambda address, array, on: self.host.upload(address, array)),
            memcpy_dtoh_async=self.current(lambda array, address, on: self.host.download(array, address)),
        )
        names = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch",
                 "cuGraphDestroy", "cuGraphExecDestroy")  # fmt: skip
        self.bindings = SimpleNamespace(CUstreamCaptureMode=Mode, **{name: self.function(name) for name in names})
        self.bindings.cuDriverGetVersion = lambda: (OK, 12060)
        self.tensorrt = SimpleNamespace(
            **vars(HOST),
            __name__="tensorrt",
            __version__="10.3.0",
            Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None}),
            Runtime=lambda logger: HostRuntime(self.host),
        )

    def check(self) -> None:
        """pycuda and the driver refuse whatever they are asked without a current context."""
        assert self.stacks[threading.get_ident()], "no context is current"

    def current(self, work: Any) -> Any:
        def checked(*arguments: Any) -> Any:
            self.check()
            return work(*arguments)

        return checked

    def function(self, name: str) -> Any:
        work, results = getattr(self, name), 1 if name in ("cuStreamEndCapture", "cuGraphInstantiate") else 0

        def called(*arguments: Any) -> tuple[Any, ...]:
            self.check()
            made = work(*arguments)
            if name in self.refuses:
                return (self.refuses[name], *[None] * results)
            return (OK, made) if results else (OK,)

        return called

    def cuStreamBeginCapture(self, stream: int, mode: Mode) -> None:
        assert stream == HostDevice.stream and isinstance(mode, Mode) and self.host.recording is None
        if "cuStreamBeginCapture" not in self.refuses:
            self.host.recording = []

    def cuStreamEndCapture(self, stream: int) -> Handle:
        recorded, self.host.recording = self.host.recording, None
        assert recorded is not None, "the stream is not captured"
        return self.graph(recorded, "cuStreamEndCapture")

    def cuGraphInstantiate(self, graph: Handle, flags: int) -> Handle:
        assert graph.work is not None and flags == 0
        return self.graph(list(graph.work), "cuGraphInstantiate")

    def cuGraphLaunch(self, graph: Handle, stream: int) -> None:
        assert graph.work is not None and stream == HostDevice.stream
        self.host.launches += 1
        self.host.queue.extend(graph.work)

    def cuGraphDestroy(self, graph: Handle) -> None:
        assert graph.work is not None
        graph.work = None

    cuGraphExecDestroy = cuGraphDestroy

    def graph(self, work: list[Any], name: str) -> Handle:
        made = Handle(work)
        if name not in self.refuses:
            self.graphs.append(made)
        return made

    @property
    def left(self) -> list[Any]:
        """What was not given back."""
        graphs = [graph for graph in self.graphs if graph.work is not None]
        stacks = [stack for stack in self.stacks.values() if stack]
        return [*graphs, *self.host.memory, *self.streams, *self.contexts, *stacks]


def keep_plans(gpu: Gpu, bundle: Bundle, cache: Path) -> None:
    """Plans as built before on this device: each is the path of its graph, which `HostRuntime` knows."""
    device = DeviceId("a GPU", "8.7", "driver 12060")
    for name in expected_graphs(bundle.spec, bundle.precision):
        key = plan_key(gpu.tensorrt, bundle.path / name, device, BuildOptions())
        (cache / f"{key}.plan").write_bytes(pack(key, str(bundle.path / name).encode()))
