from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.onnxruntime_engine import OnnxEncoder, OnnxRuntimeEngine, open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.ring import TIME
from edge_hal.spec import MASKED, EncoderSpec, PyramidSpec
from tests.helpers.toy_pyramid import (
    NumpyEngine,
    encoder_matrix,
    numpy_engines,
    save,
    toy_bundle,
    toy_spec,
    write_encoder,
    write_level,
)

SPEC = toy_spec((4, 3))


def write(directory: Path, spec: PyramidSpec = SPEC, level: int = 0) -> dict[int, Path]:
    paths = {chunk: directory / f"level{level}.c{chunk}.onnx" for chunk in spec.chunks(level)}
    for chunk, path in paths.items():
        write_level(path, spec, level, chunk)
    return paths


def inputs(
    rng: np.random.Generator, level: int, chunk: int, spec: PyramidSpec = SPEC
) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: rng.normal(size=tensor.shape).astype(np.float32) for tensor in spec.inputs(level, chunk)}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_chunk_size_shares_one_state(tmp_path: Path, level: int) -> None:
    engine = OnnxRuntimeEngine.open(write(tmp_path, level=level), SPEC, level)
    reference = NumpyEngine(SPEC, level)
    rng = np.random.default_rng(level)
    for _ in range(60):
        given = inputs(rng, level, int(rng.choice(SPEC.chunks(level))))
        expected, found = reference.step(given), engine.step(given)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        state = engine.state()
        assert state.keys() == reference.state().keys()
        for name, value in reference.state().items():
            np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_outputs_live_until_the_next_call_but_one_whatever_lies_between(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine.open(write(tmp_path), SPEC, 0)
    rng = np.random.default_rng(0)
    chunks = rng.choice(SPEC.chunk_sizes, 40)
    previous, copies = None, None
    for number, chunk in enumerate(chunks):
        found = engine.step(inputs(rng, 0, int(chunk)))
        if previous is not None and copies is not None:
            for name, value in copies.items():
                np.testing.assert_array_equal(previous[name], value)
        previous, copies = found, {name: value.copy() for name, value in found.items()}
        if number % 7 == 3:
            engine.reset()


def test_a_step_keeps_no_input_and_has_two_sets_of_outputs(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine.open(write(tmp_path), SPEC, 0)
    given = inputs(np.random.default_rng(0), 0, 1)
    first = engine.step(given)["frame"].copy()
    given["x"].fill(np.nan)
    engine.reset()
    assert np.isfinite(engine.state()["l0.z"]).all()
    given = inputs(np.random.default_rng(0), 0, 1)
    np.testing.assert_array_equal(engine.step(given)["frame"], first)
    addresses = {engine.step(given)["frame"].ctypes.data for _ in range(9)}
    assert len(addresses) == 2


def test_a_step_allocates_less_than_its_smallest_cache(tmp_path: Path) -> None:
    spec = toy_spec((4, 3), window=96)
    engine = OnnxRuntimeEngine.open(write(tmp_path, spec), spec, 0)
    given = inputs(np.random.default_rng(0), 0, 1, spec)
    tracemalloc.start()
    for _ in range(300):  # the interpreter's own caches settle
        engine.step(given)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(300):
        engine.step(given)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert engine.state()["l0.b0.k"].nbytes > 3000
    assert peak - before < 1500 and now - before < 500


def test_state_starts_from_what_the_spec_declares_and_is_handed_out_as_copies(
    tmp_path: Path,
) -> None:
    engine = OnnxRuntimeEngine.open(write(tmp_path), SPEC, 0)
    fresh = engine.state()
    assert (fresh["l0.valid"] == MASKED).all() and not fresh["l0.b0.k"].any() and not fresh["l0.z"].any()
    assert [(name, value.shape) for name, value in fresh.items()] == [
        (tensor.name, tensor.shape) for tensor in SPEC.states(0)
    ]
    fresh["l0.z"].fill(5)
    rng = np.random.default_rng(0)
    for steps in (1, 2):  # both roles
        for _ in range(steps):
            engine.step(inputs(rng, 0, 2))
        assert (engine.state()["l0.valid"][0, -2:] == 0).all()
        engine.reset()
        again = engine.state()
        assert (again["l0.valid"] == MASKED).all() and not again["l0.b0.k"].any() and not again["l0.z"].any()


def test_open_engines_streams_like_the_reference(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", SPEC)
    stream = PyramidStream(SPEC, open_engines(bundle))
    reference = PyramidStream(SPEC, numpy_engines(SPEC))
    x = np.random.default_rng(3).normal(size=(203, 5)).astype(np.float32)
    for done in range(0, 203, 7):
        stream.push(x[done : done + 7], range(done, min(203, done + 7)))
    reference.push(x, range(203))
    for level in range(3):
        for name in (*(tensor.name for tensor in SPEC.outputs(level)), TIME):
            np.testing.assert_allclose(
                stream.ring.last(level, name, 999),
                reference.ring.last(level, name, 999),
                rtol=1e-4,
                atol=1e-5,
            )


def test_a_wrong_input_is_refused_not_broadcast(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine.open(write(tmp_path), SPEC, 0)
    given = inputs(np.random.default_rng(0), 0, 1)
    with pytest.raises(EdgeHalError, match="no step graph takes 3 ticks"):
        engine.step({**given, "x": np.zeros((3, 5), np.float32)})
    with pytest.raises(EdgeHalError, match="input x"):
        engine.step({**given, "x": np.zeros((1, 1), np.float32)})
    with pytest.raises(EdgeHalError, match="input held"):
        engine.step({**given, "held": np.zeros(8, np.float32)})


# --- graphs that do not fit ---------------------------------------------------------------------


def edited(path: Path, edit: Callable[[Any], None]) -> None:
    import onnx

    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())


def renamed(old: str, new: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        for tensor in (*model.graph.input, *model.graph.output):
            tensor.name = new if tensor.name == old else tensor.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = new if name == old else name

    return edit


@pytest.mark.parametrize("old", ["x", "held", "l0.b0.k", "trunk", "frame", "l0.valid.next"])
def test_a_wrong_name_is_told_with_graph_and_tensor(tmp_path: Path, old: str) -> None:
    paths = write(tmp_path)
    edited(paths[2], renamed(old, "zz"))
    with pytest.raises(EdgeHalError, match=rf"level0\.c2\.onnx: tensor {old} does not fit"):
        OnnxRuntimeEngine.open(paths, SPEC, 0)


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ({"window": 5}, "l0.valid"),
        ({"heads": 4}, "l0.b0.k"),
        ({"width": 16}, "l0.b0.k"),
        ({"blocks": 2}, "l0.b1.k"),
    ],
)
def test_a_wrong_shape_is_told_with_graph_and_tensor(tmp_path: Path, change: dict[str, int], tensor: str) -> None:
    paths = write(tmp_path)
    level = dataclasses.replace(SPEC.levels[0], **change)
    spec = dataclasses.replace(SPEC, levels=(level, *SPEC.levels[1:]))
    with pytest.raises(EdgeHalError, match=rf"level0\.c1\.onnx: tensor {tensor} does not fit"):
        OnnxRuntimeEngine.open(paths, spec, 0)


def to_half(model: Any) -> None:
    """The same graph in float16, inputs, outputs and state included."""
    from onnx import TensorProto, numpy_helper

    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    for index, constant in enumerate(model.graph.initializer):
        value = numpy_helper.to_array(constant)
        if value.dtype == np.float32:
            half = numpy_helper.from_array(value.astype(np.float16), constant.name)
            model.graph.initializer[index].CopyFrom(half)


def test_types_come_from_the_graph(tmp_path: Path) -> None:
    paths = write(tmp_path)
    for path in paths.values():
        edited(path, to_half)
    engine, reference = OnnxRuntimeEngine.open(paths, SPEC, 0), NumpyEngine(SPEC, 0)
    rng = np.random.default_rng(0)
    for chunk in (1, 4, 2, 1, 4):
        given = inputs(rng, 0, chunk)
        found, expected = engine.step(given), reference.step(given)
        assert found["frame"].dtype == np.float16
        np.testing.assert_allclose(found["frame"], expected["frame"], atol=0.02)
    assert engine.state()["l0.b0.k"].dtype == np.float16


def test_graphs_of_two_types_cannot_share_a_state(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edited(paths[4], to_half)
    with pytest.raises(EdgeHalError, match=r"level0\.c4\.onnx: tensor l0\.z .*not float32"):
        OnnxRuntimeEngine.open(paths, SPEC, 0)


def test_a_type_nobody_computes_in_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    path = tmp_path / "encoder.onnx"
    spec = EncoderSpec(height=2, width=2, size=3)
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["vector"], value_floats=[1.0, 2.0, 3.0])],
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (2, 2, 3))],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, (3,))],
    )
    import onnx

    save(onnx, helper, graph, path)
    with pytest.raises(EdgeHalError, match=r"encoder\.onnx: tensor image .*tensor\(float\), not tensor\(uint8\)"):
        OnnxEncoder.open(path, spec)


