"""What the runtime asks of whatever computes a level: one step, a reset, a look at the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


class StepEngine(Protocol):
    """One level of one stream. It owns the level's state; nothing else remembers between steps."""

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
        """Every state tensor back to the fill its spec declares."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all state tensors by name, as the next step would read them."""
        ...


@runtime_checkable
class Restorable(Protocol):
    """An engine that can begin where another one left off."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` gave: the next step reads it."""
        ...
