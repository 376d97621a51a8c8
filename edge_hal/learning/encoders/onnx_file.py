"""An encoder from an ONNX file of the user: normalisation and layout go into the graph, and a forward pass tries it.

A graph that reads uint8 BGR (H, W, 3) is taken as it is. All others read float32 (1, 3, H, W) or (1, H, W, 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_hal.bundle.load import OUTSIDE
from edge_hal.config import Encoder
from edge_hal.errors import EdgeHalError
from edge_hal.export.graphs import without_traces
from edge_hal.export.lint import lint_encoder
from edge_hal.files import check_readable, check_regular, file_error, replacing
from edge_hal.spec import EncoderSpec

from .pretrained import PretrainedEncoder

LARGEST_SIDE = 4096
PROBES = 4
FIX = "python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param NAME --dim_value 1 FILE FIXED"


def open_onnx(settings: Encoder) -> PretrainedEncoder:
    """The encoder in the file that `settings.kind` names.

    Raises:
        EdgeHalError: it is not an ONNX file, it has a dynamic axis, another layout, several inputs or an output that is
            not float32, the lint or a bundle would refuse it, or its vectors are useless (not finite, or the same for
            all pictures).
    """
    path = Path(settings.kind.partition(":")[2])
    model = _read(path)
    source, result = _ends(model, path)
    gives = TensorProto.DataType.Name(result.type.tensor_type.elem_type).lower()
    if gives != "float":
        raise _refused(path, f"it gives {gives}", "the vectors of an encoder are float32: add a Cast at its end")
    if source.type.tensor_type.elem_type == TensorProto.UINT8:
        spec = _takes_pictures(model, source, result, path)
    else:
        spec = _wrap(model, source, result, settings, path)
    model = with_static_shapes(model)
    lint_encoder(model, spec, path.name)
    _names_nothing_outside(model, path)
    _probe(model, spec, path)
    notes = {entry.key.lower(): entry.value for entry in model.metadata_props}

    def write(out: Path) -> None:
        with replacing(out) as beside:
            onnx.save(without_traces(model), beside)

    return PretrainedEncoder(settings.kind, spec, notes.get("license", notes.get("licence", "not stated")), write)


def with_static_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that follow from its inputs. A symbolic name of an output gives way to the number."""
    for value in (*model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return model


def _read(path: Path) -> onnx.ModelProto:
    what, todo = f"cannot read the encoder {path}", "give the path of an ONNX file: onnx:FILE"
    check_readable(path)
    check_regular(path, what)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise file_error(what, error, todo, path=path) from error
    except Exception as error:  # onnx raises protobuf's and its own types
        why = f"it is no ONNX file, or it is damaged ({str(error).splitlines()[0]})"
        raise EdgeHalError(what, why, todo) from error
    return with_static_shapes(model)


def _ends(model: onnx.ModelProto, path: Path) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """The only input and the only output."""
    weights = {entry.name for entry in model.graph.initializer}
    ends = ([value for value in model.graph.input if value.name not in weights], list(model.graph.output))
    for found, what in zip(ends, ("input", "output"), strict=True):
        if len(found) != 1:
            names = ", ".join(value.name for value in found) or "none"
            raise EdgeHalError(
                f"the encoder {path} must have one {what}", f"it has {names}", "export the features only"
            )
        for dim in found[0].type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                raise EdgeHalError(
                    f"the encoder {path} has a dynamic axis",
                    f"of its {what} '{found[0].name}'" + (f": {dim.dim_param}" if dim.dim_param else ""),
                    f"fix it: {FIX}",
                )
    return ends[0][0], ends[1][0]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _possible(height: int, width: int, path: Path) -> tuple[int, int]:
    """Both as they are. Raises EdgeHalError before a picture of that size is made to try the graph."""
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise _refused(path, f"it takes pictures of {width} x {height}", f"a side has 1 to {LARGEST_SIDE} pixels")
    return height, width


def _takes_pictures(
    model: onnx.ModelProto, source: onnx.ValueInfoProto, result: onnx.ValueInfoProto, path: Path
) -> EncoderSpec:
    shape, vector = _shape(source), _shape(result)
    if len(shape) != 3 or shape[2] != 3:
        raise _refused(path, f"it takes uint8 {shape}", "a graph for uint8 pictures takes (H, W, 3), blue first")
    if len(vector) != 2 or vector[0] != 1:
        raise _refused(path, f"it gives {vector}", "an encoder gives (1, D)")
    spec = EncoderSpec(*_possible(shape[0], shape[1], path), vector[1])
    _rename(model, {source.name: spec.image.name, result.name: spec.vector.name})
    return spec


def _wrap(
    model: onnx.ModelProto,
    source: onnx.ValueInfoProto,
    result: onnx.ValueInfoProto,
    settings: Encoder,
    path: Path,
) -> EncoderSpec:
    """Put layout, order of channels and normalisation before the graph, and the mean over a map after it."""
    height, width, layout = _layout(source, settings, path)
    _possible(height, width, path)
    shape, first = _shape(result), layout == "NCHW"
    if len(shape) not in (2, 4) or shape[0] != 1:
        raise _refused(path, f"it gives {shape}", "an encoder gives (1, D), or a feature map of one picture")
    size = shape[1] if first or len(shape) == 2 else shape[3]
    spec = EncoderSpec(height, width, size)
    graph = model.graph
    _rename(model, {source.name: "net.in", result.name: "net.out"})

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"picture.{name}"))
        return f"picture.{name}"

    mean, std = (_of_channels(name, getattr(settings, name)) for name in ("mean", "std"))
    before: list[onnx.NodeProto] = []
    x = spec.image.name

    def then(op: str, *inputs: str, **attributes: Any) -> None:
        nonlocal x
        out = f"picture.{len(before)}"
        before.append(helper.make_node(op, [x, *inputs], [out], out, **attributes))
        x = out

    then("Cast", to=TensorProto.FLOAT)
    if settings.channels == "rgb":
        then("Gather", constant("order", np.array([2, 1, 0])), axis=2)
    if mean.any():
        then("Sub", constant("mean", mean))
    if (std != 1).any():
        then("Div", constant("std", std))
    if first:
        then("Transpose", perm=[2, 0, 1])
    then("Reshape", constant("shape", np.array(_shape(source))))
    before[-1].output[0] = "net.in"
    after = []
    pooled = "net.out"
    if len(shape) == 4:
        if not first:
            after.append(helper.make_node("Transpose", [pooled], ["vector.map"], "vector.map", perm=[0, 3, 1, 2]))
            pooled = "vector.map"
        after.append(helper.make_node("GlobalAveragePool", [pooled], ["vector.pooled"], "vector.pooled"))
        pooled = "vector.pooled"
    after.append(helper.make_node("Reshape", [pooled, constant("size", np.array([1, size]))], ["vector"], "vector"))
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, spec.image.shape))
    graph.output.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, spec.vector.shape))
    return spec


