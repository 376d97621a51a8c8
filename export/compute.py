"""Multiply-adds of a bundle, counted in its graphs, so that the count cannot differ from the model."""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from edge_hal.bundle import encoder_name, graph_name
from edge_hal.errors import EdgeHalError
from edge_hal.spec import PyramidSpec

COUNTED = ("Gemm", "MatMul", "MatMulInteger", "Conv")


def multiply_adds(folder: Path, spec: PyramidSpec, precision: str) -> dict[str, int]:
    """Multiply-adds per tick of each level (`level0`, ...) and of the encoder, and their sum as `tick`.

    Of a level that steps every n ticks, 1/n of a step is counted, rounded. Matrix products and convolutions are
    counted, elementwise operations are not.
    """
    counts = {
        f"level{level}": round(of_graph(folder / graph_name(level, 1, precision)) / spec.period(level))
        for level in range(len(spec.levels))
    }
    if spec.encoder is not None:
        counts["encoder"] = of_graph(folder / encoder_name(precision))
    return {**counts, "tick": sum(counts.values())}


def of_graph(path: Path) -> int:
    """Multiply-adds of one run of a graph with static shapes."""
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True).graph
        shapes = {entry.name: tuple(entry.dims) for entry in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        return sum(_of_node(node, shapes) for node in graph.node if node.op_type in COUNTED)
    except (onnx.shape_inference.InferenceError, KeyError) as error:
        raise EdgeHalError(f"cannot tell the shapes in {path.name}", str(error)) from error


def _of_node(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(second[1:])
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(out) * first[0 if turned else -1]
