"""The pyramid's levels and the frame encoder on TensorRT. The same `step` as on ONNX Runtime.

State never moves: two sets of device buffers swap roles, so there are two execution contexts for each chunk size,
one for each direction. A step is one stream of work, copies of inputs and outputs included, captured as a CUDA graph
where the device allows it and enqueued plainly where it does not. One thread at a time uses an engine; which one does
not matter.

Memory and streams are behind `Device` (`device.py`; `cuda_device.py` on a GPU). Nothing in here knows CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.spec import EncoderSpec, PyramidSpec, TensorSpec

from .device import Device


@dataclass(frozen=True)
class _Tensor:
    """One tensor in device memory, and its pinned twin."""

    address: int
    host: NDArray[Any]


@dataclass(frozen=True)
class _Run:
    """One chunk size in one role."""

    work: _Work
    outputs: dict[str, _Tensor]


class TensorRtEngine:
    """One level; see `StepEngine`.

    Args:
        trt: the TensorRT module.
        engines: chunk size -> deserialised engine.

    Raises:
        EdgeHalError: tensors of an engine are not those of the spec, a step cannot be enqueued, the device is closed.
    """

    def __init__(self, trt: Any, engines: Mapping[int, Any], spec: PyramidSpec, level: int, device: Device) -> None:
        self._device, self._level = device, level
        with device.active():
            self._build(trt, engines, spec, level)

    def _build(self, trt: Any, engines: Mapping[int, Any], spec: PyramidSpec, level: int) -> None:
        device = self._device
        self._role = 0
        states = spec.states(level)
        nexts = [TensorSpec(f"{tensor.name}.next", tensor.shape) for tensor in states]
        checked = {
            chunk: _check(
                trt,
                engine,
                f"level {level}, chunk {chunk}",
                [*spec.inputs(level, chunk), *states],
                [*spec.outputs(level, chunk), *nexts],
            )
            for chunk, engine in sorted(engines.items())
        }
        types = next(iter(checked.values()))
        if any(found[tensor.name] != types[tensor.name] for found in checked.values() for tensor in states):
            raise EdgeHalError(f"level {level}: a state differs in type between chunk sizes")
        self._fills = {tensor.name: tensor.fill for tensor in states}
        self._sets = tuple(
            {tensor.name: _tensor(device, tensor, types[tensor.name]) for tensor in states} for _ in (0, 1)
        )
        self._inputs: dict[int, dict[str, _Tensor]] = {}
        self._runs: dict[int, tuple[_Run, ...]] = {}
        for chunk, engine in sorted(engines.items()):
            inputs, outputs, types = spec.inputs(level, chunk), spec.outputs(level, chunk), checked[chunk]
            given = {tensor.name: _tensor(device, tensor, types[tensor.name]) for tensor in inputs}
            self._inputs[chunk] = given
            self._runs[chunk] = tuple(self._bind(engine, given, outputs, types, role) for role in (0, 1))
        self.captured = all(run.work.captured for roles in self._runs.values() for run in roles)
        self.reset()  # warming up and capturing have stepped the state

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        with self._device.active():
            chunk = len(inputs["x"]) if self._level == 0 else 1
            if chunk not in self._runs:
                known = ", ".join(map(str, self._runs))
                raise EdgeHalError(f"no step graph takes {chunk} ticks at once", f"there are graphs for {known}")
            for name, tensor in self._inputs[chunk].items():
                value = inputs[name]
                if value.shape != tensor.host.shape:  # copyto would broadcast, silently
                    raise EdgeHalError(f"input {name} is {value.shape}", f"it must be {tensor.host.shape}")
                np.copyto(tensor.host, value, casting="same_kind")
            run = self._runs[chunk][self._role]
            run.work.launch()
            self._device.synchronise()
        self._role = 1 - self._role
        return {name: tensor.host for name, tensor in run.outputs.items()}

    def reset(self) -> None:
        # The role stays: outputs handed out before a reset stay valid for one more call.
        self.restore(self._fills)

    def restore(self, state: Mapping[str, Any]) -> None:
        with self._device.active():
            for name, tensor in self._sets[self._role].items():
                np.copyto(tensor.host, state[name])
                self._device.upload(tensor.address, tensor.host)
            self._device.synchronise()

    def state(self) -> dict[str, NDArray[Any]]:
        with self._device.active():
            for tensor in self._sets[self._role].values():
                self._device.download(tensor.host, tensor.address)
            self._device.synchronise()
        return {name: tensor.host.copy() for name, tensor in self._sets[self._role].items()}

    def close(self) -> None:
        """Let go of contexts and engines, before the device is closed. No step works afterwards."""
        with self._device.active():
            self._runs.clear()

    def _bind(
        self,
        engine: Any,
        given: dict[str, _Tensor],
        outputs: Sequence[TensorSpec],
        types: dict[str, np.dtype[Any]],
        role: int,
    ) -> _Run:
        device = self._device
        made = {tensor.name: _tensor(device, tensor, types[tensor.name]) for tensor in outputs}
        written = {f"{name}.next": tensor for name, tensor in self._sets[1 - role].items()}
        addresses = {**given, **self._sets[role], **made, **written}
        return _Run(_Work(engine, addresses, given, made, device), made)


class TensorRtEncoder:
    """The frame encoder: one picture in, one feature vector out.

    Raises:
        EdgeHalError: tensors of the engine are not those of the spec, or the device is closed.
    """

    def __init__(self, trt: Any, engine: Any, spec: EncoderSpec, device: Device) -> None:
        types = _check(trt, engine, "encoder", [spec.image], [spec.vector])
        self._device = device
        with device.active():
            self._image = _tensor(device, spec.image, types[spec.image.name])
            self._vector = _tensor(device, spec.vector, types[spec.vector.name])
            given, made = {spec.image.name: self._image}, {spec.vector.name: self._vector}
            self._work: _Work | None = _Work(engine, given | made, given, made, device)
        self.captured = self._work.captured

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 BGR (H, W, 3) of the encoder's size -> float32 (size,), a copy of its own."""
        if image.shape != self._image.host.shape or image.dtype != np.uint8:
            raise EdgeHalError(
                f"the encoder got a picture of shape {image.shape} and type {image.dtype}",
                f"it takes uint8 {self._image.host.shape}",
                "resize it with edge_hal.pictures.resize.resize",
            )
        np.copyto(self._image.host, image)
        with self._device.active():
            assert self._work is not None, "a closed encoder has a closed device"
            self._work.launch()
            self._device.synchronise()
        vector: NDArray[np.float32] = self._vector.host[0].astype(np.float32)
        return vector

    def close(self) -> None:
        """Let go of context and engine, before the device is closed. No picture can be encoded afterwards."""
        with self._device.active():
            self._work = None


