"""The pyramid's levels and the frame encoder on ONNX Runtime.

State never moves: each level owns two sets of state buffers that swap roles. A step reads one set
and writes the other, through I/O bindings made once for each (chunk, role), so that a step neither
allocates nor copies state.
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

from .engine import StepEngine

Buffers = dict[str, NDArray[Any]]
DTypes = dict[str, np.dtype[Any]]

FLOATS: DTypes = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
IMAGES: DTypes = {"tensor(uint8)": np.dtype(np.uint8)}


def open_engines(bundle: Bundle, threads: int = 1) -> list[StepEngine]:
    """One engine for each level, lowest first. Raises EdgeHalError where a graph does not fit."""
    spec = bundle.spec
    return [
        OnnxRuntimeEngine(
            {chunk: bundle.graph(level, chunk) for chunk in spec.chunks(level)},
            spec,
            level,
            threads,
        )
        for level in range(len(spec.levels))
    ]


@dataclass(frozen=True)
class _Run:
    """One graph bound to one role of the state sets, with the outputs it fills."""

    binding: Any
    outputs: Buffers


@dataclass(frozen=True)
class _Graph:
    """One chunk size: its session, the inputs it reads, and a run for each role."""

    session: Any
    inputs: Buffers
    runs: tuple[_Run, _Run]


class OnnxRuntimeEngine:
    """One level; see `StepEngine`. The graphs of all chunk sizes share the two state sets.

    Args:
        graphs: chunk size -> file of the step graph.
        threads: intra-op threads; more than one gains nothing at this size and costs tail latency.

    Raises:
        EdgeHalError: a file is no graph, or its names, shapes or types are not those of the spec.
    """

    def __init__(self, graphs: Mapping[int, Path], spec: PyramidSpec, level: int, threads: int = 1) -> None:
        self._fills = {tensor.name: tensor.fill for tensor in spec.states(level)}
        self._sets: tuple[Buffers, Buffers] | None = None
        self._role = 0
        self._graphs = {chunk: self._open(path, spec, level, chunk, threads) for chunk, path in sorted(graphs.items())}
        self._level = level
        self.reset()

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        chunk = len(inputs["x"]) if self._level == 0 else 1
        graph = self._graphs.get(chunk)
        if graph is None:
            raise EdgeHalError(
                f"no step graph takes {chunk} ticks at once",
                f"there are graphs for {', '.join(map(str, self._graphs))}",
            )
        for name, buffer in graph.inputs.items():
            value = inputs[name]
            if value.shape != buffer.shape:  # copyto would broadcast, silently
                raise EdgeHalError(f"input {name} is {value.shape}", f"it must be {buffer.shape}")
            np.copyto(buffer, value, casting="same_kind")
        run = graph.runs[self._role]
        graph.session.run_with_iobinding(run.binding)
        self._role = 1 - self._role
        return run.outputs

    def reset(self) -> None:
        # The role stays: outputs handed out before a reset keep their promise of one more call.
        for name, buffer in self._states[self._role].items():
            buffer.fill(self._fills[name])

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: buffer.copy() for name, buffer in self._states[self._role].items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, buffer in self._states[self._role].items():
            np.copyto(buffer, state[name])

    @property
    def _states(self) -> tuple[Buffers, Buffers]:
        assert self._sets is not None, "an engine without graphs"
        return self._sets

    def _open(self, path: Path, spec: PyramidSpec, level: int, chunk: int, threads: int) -> _Graph:
        session = open_session(path, threads)
        states = spec.states(level)
        inputs, outputs = spec.inputs(level, chunk), spec.outputs(level, chunk)
        nexts = [TensorSpec(f"{state.name}.next", state.shape) for state in states]
        reads = _check(path, "input", session.get_inputs(), [*inputs, *states], FLOATS)
        writes = _check(path, "output", session.get_outputs(), [*outputs, *nexts], FLOATS)
        if self._sets is None:
            self._sets = (_buffers(states, reads), _buffers(states, reads))
        for state, after in zip(states, nexts, strict=True):
            kept = self._sets[0][state.name].dtype
            if reads[state.name] != kept or writes[after.name] != kept:
                raise _unfit(path, state.name, f"it is not {kept} wherever it is read and written")
        given = _buffers(inputs, reads)
        runs = []
        for role in (0, 1):
            made = _buffers(outputs, writes)
            written = {f"{name}.next": buffer for name, buffer in self._sets[1 - role].items()}
            binding = _bind(session, {**given, **self._sets[role]}, {**made, **written})
            runs.append(_Run(binding, made))
        return _Graph(session, given, (runs[0], runs[1]))


class OnnxEncoder:
    """The frame encoder: one picture in, one feature vector out.

    Raises:
        EdgeHalError: the file is no graph, or its names, shapes or types are not those of the spec.
    """

    def __init__(self, path: Path, spec: EncoderSpec, threads: int = 1) -> None:
        self._session = open_session(path, threads)
        reads = _check(path, "input", self._session.get_inputs(), [spec.image], IMAGES)
        writes = _check(path, "output", self._session.get_outputs(), [spec.vector], FLOATS)
        image, vector = _buffers([spec.image], reads), _buffers([spec.vector], writes)
        self._image, self._vector = image[spec.image.name], vector[spec.vector.name]
        self._binding = _bind(self._session, image, vector)

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 BGR (H, W, 3) of the encoder's size -> float32 (size,), a copy of its own."""
        if image.shape != self._image.shape or image.dtype != np.uint8:
            raise EdgeHalError(
                f"the encoder got a picture of shape {image.shape} and type {image.dtype}",
                f"it takes uint8 {self._image.shape}",
                "resize it with edge_hal.preprocess.resize",
            )
        np.copyto(self._image, image)
        self._session.run_with_iobinding(self._binding)
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
