"""Graphs that torch exported once in a run of the tests, kept for all tests and worker processes of that run.

An export takes a second or more, and many tests export the same small model. The key of a kept graph is everything
that the export reads: the modules with their weights and settings, the example inputs, the names.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

Export = Callable[[nn.Module, list[torch.Tensor], list[str], list[str], Path], None]
PLAIN = (bool, int, float, str, tuple, list, type(None))


def key(module: nn.Module, example: list[torch.Tensor], inputs: list[str], outputs: list[str]) -> str:
    """SHA-256 over everything that decides the graph, in hexadecimal."""
    digest = hashlib.sha256(repr((module, inputs, outputs)).encode())
    for name, part in module.named_modules():
        settings = {k: v for k, v in vars(part).items() if not k.startswith("_")}
        for setting, value in settings.items():  # the text of another kind of object does not hold all of it
            assert isinstance(value, PLAIN) or is_dataclass(value), (name, setting, type(value))
        digest.update(repr((name, type(part), sorted(settings.items()))).encode())
    weights = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in [*weights, *((f"example {i}", each) for i, each in enumerate(example))]:
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def keeping(export: Export, folder: Path) -> Export:
    """`export`, but a graph that `folder` has is copied from it. Only one process exports it; others wait for that."""

    def copied(
        module: nn.Module, example: list[torch.Tensor], inputs: list[str], outputs: list[str], path: Path
    ) -> None:
        kept = folder / f"{key(module, example, inputs, outputs)}.onnx"
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.is_file():
                export(module, example, inputs, outputs, path)
                partial = kept.with_suffix(".partial")
                shutil.copyfile(path, partial)
                partial.rename(kept)
                return
        shutil.copyfile(kept, path)

    return copied


def keeping_operators(patch: pytest.MonkeyPatch) -> None:
    """Torch builds its table of all operators anew for each export, which takes about as long as a small export
    itself. It is the same each time: no test registers an operator."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
