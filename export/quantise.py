"""Linear layers and convolutions of a float graph in 8 bits, expressed in the graph. Other nodes are not changed.

*Static* (TensorRT): explicit QuantizeLinear / DequantizeLinear at the input of the layer, and weights stored as int8
with a DequantizeLinear. Quantisation is symmetric with zero points 0, weights per output channel, inputs per tensor;
TensorRT from 10.3 on reads this as int8. Biases stay float, because TensorRT refuses an int32 DequantizeLinear.

*Dynamic* (ONNX Runtime on CPUs): the scale of the input is computed at each step (DynamicQuantizeLinear,
MatMulInteger), so no calibration is needed. Weights have 7 bits: x86 without VNNI adds pairs of u8 x s8 products in 16
bits, which `255 * 127 * 2` exceeds and `255 * 64 * 2` does not. With 8 bits an older CPU would compute other numbers.
The rows of a chunk are quantised separately. A common scale would let a tick depend on later ones, and chunk sizes
would change the result.

A *layer* has the name of the initializer of its weights, which is the same in the graphs of all chunk sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_hal.errors import EdgeHalError

INT8_MAX = 127
DYNAMIC_MAX = 64
SMALLEST_SCALE = 2.0**-14
"""The smallest normal float16, so that a scale keeps its precision in a float16 graph."""
HEADS = ("frame", "change", "lagged", "action")


def layers_of(model: onnx.ModelProto, prefix: str) -> dict[str, str]:
    """The layers that may be quantised: name -> the tensor that enters it.

    Gemm and Conv with constant weights. Excluded are the heads, whose errors are errors of the output, and the first
    convolution of a graph, which reads pixels and is small.

    Args:
        prefix: of the names of the layers of this graph: `l0`, ... or `encoder`.
    """
    found = {}
    for node in _layers(model):
        name = _name(node)
        if name.split(".")[0] not in HEADS:
            found[f"{prefix}.{name}"] = node.input[0]
    convolutions = [f"{prefix}.{_name(node)}" for node in _layers(model) if node.op_type == "Conv"]
    return {name: tensor for name, tensor in found.items() if name not in convolutions[:1]}


def quantise_static(model: onnx.ModelProto, prefix: str, ranges: Mapping[str, float]) -> onnx.ModelProto:
    """A copy with explicit Q/DQ on the layers named in `ranges`: layer -> the largest magnitude of its input
    that int8 represents.

    Raises:
        EdgeHalError: the graph does not have a layer.
    """
    copy, weights = _copied(model, prefix, ranges)
    shared: dict[tuple[str, float], str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        layer = f"{prefix}.{_name(node)}" if _is_layer(node, weights) else ""
        if layer in ranges:
            weight = weights[node.input[1]]
            dtype = weight.dtype
            scale = float(np.asarray(max(ranges[layer] / INT8_MAX, SMALLEST_SCALE), dtype))
            key = (node.input[0], scale)
            if key not in shared:  # layers that read the same tensor share one Q/DQ
                shared[key] = _quantise_input(copy, nodes, layer, node.input[0], scale, dtype)
            node.input[0] = shared[key]
            node.input[1] = _quantise_weight(copy, nodes, layer, weight, _channel_axis(node))
        nodes.append(node)
    return _finished(copy, nodes)


def quantise_dynamic(model: onnx.ModelProto, prefix: str, layers: Collection[str]) -> onnx.ModelProto:
    """A copy with the named Gemm layers as MatMulInteger; their inputs are quantised at each step.

    Raises:
        EdgeHalError: the graph does not have one of them as a Gemm.
    """
    copy, weights = _copied(model, prefix, layers)
    rows = _rows(model)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        layer = f"{prefix}.{_name(node)}" if _is_layer(node, weights) else ""
        if layer not in layers:
            nodes.append(node)
            continue
        if node.op_type != "Gemm":
            raise EdgeHalError(f"{layer} cannot be quantised dynamically", f"it is a {node.op_type}")
        weight = weights[node.input[1]]
        values = weight.T if _attribute(node, "transB") else weight
        scale = np.maximum(np.abs(values).max(axis=0) / DYNAMIC_MAX, SMALLEST_SCALE).astype(np.float32)
        stored = np.clip(np.round(values / scale), -DYNAMIC_MAX, DYNAMIC_MAX).astype(np.int8)
        copy.graph.initializer.append(numpy_helper.from_array(stored, f"{layer}.int8"))
        copy.graph.initializer.append(numpy_helper.from_array(scale, f"{layer}.scale"))
        parts = [node.input[0]]
        if rows[node.input[0]] > 1:
            parts = [f"{layer}.row{i}" for i in range(rows[node.input[0]])]
            split = helper.make_node("Split", [node.input[0]], parts, f"{layer}.split", num_outputs=len(parts))
            nodes.append(split)  # along axis 0, the default
        biased = len(node.input) > 2
        product = f"{layer}.product" if biased else node.output[0]
        outs = [product] if len(parts) == 1 else [f"{part}.out" for part in parts]
        for part, out in zip(parts, outs, strict=True):
            _dynamic_row(nodes, layer, part, out)
        if len(parts) > 1:
            nodes.append(helper.make_node("Concat", outs, [product], f"{layer}.concat", axis=0))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output), f"{layer}.bias"))
    return _finished(copy, nodes)


def quantised_layers(model: onnx.ModelProto) -> dict[str, NDArray[np.floating]]:
    """The quantised layers of a graph and their dequantised weights, in the layout of the float graph."""
    weights, nodes = _weights(model), {node.name for node in model.graph.node}
    found = {}
    for name, stored in weights.items():
        if name.endswith(".int8") and stored.dtype == np.int8:
            layer = name.removesuffix(".int8")
            scale = weights[f"{layer}.scale"].astype(np.float64)
            dynamic = any(node.startswith(f"{layer}.dynamic.") for node in nodes)
            shape = (-1, *[1] * (stored.ndim - 1))
            found[layer] = (stored * scale).T if dynamic else stored * scale.reshape(shape)
    return found


def _copied(
    model: onnx.ModelProto, prefix: str, layers: Collection[str]
) -> tuple[onnx.ModelProto, dict[str, NDArray[np.floating]]]:
    unknown = sorted(set(layers) - set(layers_of(model, prefix)))
    if unknown:
        raise EdgeHalError(f"the graph {prefix} has no layer {unknown[0]}", "", "calibrate again")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, _weights(copy)


def _weights(model: onnx.ModelProto) -> dict[str, NDArray[np.floating]]:
    return {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}


def _layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {entry.name for entry in model.graph.initializer}
    return [node for node in model.graph.node if _is_layer(node, constants)]


def _is_layer(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    return node.op_type in ("Gemm", "Conv") and node.input[1] in constants


def _name(node: onnx.NodeProto) -> str:
    """`level.blocks.0.qkv.weight` -> `blocks.0.qkv`, also in float16 graphs, whose heads are wrapped."""
    weight: str = node.input[1]
    return weight.removesuffix(".weight").removesuffix(".inner").removeprefix("level.")


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((entry.i for entry in node.attribute if entry.name == name), 0)


def _channel_axis(node: onnx.NodeProto) -> int:
    return 0 if node.op_type == "Conv" or _attribute(node, "transB") else 1


def _rows(model: onnx.ModelProto) -> dict[str, int]:
    """The length of each tensor's first axis."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name: v.type.tensor_type.shape.dim[0].dim_value for v in values if v.type.tensor_type.shape.dim}


