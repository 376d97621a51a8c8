"""The levels of the pyramid and the frame encoder on ONNX Runtime, on the CPU.

A graph is opened once, as a `Graph`; any number of streams run it, in any thread, because an `InferenceSession` may be
run concurrently. Each stream has I/O bindings and buffers of its own. A level keeps two sets of state buffers that swap
roles: a step reads one and writes the other, so that a step neither allocates memory nor copies state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_hal.bundle import REEXPORT, Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.spec import EncoderSpec, PyramidSpec, TensorSpec

from .engine import Engines, StepEngine

Buffers = dict[str, NDArray[Any]]
DTypes = dict[str, np.dtype[Any]]

FLOATS: DTypes = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
IMAGES: DTypes = {"tensor(uint8)": np.dtype(np.uint8)}


class OnnxRuntimeModel:
    """The graphs of a bundle on ONNX Runtime; see `OpenedModel`.

    Args:
        threads: threads of one step; more than one gains nothing at this size and costs tail latency.
        why: the reason for this engine, for reports.

    Raises:
        EdgeHalError: a file is no graph, or its names, shapes or types are not those of the spec.
    """

    kind = "onnxruntime"
    opens_in_background = True

    def __init__(self, bundle: Bundle, threads: int = 1, why: str = "") -> None:
        self.why = why
        self._spec = spec = bundle.spec
        self._levels = [
            open_step_graphs({chunk: bundle.graph(level, chunk) for chunk in spec.chunks(level)}, spec, level, threads)
            for level in range(len(spec.levels))
        ]
        self._encoder = None
        if bundle.encoder is not None and spec.encoder is not None:
            self._encoder = open_encoder_graph(bundle.encoder, spec.encoder, threads)

    def open_stream(self) -> Engines:
        spec = self._spec
        levels = [OnnxRuntimeEngine(graphs, spec, level) for level, graphs in enumerate(self._levels)]
        encoder = None
        if self._encoder is not None and spec.encoder is not None:
            encoder = OnnxEncoder(self._encoder, spec.encoder)
        return Engines(self, levels, encoder)

    def close(self) -> None:
        """Nothing to do: sessions are freed with the last stream that uses them."""


def open_engines(bundle: Bundle, threads: int = 1) -> list[StepEngine]:
    """The engines of a single stream, lowest level first. Raises EdgeHalError if a graph does not fit."""
    return list(OnnxRuntimeModel(bundle, threads).open_stream().levels)


@dataclass(frozen=True)
class Graph:
    """An opened graph and the types of its inputs and outputs. Streams share it."""

    session: Any
    reads: DTypes
    writes: DTypes


def open_step_graphs(paths: Mapping[int, Path], spec: PyramidSpec, level: int, threads: int = 1) -> dict[int, Graph]:
    """The step graphs of a level by chunk size.

    Raises:
        EdgeHalError: a file is no graph, or its names, shapes or types are not those of the spec.
    """
    states = spec.states(level)
    nexts = [TensorSpec(f"{state.name}.next", state.shape) for state in states]
    graphs: dict[int, Graph] = {}
    for chunk, path in sorted(paths.items()):
        inputs, outputs = [*spec.inputs(level, chunk), *states], [*spec.outputs(level, chunk), *nexts]
        graphs[chunk] = graph = _open_graph(path, threads, inputs, outputs)
        first = next(iter(graphs.values()))
        for state, after in zip(states, nexts, strict=True):
            kept = first.reads[state.name]
            if graph.reads[state.name] != kept or graph.writes[after.name] != kept:
                raise _unfit(path, state.name, f"it is not {kept} wherever it is read and written")
    return graphs


def open_encoder_graph(path: Path, spec: EncoderSpec, threads: int = 1) -> Graph:
    """Raises EdgeHalError if the file is no graph, or its names, shapes or types are not those of the spec."""
    return _open_graph(path, threads, [spec.image], [spec.vector], IMAGES)


@dataclass(frozen=True)
class _Binding:
    """A graph bound to buffers of one stream: those it reads for this step, and those it fills."""

    graph: Graph
    io: Any
    inputs: Buffers
    outputs: Buffers

    def run(self) -> Buffers:
        self.graph.session.run_with_iobinding(self.io)
        return self.outputs


class OnnxRuntimeEngine:
    """One level of one stream; see `StepEngine`. The graphs of all chunk sizes share the two sets of states.

    Args:
        graphs: chunk size -> opened graph, from `open_step_graphs`.
    """

    def __init__(self, graphs: Mapping[int, Graph], spec: PyramidSpec, level: int) -> None:
        self._level = level
        self._fills = {tensor.name: tensor.fill for tensor in spec.states(level)}
        self._role = 0
        reads = next(iter(graphs.values())).reads
        self._states = [_buffers(spec.states(level), reads) for _ in (0, 1)]
        self._bindings = {chunk: self._bind(graph, spec, chunk) for chunk, graph in graphs.items()}
        self.reset()

    @classmethod
    def open(cls, paths: Mapping[int, Path], spec: PyramidSpec, level: int, threads: int = 1) -> OnnxRuntimeEngine:
        """From graphs that no other stream shares: chunk size -> file."""
        return cls(open_step_graphs(paths, spec, level, threads), spec, level)

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        chunk = len(inputs["x"]) if self._level == 0 else 1
        if chunk not in self._bindings:
            raise EdgeHalError(
                f"no step graph takes {chunk} ticks at once",
                f"there are graphs for {', '.join(map(str, self._bindings))}",
            )
        binding = self._bindings[chunk][self._role]
        for name, buffer in binding.inputs.items():
            value = inputs[name]
            if value.shape != buffer.shape:  # copyto would broadcast without an error
                raise EdgeHalError(f"input {name} is {value.shape}", f"it must be {buffer.shape}")
            np.copyto(buffer, value, casting="same_kind")
        outputs = binding.run()
        self._role = 1 - self._role
        return outputs

    def reset(self) -> None:
        # The role stays: outputs returned before a reset stay valid for one more call.
        for name, buffer in self._states[self._role].items():
            buffer.fill(self._fills[name])

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: buffer.copy() for name, buffer in self._states[self._role].items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, buffer in self._states[self._role].items():
            np.copyto(buffer, state[name])

    def _bind(self, graph: Graph, spec: PyramidSpec, chunk: int) -> tuple[_Binding, _Binding]:
        """One binding for each role of the state sets; they share the inputs."""
        inputs = _buffers(spec.inputs(self._level, chunk), graph.reads)

        def in_role(role: int) -> _Binding:
            outputs = _buffers(spec.outputs(self._level, chunk), graph.writes)
            written = {f"{name}.next": buffer for name, buffer in self._states[1 - role].items()}
            io = _bind(graph.session, {**inputs, **self._states[role]}, {**outputs, **written})
            return _Binding(graph, io, inputs, outputs)

        return in_role(0), in_role(1)


class OnnxEncoder:
    """The frame encoder of one stream: one picture in, one feature vector out.

    Args:
        graph: from `open_encoder_graph`.
    """

    def __init__(self, graph: Graph, spec: EncoderSpec) -> None:
        image, vector = _buffers([spec.image], graph.reads), _buffers([spec.vector], graph.writes)
        self._image, self._vector = image[spec.image.name], vector[spec.vector.name]
        self._binding = _Binding(graph, _bind(graph.session, image, vector), image, vector)

    @classmethod
    def open(cls, path: Path, spec: EncoderSpec, threads: int = 1) -> OnnxEncoder:
        """From a graph that no other stream shares."""
        return cls(open_encoder_graph(path, spec, threads), spec)

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 BGR (H, W, 3) of the encoder's size -> float32 (size,), a copy of its own."""
        if image.shape != self._image.shape or image.dtype != np.uint8:
            raise EdgeHalError(
                f"the encoder got a picture of shape {image.shape} and type {image.dtype}",
                f"it takes uint8 {self._image.shape}",
                "resize it with edge_hal.pictures.resize.resize",
            )
        np.copyto(self._image, image)
        self._binding.run()
        vector: NDArray[np.float32] = self._vector[0].astype(np.float32)
        return vector


