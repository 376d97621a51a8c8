"""The interfaces of an inference engine: a model opened once, and what one stream of it runs.

OpenedModel     the graphs of a bundle, shared by all streams of the bundle
  -> Engines    what one stream runs: a StepEngine for each level, and a FrameEncoder
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge_hal.progress import Progress


class StepEngine(Protocol):
    """One level of one stream. It owns the state of the level."""

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Advance by one step.

        Args:
            inputs: the tensors of `spec.inputs(level, chunk)`, without state. At level 0 the chunk
                is `x.shape[0]`. The arrays are read during the call only.

        Returns:
            The tensors of `spec.outputs(level, chunk)`, valid until the next call but one.
        """
        ...

    def reset(self) -> None:
        """Set every state tensor to the fill value of its spec."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all state tensors by name, as the next step would read them."""
        ...


@runtime_checkable
class Restorable(Protocol):
    """A step engine whose state can be set, as a replay of a recording needs. Those of a run can; reference engines of
    tests and calibration need not."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Set all state tensors to what `state` returned."""
        ...


class FrameEncoder(Protocol):
    """The frame encoder of one stream. It has no state between calls."""

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A uint8 BGR picture (H, W, 3) of the encoder's size as a vector (D,) float32."""
        ...


class OpenedModel(Protocol):
    """The graphs of a bundle, opened once by one inference engine. All streams of the bundle share it.

    `kind` is the engine's name and `why` the reason it runs; both are for logs and reports, no code decides by them.
    `opens_in_background`: while a stream runs, another thread may open and run more engines on the same device. Only
    then can a run reload its bundle or check its state.
    """

    @property
    def kind(self) -> str: ...

    @property
    def why(self) -> str: ...

    @property
    def opens_in_background(self) -> bool: ...

    def open_stream(self) -> Engines:
        """Engines of a new stream, with buffers and state of their own. May be called from several threads.

        Raises:
            EdgeHalError: the device lacks memory or failed, or the model is closed.
        """
        ...

    def close(self) -> None:
        """Free what it holds on a device. Streams that are open stay usable. A second call does nothing."""
        ...


@dataclass(frozen=True)
class Engines:
    """What one stream runs: an engine for each level, lowest first, and the frame encoder if the bundle has one. One
    thread at a time may use it. `close` frees what it holds on a device; a second call does nothing. `captured`: every
    step is a CUDA graph."""

    model: OpenedModel
    levels: Sequence[StepEngine]
    encoder: FrameEncoder | None
    captured: bool = False
    close: Callable[[], None] = lambda: None

    @property
    def kind(self) -> str:
        return self.model.kind

    @property
    def why(self) -> str:
        return self.model.why

    def closing(self, also: Callable[[], None]) -> Engines:
        """The same engines; `also` is called after they were closed for the first time."""
        calls = iter([also])

        def close() -> None:
            self.close()
            for call in calls:
                call()

        return replace(self, close=close)


@dataclass(frozen=True)
class EngineOptions:
    """How a model is opened; each engine reads what concerns it. `threads`: of ONNX Runtime, for one step.
    `plan_cache`: the folder of TensorRT plans (None: the user's cache folder). `report`: progress of building plans.
    `cuda_graphs`: capture steps on TensorRT as CUDA graphs."""

    threads: int = 1
    plan_cache: Path | None = None
    report: Progress | None = None
    cuda_graphs: bool = True