class _Work:
    """Copies in, the engine, copies out: a captured graph where the device allows it, else queued one by one.

    A captured graph holds addresses: of weights in the engine, of scratch memory in the context. It owns neither.
    Both live here, as long as the graph can be launched.
    """

    def __init__(
        self,
        engine: Any,
        addresses: Mapping[str, _Tensor],
        given: Mapping[str, _Tensor],
        made: Mapping[str, _Tensor],
        device: Device,
    ) -> None:
        self._engine, self._context = engine, engine.create_execution_context()
        self._given, self._made, self._device = tuple(given.values()), tuple(made.values()), device
        if self._context is None:
            raise EdgeHalError("TensorRT cannot make an execution context", "the device may lack memory")
        for name, tensor in addresses.items():
            if not self._context.set_tensor_address(name, tensor.address):
                raise EdgeHalError(f"TensorRT does not take an address for {name}")
        self._queue()  # the first enqueue initialises; captured, every launch would do it again (NVIDIA/TensorRT#2603)
        device.synchronise()
        self._graph = device.capture(self._queue)

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def launch(self) -> None:
        """Queue it all."""
        (self._graph or self._queue)()

    def _queue(self) -> None:
        for tensor in self._given:
            self._device.upload(tensor.address, tensor.host)
        if not self._context.execute_async_v3(self._device.stream):
            raise EdgeHalError("TensorRT could not enqueue a step", "see its log for the reason")
        for tensor in self._made:
            self._device.download(tensor.host, tensor.address)


def _tensor(device: Device, spec: TensorSpec, dtype: np.dtype[Any]) -> _Tensor:
    host = device.pinned(spec.shape, dtype)
    host.fill(0)
    return _Tensor(device.alloc(math.prod(spec.shape) * dtype.itemsize), host)


def _types(trt: Any, engine: Any) -> dict[str, np.dtype[Any]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}


def _check(
    trt: Any, engine: Any, where: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> dict[str, np.dtype[Any]]:
    """The types of an engine's tensors, once names, directions and shapes are those expected."""
    types = _types(trt, engine)
    wanted = {tensor.name: (tensor, trt.TensorIOMode.INPUT) for tensor in inputs}
    wanted |= {tensor.name: (tensor, trt.TensorIOMode.OUTPUT) for tensor in outputs}
    for name in sorted(types.keys() ^ wanted.keys()):
        why = "the engine lacks it" if name in wanted else "the table does not know it"
        raise EdgeHalError(f"{where}: tensor {name} does not fit the bundle's table", why)
    for name, (tensor, mode) in wanted.items():
        shape = tuple(engine.get_tensor_shape(name))
        if shape != tensor.shape or engine.get_tensor_mode(name) != mode:
            why = f"its shape is {shape}, the table says {tensor.shape}"
            raise EdgeHalError(f"{where}: tensor {name} does not fit the bundle's table", why)
    for tensor in inputs:
        after = f"{tensor.name}.next"
        if after in types and types[after] != types[tensor.name]:
            raise EdgeHalError(f"{where}: state {tensor.name} is read and written in different types")
    return types
