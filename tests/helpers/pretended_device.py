"""A second device for a machine without a GPU: tensors that say they lie elsewhere, computed on the CPU.

A GPU refuses an operation between tensors of two devices; so does this. It shows where something was not moved, and
nothing about a GPU's own kernels. It calls itself `meta`, the one other device that every build of torch can name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")


class Elsewhere(Tensor):
    """`held`: where its numbers really are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=ELSEWHERE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})


class _Generator(torch.Generator):
    """For a device of the same name as its tensors. Unlike a GPU, nothing refuses a generator of another device."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        place = "cpu" if torch.device(device) == ELSEWHERE else device
        return super().__new__(cls, place)  # type: ignore[call-arg]


class _Everywhere(TorchDispatchMode):
    """Tensors that are made, or sent there, pass no tensor that lies there already."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Inside, tensors may be sent to the device that is yielded."""
    # Inference tensors can have no views of another kind of tensor: without gradients will do.
    with (
        mock.patch("torch.inference_mode", torch.no_grad),
        mock.patch("torch.Generator", _Generator),
        _Everywhere(),
    ):
        yield ELSEWHERE


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, asked = str(func), kwargs.get("device")
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = [isinstance(each, Elsewhere) for each in tensors]
    moves = name.startswith(("aten._to_copy", "aten.copy_"))
    # A number may come from anywhere.
    if len({lies for lies, each in zip(there, tensors, strict=True) if each.dim() > 0}) > 1 and not moves:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    wraps = any(there) if asked is None else torch.device(asked) == ELSEWHERE
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain = tree_map(lambda each: each.held if isinstance(each, Elsewhere) else each, (args, kwargs))
    out = func(*plain_args, **plain)
    if func._schema.is_mutable and name.split(".")[1].endswith("_"):
        return args[0]
    return tree_map(lambda each: Elsewhere(each) if wraps and isinstance(each, Tensor) else each, out)