def _dynamic_row(nodes: list[onnx.NodeProto], layer: str, row: str, out: str) -> None:
    """Append nodes for `out` = `row` times the weights of the layer, with the scale of this row."""
    name = f"{layer}.dynamic.{out}"
    q, s, z, product, real, factor = (f"{name}.{part}" for part in ("q", "s", "z", "int", "real", "factor"))
    nodes += [
        helper.make_node("DynamicQuantizeLinear", [row], [q, s, z], f"{name}.quantize"),
        helper.make_node("MatMulInteger", [q, f"{layer}.int8", z], [product], f"{name}.matmul"),
        helper.make_node("Cast", [product], [real], f"{name}.cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [s, f"{layer}.scale"], [factor], f"{name}.factor"),
        helper.make_node("Mul", [real, factor], [out], f"{name}.rescale"),
    ]


def _quantise_input(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], layer: str, tensor: str, scale: float, dtype: np.dtype
) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, dtype), f"{layer}.x.scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{layer}.x.zero"))
    pair = [f"{layer}.x.scale", f"{layer}.x.zero"]
    nodes.append(helper.make_node("QuantizeLinear", [tensor, *pair], [f"{layer}.x.q"], f"{layer}.x.quantize"))
    nodes.append(helper.make_node("DequantizeLinear", [f"{layer}.x.q", *pair], [f"{layer}.x"], f"{layer}.x.dequantize"))
    return f"{layer}.x"


def _quantise_weight(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], layer: str, weight: NDArray[np.floating], axis: int
) -> str:
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=others, keepdims=True)
    scale = np.maximum(largest / INT8_MAX, SMALLEST_SCALE).astype(weight.dtype)
    stored = np.clip(np.round(weight / scale.astype(np.float64)), -INT8_MAX, INT8_MAX).astype(np.int8)
    zero = np.zeros(scale.size, np.int8)
    for name, value in (("int8", stored), ("scale", scale.reshape(-1)), ("zero", zero)):
        model.graph.initializer.append(numpy_helper.from_array(value, f"{layer}.{name}"))
    parts = [f"{layer}.int8", f"{layer}.scale", f"{layer}.zero"]
    nodes.append(helper.make_node("DequantizeLinear", parts, [f"{layer}.w"], f"{layer}.dequantize", axis=axis))
    return f"{layer}.w"


def _finished(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The graph with its new nodes, without initializers that are no longer read."""
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    used = [entry for entry in model.graph.initializer if entry.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    return model