@pytest.mark.parametrize("how", ["noise", "truncated", "empty", "missing", "directory"])
def test_a_file_that_is_no_graph_is_one_clear_error(tmp_path: Path, how: str) -> None:
    paths = write(tmp_path)
    data = paths[1].read_bytes()
    paths[1].unlink()
    if how == "directory":
        paths[1].mkdir()
    elif how != "missing":
        noise = np.random.default_rng(0).bytes(500)
        paths[1].write_bytes({"noise": noise, "truncated": data[: len(data) // 2], "empty": b""}[how])
    with pytest.raises(EdgeHalError, match=r"level0\.c1\.onnx") as caught:
        OnnxRuntimeEngine.open(paths, SPEC, 0)
    assert "edge-hal export" in str(caught.value)


# --- the encoder --------------------------------------------------------------------------------


def test_the_encoder_gives_one_vector_a_picture(tmp_path: Path) -> None:
    spec = EncoderSpec(height=6, width=9, size=5)
    write_encoder(tmp_path / "encoder.onnx", spec)
    encoder = OnnxEncoder.open(tmp_path / "encoder.onnx", spec)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 6, 9, 3), dtype=np.uint8)
    vectors = [encoder.encode(picture) for picture in pictures]
    for picture, vector in zip(pictures, vectors, strict=True):  # all three still hold: they are copies
        expected = (picture / 255).mean(axis=1).reshape(-1) @ encoder_matrix(spec)
        assert vector.shape == (5,) and vector.dtype == np.float32
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    flipped = encoder.encode(pictures[0][:, ::-1])  # not contiguous; the mean over columns is the same
    np.testing.assert_allclose(flipped, vectors[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8, 3), (6, 9), (6, 9, 4), (6, 9, 1)])
def test_a_picture_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    spec = EncoderSpec(height=6, width=9, size=5)
    write_encoder(tmp_path / "encoder.onnx", spec)
    encoder = OnnxEncoder.open(tmp_path / "encoder.onnx", spec)
    with pytest.raises(EdgeHalError, match="it takes uint8"):
        encoder.encode(np.zeros(shape, np.uint8))
    with pytest.raises(EdgeHalError, match="type float32"):
        encoder.encode(np.zeros((6, 9, 3), np.float32))
    with pytest.raises(EdgeHalError, match=r"encoder\.onnx: tensor vector .*shape"):
        OnnxEncoder.open(tmp_path / "encoder.onnx", dataclasses.replace(spec, size=6))
