"""A step of a level in float16: which parts stay in float32, and why.

Everything is cast to float16, with three exceptions. Each was measured (`benchmarks/precision.py`, docs/tensorrt.md):

- The *front end* computes its features in float32. Before the z-score, a sensor that reads 1013.2 +- 0.1 has no
  significant digits left in float16, and sums of squares over a long window exceed 65504. Its state (z-scores, clipped
  at 5) is float16: values are moved and never accumulated, so the rounding error (2^-9 at most) does not grow.
- The *last operation of the heads* (log softmax, sigmoid) is in float32. In one float16 vector with log p = -1e-4 and
  -12.3, the digits that matter for confidences are lost. It is only K numbers per tick.
- Mean and variance in LayerNormalization are float32 by the definition of ONNX (`stash_type` 1).

The softmax of attention needs no exception: its arguments are at most MASKED * 2 = -2e4 in size, and its result is in
0..1.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edge_hal.errors import EdgeHalError
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid
from edge_hal.model.step import LevelStep

HALF_LIMIT = 65504.0


class FrontEndInFloat32(nn.Module):
    """A front end that computes in float32. Its state, and its features for the pyramid, are float16."""

    def __init__(self, front_end: FrontEnd) -> None:
        super().__init__()
        self.inner = copy.deepcopy(front_end).float()

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return tuple(made.half() for made in self.inner.step(x, *(state.float() for state in states)))


class ResultInFloat32(nn.Module):
    """A float16 layer whose result is converted to float32."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result.float()


def half_step(pyramid: Pyramid, front_end: FrontEnd, level: int, chunk: int) -> LevelStep:
    """`LevelStep` in float16. The vectors `x` and the outputs of the heads are float32, all other inputs and outputs
    (state, `bin`, `held`, `trunk`, `fused`) float16. The given modules are not changed."""
    step = copy.deepcopy(LevelStep(pyramid, front_end, level, chunk)).half().eval()
    if step.front_end is not None:
        step.add_module("front_end", FrontEndInFloat32(front_end))
    for name in ("frame", "change", "lagged", "action"):
        if hasattr(step.level, name):
            setattr(step.level, name, ResultInFloat32(getattr(step.level, name)))
    return step


def input_type(name: str, precision: str) -> torch.dtype:
    """The type of an input or state of a step graph."""
    return torch.float16 if precision == "fp16" and name != "x" else torch.float32


def half_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 encoder graph that computes in float16. Its output stays float32.

    Raises:
        EdgeHalError: a weight exceeds the range of float16, or the graph cannot be converted.
    """
    copy_ = onnx.ModelProto()
    copy_.CopyFrom(model)
    graph = copy_.graph
    keep = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    for entry in graph.initializer:
        if entry.data_type == TensorProto.FLOAT and entry.name not in keep:
            entry.CopyFrom(numpy_helper.from_array(_halved(entry, entry.name), entry.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(_halved(attribute.t, node.name), attribute.t.name))
    del graph.value_info[:]
    for output in graph.output:
        for node in graph.node:
            for index, name in enumerate(node.output):
                if name == output.name:
                    node.output[index] = f"{name}.half"
        cast, half = f"{output.name}.cast", f"{output.name}.half"
        graph.node.append(helper.make_node("Cast", [half], [output.name], cast, to=TensorProto.FLOAT))
    try:
        onnx.checker.check_model(copy_, full_check=True)
    except Exception as error:  # onnx raises protobuf's and its own types
        reason = str(error).splitlines()[0]
        raise EdgeHalError("the encoder cannot be cast to float16", reason, "--precision fp32") from error
    return copy_


def _halved(tensor: onnx.TensorProto, name: str) -> NDArray[np.float16]:
    value = numpy_helper.to_array(tensor)
    if np.abs(value).max(initial=0.0) > HALF_LIMIT:
        raise EdgeHalError(f"the encoder's {name} does not fit float16", f"it reaches {np.abs(value).max():.3g}")
    return np.asarray(value, np.float16)
