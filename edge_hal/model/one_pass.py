"""One pass over a whole input, with the names of the step graphs. Every stream must give the same numbers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.spec import MASKED, PyramidSpec

from .attention import Block
from .front_end import FrontEnd
from .pyramid import Level, Pyramid

Array = NDArray[np.floating]


@dataclass(frozen=True)
class OnePass:
    """`outputs[l]`: the outputs of level l, name -> (tokens, width). `z` (T, Z): the z-scored input. `relative` (T, Z):
    to its baseline, or the same if there is none. `qkv[l][b]` (tokens, 3 width): queries, keys and values of block b.
    """

    spec: PyramidSpec
    outputs: tuple[dict[str, Array], ...]
    z: Array
    relative: Array
    qkv: tuple[tuple[Array, ...], ...]

    def heads(self) -> Array:
        """(T, H K) as in `PyramidStream.heads`."""
        bottom = self.outputs[0]
        return np.hstack([bottom["frame"], bottom["lagged"]]) if "lagged" in bottom else bottom["frame"]

    def states(self, ticks: int) -> dict[str, Array]:
        """Every state tensor that a stream has after `ticks` ticks."""
        spec, found = self.spec, {}
        for index, level in enumerate(spec.levels):
            name, tokens, past = f"l{index}", ticks // spec.period(index), level.window - 1
            if index == 0:
                rows = {"z": self.relative[:ticks], "y": self.z[:ticks]}
                for letter, (count, _) in spec.front_end.states.items():
                    found[f"{name}.{letter}"] = _newest(rows.get(letter, np.ones((ticks, 1))), count)
            found[f"{name}.valid"] = _newest(np.zeros((tokens, 1)), past, MASKED).T
            for block, qkv in enumerate(self.qkv[index]):
                heads = qkv[:tokens].reshape(tokens, 3, level.heads, level.width // level.heads)
                for part, letter in ((1, "k"), (2, "v")):
                    found[f"{name}.b{block}.{letter}"] = _newest(heads[:, part], past).swapaxes(0, 1)
        return found


def _newest(rows: Array, count: int, fill: float = 0.0) -> Array:
    """The last `count` rows; if there are fewer, `fill` comes before them."""
    missing = max(0, count - len(rows))
    front = np.full((missing, *rows.shape[1:]), fill)
    return np.concatenate([front, rows[len(rows) - count + missing :]])


def _keep(
    seen: dict[tuple[int, int], Tensor],
    key: tuple[int, int],
    _module: object,
    _inputs: object,
    output: Tensor,
) -> None:
    seen[key] = output[0]


@torch.inference_mode()
def one_pass(pyramid: Pyramid, front_end: FrontEnd, x: Array, dtype: torch.dtype = torch.float64) -> OnePass:
    """The causal network over vectors `x` (T, D), in `dtype`. The modules are not changed."""
    spec = pyramid.spec
    pyramid = copy.deepcopy(pyramid).to(dtype).eval()
    front_end = copy.deepcopy(front_end).to(dtype)
    seen: dict[tuple[int, int], Tensor] = {}
    for index, module in enumerate(pyramid.levels):
        assert isinstance(module, Level)
        for number, block in enumerate(module.blocks):
            assert isinstance(block, Block)
            block.qkv.register_forward_hook(partial(_keep, seen, (index, number)))
    vectors = torch.as_tensor(np.asarray(x), dtype=dtype)
    made = pyramid(front_end(vectors)[None])
    outputs = []
    for index in range(len(spec.levels)):
        level = {"trunk": made.trunks[index][0], "fused": made.fused[index][0]}
        if index == 0:
            level["frame"] = torch.log_softmax(made.frame[0], -1)
            level["change"] = torch.sigmoid(made.change[0])[:, None]
            if made.lagged is not None:
                level["lagged"] = torch.log_softmax(made.lagged[0], -1).flatten(1)
        elif made.action is not None:
            level["action"] = torch.log_softmax(made.action[0], -1)
        outputs.append({tensor.name: level[tensor.name].numpy() for tensor in spec.outputs(index)})
    z = front_end.z_scores(vectors)
    return OnePass(
        spec=spec,
        outputs=tuple(outputs),
        z=z.numpy(),
        relative=front_end.relative(z).numpy(),
        qkv=tuple(
            tuple(seen[index, block].numpy() for block in range(level.blocks))
            for index, level in enumerate(spec.levels)
        ),
    )
