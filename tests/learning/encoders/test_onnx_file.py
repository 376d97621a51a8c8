"""Encoders of a user as ONNX files: layout, normalisation, shapes, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_hal.bundle.load import OUTSIDE
from edge_hal.config import Encoder
from edge_hal.errors import EdgeHalError
from edge_hal.export.lint import lint_encoder
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.learning.encoders.pretrained import PretrainedEncoder
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.spec import EncoderSpec

pytest.importorskip("torch")

H, W, D = 6, 9, 5
PICTURES = np.random.default_rng(1).integers(0, 256, (4, H, W, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(2).normal(size=(3, D)).astype(np.float32)
Shape = list[Any]


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: Shape,
    out: Shape,
    constants: dict[str, NDArray[Any]],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    notes: dict[str, str] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, notes or {})
    onnx.save(model, path)
    return path


def mean_net(path: Path, shape: Shape, out: Shape = [1, D], axes: tuple[int, int] = (2, 3), **how: Any) -> Path:  # noqa: B006
    """The mean colour times WEIGHTS."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=list(axes), keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["features"]),
    ]
    return write(path, nodes, shape, out, {"weights": WEIGHTS}, **how)


def opened(path: Path, **keys: Any) -> PretrainedEncoder:
    return open_pretrained(Encoder(kind=f"onnx:{path}", **keys))


def vectors(encoder: PretrainedEncoder, folder: Path) -> NDArray[np.float32]:
    out = folder / "encoder.onnx"
    encoder.write(out)
    lint_encoder(onnx.load(out), encoder.spec, out.name)
    return encode_pictures(out, PICTURES)


def refused(path: Path, **keys: Any) -> EdgeHalError:
    with pytest.raises(EdgeHalError) as error:
        opened(path, **keys)
    assert path.name in str(error.value) or keys
    return error.value


@pytest.mark.parametrize(("shape", "axes"), [([1, 3, H, W], (2, 3)), ([1, H, W, 3], (1, 2))])
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_layout_channels_and_normalisation_are_in_the_graph(
    shape: Shape, axes: tuple[int, int], channels: str, tmp_path: Path
) -> None:
    mean, std = (123.0, 117.0, 104.0), (58.0, 57.0, 59.0)
    encoder = opened(mean_net(tmp_path / "n.onnx", shape, axes=axes), channels=channels, mean=mean, std=std)
    assert encoder.spec == EncoderSpec(H, W, D)
    seen = PICTURES[..., ::-1] if channels == "rgb" else PICTURES
    expected = ((seen.astype(np.float64) - mean) / std).mean((1, 2)) @ WEIGHTS
    np.testing.assert_allclose(vectors(encoder, tmp_path), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [[1, 3, H, W], [1, H, W, 3]])
def test_a_feature_map_is_averaged(shape: Shape, tmp_path: Path) -> None:
    path = write(tmp_path / "n.onnx", [helper.make_node("Relu", ["pixels"], ["features"])], shape, shape, {})
    encoder = opened(path, channels="bgr")
    np.testing.assert_allclose(vectors(encoder, tmp_path), PICTURES.mean((1, 2)), rtol=1e-4)


def test_a_graph_for_pictures_is_taken_as_it_is(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "Cast", ["pixels"], ["image"], to=TensorProto.FLOAT
        ),  # a name of ours, in the middle of theirs
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0, 1], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["features"]),
    ]
    nodes[0].doc_string = "/home/somebody/net.py"
    constants = {"weights": WEIGHTS, "shape": np.array([1, 3])}
    path = write(tmp_path / "n.onnx", nodes, [H, W, 3], [1, D], constants, kind=TensorProto.UINT8,
                 notes={"licence": "ours"})  # fmt: skip
    encoder = opened(path)
    assert encoder.licence == "ours"
    np.testing.assert_allclose(vectors(encoder, tmp_path), PICTURES.mean((1, 2)) @ WEIGHTS, rtol=1e-4)
    assert b"somebody" not in (tmp_path / "encoder.onnx").read_bytes()


def test_a_symbolic_output_of_a_static_graph_is_no_dynamic_axis(tmp_path: Path) -> None:
    encoder = opened(mean_net(tmp_path / "n.onnx", [1, 3, H, W], ["batch", "features"]))
    assert encoder.spec.size == D and len(vectors(encoder, tmp_path)) == len(PICTURES)


def test_a_dynamic_axis_is_refused_and_named(tmp_path: Path) -> None:
    error = refused(mean_net(tmp_path / "n.onnx", ["batch", 3, H, W], ["batch", D]))
    assert "dynamic axis" in error.what and "'pixels': batch" in error.why and "make_dynamic" in error.todo