def open_session(path: Path, threads: int = 1) -> Any:
    """A CPU session that neither spins nor logs. Raises EdgeHalError where the file is no graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: they are raised as well
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeHalError(
            f"{path} cannot be opened as an ONNX graph", reason, REEXPORT.format(path=path.parent)
        ) from error


def _open_graph(
    path: Path,
    threads: int,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    read_types: DTypes = FLOATS,
) -> Graph:
    session = open_session(path, threads)
    reads = _check(path, "input", session.get_inputs(), inputs, read_types)
    return Graph(session, reads, _check(path, "output", session.get_outputs(), outputs, FLOATS))


def _check(path: Path, side: str, found: Iterable[Any], expected: Iterable[TensorSpec], types: DTypes) -> DTypes:
    """The types of a graph's inputs or outputs, once their names and shapes are those expected."""
    actual = {node.name: node for node in found}
    wanted = {tensor.name: tensor for tensor in expected}
    for name in sorted(set(actual) ^ set(wanted)):
        raise _unfit(path, name, f"there is no such {side}" if name in wanted else f"an unknown {side}")
    for name, tensor in wanted.items():
        node = actual[name]
        if tuple(node.shape) != tensor.shape:
            raise _unfit(path, name, f"its shape is {node.shape}, the table says {tensor.shape}")
        if node.type not in types:
            raise _unfit(path, name, f"its type is {node.type}, not {' or '.join(types)}")
    return {name: types[actual[name].type] for name in wanted}


def _unfit(path: Path, tensor: str, why: str) -> EdgeHalError:
    todo = REEXPORT.format(path=path.parent)
    return EdgeHalError(f"{path}: tensor {tensor} does not fit the bundle's table", why, todo)


def _buffers(tensors: Iterable[TensorSpec], dtypes: DTypes) -> Buffers:
    return {tensor.name: np.zeros(tensor.shape, dtypes[tensor.name]) for tensor in tensors}


def _bind(session: Any, inputs: Buffers, outputs: Buffers) -> Any:
    """Bind a session to memory that numpy owns. Whoever binds keeps the arrays alive."""
    binding = session.io_binding()
    for bind, buffers in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, array in buffers.items():
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding
