"""What TensorRT engines need of a GPU: memory, copies and one stream of work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Launch = Callable[[], None]
"""Starts work that was recorded."""


class Device(Protocol):
    """Memory and one stream of a GPU. Addresses are integers; everything but `synchronise` may return early.

    `refusal`: why no graph is captured, empty where none was refused.
    """

    stream: int
    refusal: str

    def active(self) -> AbstractContextManager[None]:
        """Everything below, and every call of TensorRT, happens inside.

        Raises:
            EdgeHalError: the device is closed.
        """
        ...

    def alloc(self, size: int) -> int:
        """`size` bytes on the device, until it is closed."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Host memory that copies run from and to without staging, until the device is closed."""
        ...

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy of pinned memory to the device."""
        ...

    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy of device memory to pinned memory."""
        ...

    def synchronise(self) -> None:
        """Wait for everything queued."""
        ...

    def capture(self, work: Callable[[], None]) -> Launch | None:
        """Record what `work` queues, without running it, as something that launches at once; None if refused.

        The record holds addresses and owns nothing: whoever launches it keeps alive what `work` uses.
        """
        ...

    def close(self) -> None:
        """Give everything back. Twice is no harm."""
        ...