def test_a_wrong_layout_is_noticed_and_the_right_one_named(tmp_path: Path) -> None:
    path = mean_net(tmp_path / "n.onnx", [1, H, W, 3], axes=(1, 2))
    error = refused(path, layout="NCHW")
    assert "layout" in error.what and "model.encoder.layout=NHWC" in error.todo
    assert opened(path, layout="NHWC").spec == EncoderSpec(H, W, D)
    both = mean_net(tmp_path / "both.onnx", [1, 3, W, 3])
    assert "not clear" in refused(both).what
    assert opened(both, layout="NCHW").spec == EncoderSpec(W, 3, D)


def test_the_probe_refuses_useless_vectors(tmp_path: Path) -> None:
    zero = [helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["features"])]  # fmt: skip
    same = write(tmp_path / "z.onnx", zero, [1, 3, H, W], [1, 3], {"zero": np.zeros(1, np.float32)})
    assert "same vector for all pictures" in refused(same).what
    broken = write(tmp_path / "i.onnx", zero, [1, 3, H, W], [1, 3], {"zero": np.full(1, np.inf, np.float32)})
    assert "not finite" in refused(broken).what


@pytest.mark.parametrize(
    ("shape", "out", "kind", "told"),
    [
        ([1, 1, H, W], [1, 1], TensorProto.FLOAT, "three channels"),
        ([2, 3, H, W], [2, 3], TensorProto.FLOAT, "float32 (1, 3, H, W)"),
        ([1, 3, H, W], [1, 3], TensorProto.DOUBLE, "float32 (1, 3, H, W)"),
    ],
)
def test_other_inputs_are_refused(shape: Shape, out: Shape, kind: int, told: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Cast", ["mean"], ["features"], to=TensorProto.FLOAT),
    ]
    error = refused(write(tmp_path / "n.onnx", nodes, shape, out, {}, kind=kind))
    assert told in error.why + error.todo


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("pictures", [True, False])
def test_vectors_that_are_not_float32_are_refused(kind: int, pictures: bool, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0, 1] if pictures else [2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["row"]),
        helper.make_node("Cast", ["row"], ["features"], to=kind),
    ]
    shape, source = ([H, W, 3], TensorProto.UINT8) if pictures else ([1, 3, H, W], TensorProto.FLOAT)
    constants: dict[str, NDArray[Any]] = {"shape": np.array([1, 3])}
    path = write(tmp_path / "n.onnx", nodes, shape, [1, 3], constants, kind=source)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = kind
    onnx.save(model, path)
    error = refused(path)
    assert f"it gives {TensorProto.DataType.Name(kind).lower()}" in error.what and "float32" in error.why


def test_only_a_name_that_a_bundle_takes_for_a_file_is_refused(tmp_path: Path) -> None:
    path = mean_net(tmp_path / "n.onnx", [1, 3, H, W])
    for name, allowed in (("/allocation/Cast", True), ("location.1", True), ("location", False)):
        model = onnx.load(path)
        model.graph.node[0].name = name
        onnx.save(model, path)
        if allowed:
            opened(path).write(tmp_path / "encoder.onnx")
            assert not OUTSIDE.search((tmp_path / "encoder.onnx").read_bytes())
        else:
            error = refused(path)
            assert "called 'location'" in error.what and "ReduceMean" in error.why


def test_numbers_for_pixels_of_0_to_1_are_noticed(tmp_path: Path) -> None:
    error = refused(mean_net(tmp_path / "n.onnx", [1, 3, H, W]), mean=(0.5,), std=(0.25,))
    assert error.exit_code == 2 and "model.encoder.std=[63.75]" in error.todo
    assert refused(mean_net(tmp_path / "n.onnx", [1, 3, H, W]), mean=(1.0, 2.0)).exit_code == 2


def test_a_file_that_is_no_graph_or_not_there_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    os.mkfifo(tmp_path / "pipe.onnx")
    told = {"text.onnx": "no ONNX file", "missing.onnx": "No such file", "pipe.onnx": "it is a pipe"}
    for name, why in told.items():
        error = refused(tmp_path / name)
        assert name in error.what and why in error.why and error.todo


def test_pictures_of_a_size_that_no_memory_holds_are_refused_before_one_is_made(tmp_path: Path) -> None:
    error = refused(mean_net(tmp_path / "n.onnx", [1, 3, 1 << 20, 1 << 20]))
    assert "1048576 x 1048576" in error.what and "4096" in error.why


def test_the_lint_is_that_of_every_graph(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["pixels"], ["shape"]),
        helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[2, 3], keepdims=0),
    ]
    error = refused(write(tmp_path / "n.onnx", nodes, [1, 3, H, W], [1, 3], {}))
    assert "Shape" in error.what and "static" in error.why
