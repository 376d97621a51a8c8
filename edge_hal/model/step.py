"""One step of one level: the module that is exported, and an engine that runs it in torch.

`LevelStep` computes the same as `Pyramid.forward`, in steps and without a batch axis. Its inputs, outputs and states
are those of `PyramidSpec`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .attention import Block
from .front_end import FrontEnd
from .pyramid import Level, Pyramid


class LevelStep(nn.Module):
    """Level `level` of a causal pyramid for chunks of `chunk` tokens.

    Its arguments are the inputs and then the states, its results the outputs and then the next states, in the order of
    the spec.
    """

    def __init__(self, pyramid: Pyramid, front_end: FrontEnd, level: int, chunk: int) -> None:
        super().__init__()
        assert pyramid.causal, "only a causal pyramid can step"
        self.spec, self.index, self.chunk = pyramid.spec, level, chunk
        self.front_end = front_end if level == 0 else None
        module = pyramid.levels[level]
        assert isinstance(module, Level)
        self.level = module
        # The biases are constants of the graph, so that it contains no index arithmetic.
        for number, block in enumerate(module.blocks):
            assert isinstance(block, Block)
            self.register_buffer(f"band{number}", block.step_bias(chunk).detach().clone())

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        level, spec, index = self.level, self.spec, self.index
        queue = list(tensors)
        x = queue.pop(0)
        held = queue.pop(0) if index < spec.top else None
        next_states: list[Tensor] = []
        if self.front_end is not None:
            count = len(spec.front_end.states)
            x, *past = self.front_end.step(x, *queue[:count])
            next_states += past
            del queue[:count]
        else:  # a bin of the level below
            x = torch.cat([x.mean(0, keepdim=True), x.amax(0, keepdim=True)], 1)
        x = level.entry(x)

        exists = torch.cat([queue.pop(0), x.new_zeros(1, self.chunk)], 1)
        next_states.append(exists[:, self.chunk :])
        for number, block in enumerate(level.blocks):
            assert isinstance(block, Block)
            bias = self.get_buffer(f"band{number}") + exists
            x, k, v = block.step(x, queue.pop(0), queue.pop(0), bias)
            next_states += [k, v]

        fused = level.fuse(x, held)
        outputs: list[Tensor] = []
        if index < spec.top:
            outputs.append(x)
        if index > 0:
            outputs.append(fused)
        if index == 0:
            outputs.append(torch.log_softmax(level.frame(fused), -1))
            outputs.append(torch.sigmoid(level.change(fused)))
            if spec.other_lags_s:
                logits = level.lagged(fused).reshape(self.chunk, len(spec.other_lags_s), len(spec.labels))
                outputs.append(torch.log_softmax(logits, -1).reshape(self.chunk, -1))
        elif index == spec.top:
            outputs.append(torch.log_softmax(level.action(fused), -1))
        return (*outputs, *next_states)


class TorchEngine:
    """The step engine of one level in torch, with the interface of the runtime's engines. Exported graphs are compared
    with it, and `eval` streams checkpoints through it."""

    def __init__(self, pyramid: Pyramid, front_end: FrontEnd, level: int, dtype: torch.dtype = torch.float32) -> None:
        self.spec, self.level, self.dtype = pyramid.spec, level, dtype
        # Copies, because `.to` converts a module in place and the caller still needs the originals.
        self.steps = {
            chunk: copy.deepcopy(LevelStep(pyramid, front_end, level, chunk)).to(dtype).eval()
            for chunk in self.spec.chunks(level)
        }
        self.reset()

    def reset(self) -> None:
        self._state = [
            torch.full(tensor.shape, tensor.fill, dtype=self.dtype) for tensor in self.spec.states(self.level)
        ]

    def state(self) -> dict[str, NDArray[np.floating]]:
        names = (tensor.name for tensor in self.spec.states(self.level))
        return {name: value.numpy().copy() for name, value in zip(names, self._state, strict=True)}

    @torch.inference_mode()
    def step(self, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
        names = [tensor.name for tensor in self.spec.inputs(self.level)]
        values = [torch.as_tensor(np.asarray(inputs[name]), dtype=self.dtype) for name in names]
        chunk = values[0].shape[0] if self.level == 0 else 1
        results = self.steps[chunk](*values, *self._state)
        outputs = self.spec.outputs(self.level, chunk)
        self._state = list(results[len(outputs) :])
        return {tensor.name: value.numpy() for tensor, value in zip(outputs, results[: len(outputs)], strict=True)}