def _layout(source: onnx.ValueInfoProto, settings: Encoder, path: Path) -> tuple[int, int, str]:
    """Height and width of the pictures, and NCHW or NHWC."""
    shape = _shape(source)
    kind = TensorProto.DataType.Name(source.type.tensor_type.elem_type).lower()
    if kind != "float" or len(shape) != 4 or shape[0] != 1:
        raise _refused(
            path,
            f"it takes {kind} {shape}",
            "an encoder takes float32 (1, 3, H, W) or (1, H, W, 3), or uint8 (H, W, 3)",
        )
    fitting = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] == 3]
    layout = settings.layout or (fitting[0] if len(fitting) == 1 else "")
    if layout not in fitting:
        why = f"its input is {shape}" + (f", which is not {layout}" if layout else "")
        todo = f"--set model.encoder.layout={fitting[0]}" if fitting else "give a graph for pictures of three channels"
        what = f"the layout of the encoder {path} is {'wrong' if layout else 'not clear'}"
        raise EdgeHalError(what, why, todo)
    return (shape[2], shape[3], layout) if layout == "NCHW" else (shape[1], shape[2], layout)


def _of_channels(name: str, values: tuple[float, ...]) -> NDArray[np.float32]:
    """(1, 1, 3), or one value for all channels. For pixels in 0..255; a smaller `std` is one for pixels in 0..1."""
    if len(values) not in (1, 3):
        raise EdgeHalError(f"model.encoder.{name}", f"{len(values)} values; give one, or one a channel", exit_code=2)
    if name == "std" and max(values) < 1:
        by_255 = ",".join(f"{255 * value:g}" for value in values)
        raise EdgeHalError(
            f"model.encoder.std={','.join(f'{value:g}' for value in values)}",
            "it is for pixels in 0..1, and pixels here are 0..255",
            f"multiply mean and std by 255: --set model.encoder.std=[{by_255}]",
            exit_code=2,
        )
    return np.asarray(values, np.float32).reshape(1, 1, -1)


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    graph = model.graph
    clash = {name for node in graph.node for name in (*node.input, *node.output)} & set(names.values()) - set(names)
    every = {**{name: f"inner.{name}" for name in clash}, **names}
    for node in graph.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = every.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = every.get(value.name, value.name)


def _names_nothing_outside(model: onnx.ModelProto, path: Path) -> None:
    """Raises EdgeHalError for a name that a bundle would take for that of a file with weights."""
    if not OUTSIDE.search(model.SerializeToString()):
        return
    word = "location"
    node = next((node for node in model.graph.node if word in (node.name, *node.input, *node.output)), None)
    where = f"in its notes or attributes: '{word}'" if node is None else f"the {node.op_type} node '{node.name}'"
    raise EdgeHalError(
        f"the encoder {path} was refused: it has a part called '{word}'",
        f"a bundle takes this for weights in another file; it is {where}",
        "rename it",
    )


def _probe(model: onnx.ModelProto, spec: EncoderSpec, path: Path) -> None:
    """Run the graph over a few pictures of noise and of one colour."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PROBES, *spec.image.shape), dtype=np.uint8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        vectors = [session.run(None, {spec.image.name: picture})[0] for picture in (*noise, np.zeros_like(noise[0]))]
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        raise EdgeHalError(f"the encoder {path} cannot run", str(error).splitlines()[0]) from error
    found = np.concatenate(vectors)
    if not np.isfinite(found).all():
        raise EdgeHalError(
            f"the encoder {path} gives numbers that are not finite", "for a picture of noise", "check mean and std"
        )
    if not found.std(axis=0).any():
        raise EdgeHalError(
            f"the encoder {path} gives the same vector for all pictures", "", "check layout, mean and std"
        )


def _refused(path: Path, what: str, why: str) -> EdgeHalError:
    return EdgeHalError(f"the encoder {path} was refused: {what}", why, "see docs/encoders.md")
