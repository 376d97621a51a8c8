"""What a graph may contain: only what ONNX Runtime and TensorRT from 10.3 on compile. Errors name the node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto, numpy_helper

from edge_hal.errors import EdgeHalError
from edge_hal.spec import EncoderSpec, PyramidSpec, TensorSpec

OPSET_LIMIT = 20
FORBIDDEN = {
    "Shape": "shapes must be static",
    "If": "control flow",
    "Loop": "control flow",
    "Scan": "control flow",
    "Attention": "not compiled in float32",
    "TensorScatter": "not in opset 20",
    "NonZero": "its shape depends on data",
}
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Mod", "Range", "CumSum", "Where", "Gather", "ScatterND"}


def lint_step_graph(model: onnx.ModelProto, spec: PyramidSpec, level: int, chunk: int, name: str) -> None:
    """Check a step graph. It must have the names and shapes of the spec, and no dynamic axes, control flow or integers.

    Raises:
        EdgeHalError: the graph is refused; names graph, node and reason.
    """
    states = spec.states(level)
    _signature(model.graph.input, [*spec.inputs(level, chunk), *states], name)
    following = [TensorSpec(f"{state.name}.next", state.shape) for state in states]
    _signature(model.graph.output, [*spec.outputs(level, chunk), *following], name)
    _nodes(model, name)


def lint_encoder(model: onnx.ModelProto, spec: EncoderSpec, name: str, *, tensorrt: bool = True) -> None:
    """Check an encoder, also one of a user: static shapes, opset, no control flow. Raises EdgeHalError.

    Args:
        tensorrt: whether TensorRT must be able to read it. A graph that is quantised for CPUs need not be.
    """
    _signature(model.graph.input, [spec.image], name)
    _signature(model.graph.output, [spec.vector], name)
    _nodes(model, name, tensorrt=tensorrt)


def _nodes(model: onnx.ModelProto, name: str, *, tensorrt: bool = True) -> None:
    for imported in model.opset_import:
        if imported.domain not in ("", "ai.onnx"):
            raise _refused(name, f"the operator domain '{imported.domain}'", "only ai.onnx compiles everywhere")
        if imported.version > OPSET_LIMIT:
            raise _refused(name, f"opset {imported.version}", f"TensorRT 10.3 reads up to {OPSET_LIMIT}")
    constants = {entry.name: entry for entry in model.graph.initializer}
    for node in model.graph.node:  # weights can also be Constant nodes
        if node.op_type == "Constant":
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    integers = {
        entry.name
        for entry in [*model.graph.value_info, *model.graph.input, *model.graph.output]
        if entry.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)
    }
    for node in model.graph.node:
        where = f"node '{node.name}' ({node.op_type})"
        if node.op_type in FORBIDDEN:
            raise _refused(name, where, FORBIDDEN[node.op_type])
        if node.op_type == "Slice" and not all(i in constants for i in node.input[1:] if i):
            raise _refused(name, where, "its bounds are not constant")
        if tensorrt and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _quantised(node, constants, name, where)
        if node.op_type in ARITHMETIC and any(i in integers for i in node.output):
            raise _refused(name, where, "integer arithmetic")


def _quantised(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], name: str, where: str) -> None:
    given = node.input[2] if len(node.input) > 2 else ""
    if not given and node.op_type == "QuantizeLinear":
        raise _refused(name, where, "its zero point is left out: ONNX takes that for uint8, TensorRT for int8")
    zero = constants.get(given)
    if given and (zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any()):
        raise _refused(name, where, "its zero point is not an int8 0; TensorRT reads symmetric int8 alone")
    stored = constants.get(node.input[0])
    if stored is not None and stored.data_type not in (TensorProto.INT8, TensorProto.FLOAT, TensorProto.FLOAT16):
        kind = TensorProto.DataType.Name(stored.data_type).lower()
        raise _refused(name, where, f"it holds {kind} (int32: a quantised bias), which TensorRT does not read")


def _signature(values: Iterable[onnx.ValueInfoProto], expected: list[TensorSpec], name: str) -> None:
    found: dict[str, tuple[int, ...]] = {}
    for value in values:
        shape = value.type.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") for dim in shape):
            raise _refused(name, f"tensor '{value.name}'", "it has a dynamic axis")
        found[value.name] = tuple(dim.dim_value for dim in shape)
    for tensor in expected:
        if found.pop(tensor.name, None) != tensor.shape:
            raise _refused(name, f"tensor '{tensor.name}'", f"it must exist with shape {tensor.shape}")
    if found:
        raise _refused(name, f"tensor '{sorted(found)[0]}'", "the table of shapes does not know it")


def _refused(graph: str, what: str, why: str) -> EdgeHalError:
    return EdgeHalError(f"the graph {graph} was refused: {what}", why, "see docs/architecture.md, Export")
