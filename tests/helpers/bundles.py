"""A bundle whose answers are known: the label of a tick is the largest entry of its vector, the
label of a picture its strongest colour. So the events of any input can be written down
beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle, encoder_name, graph_name, write_bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.spec import EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec, TensorSpec

LABELS = ("blue", "green", "red")
STRIDE = 4
SHARP = 10.0
AT_ONCE = DecoderConfig(smooth_s=0.0, confirm_s=0.0, min_duration_s=0.0)
"""Decides at the first opportunity, which is the end of a bin."""


def known_spec(
    model_hz: float = 10.0,
    *,
    pictures: bool = False,
    lag_s: float = 0.0,
    labels: tuple[str, ...] = LABELS,
    moving: int = 0,
) -> PyramidSpec:
    return PyramidSpec(
        model_hz=model_hz,
        labels=labels,
        front_end=FrontEndSpec(size=len(LABELS), window=1),
        levels=(LevelSpec(1, 2, 4, 1, 1), LevelSpec(STRIDE, 2, 4, 1, 1)),
        encoder=EncoderSpec(16, 16, len(LABELS), moving) if pictures else None,
        lookback_s=20.0,
        lag_s=lag_s,
    )


def known_bundle(
    path: Path,
    model_hz: float = 10.0,
    *,
    pictures: bool = False,
    decoder: DecoderConfig = AT_ONCE,
    passed: bool = True,
    lag_s: float = 0.0,
    familiarity: Familiarity | None = None,
    labels: tuple[str, ...] = LABELS,
    moving: int = 0,
    aspects: object = None,
) -> Bundle:
    """With `lag_s`, what it says of a tick is meant of one so long before. `labels`: names of the entries. `moving`:
    as in `EncoderSpec`. `aspects`: what the provenance says of the pictures of training."""
    spec = known_spec(model_hz, pictures=pictures, lag_s=lag_s, labels=labels, moving=moving)

    def write(directory: Path) -> None:
        for level in range(len(spec.levels)):
            for chunk in spec.chunks(level):
                _write_level(directory / graph_name(level, chunk, "fp32"), spec, level, chunk)
        if spec.encoder is not None:
            _write_encoder(directory / encoder_name("fp32"), spec.encoder)

    certificate = {"passed": passed, "checks": [{"name": "decree", "passed": passed}]}
    provenance = {"by": "tests"} | ({} if aspects is None else {"picture_aspects": aspects})
    return write_bundle(path, spec, "fp32", decoder, provenance, write, lambda _: certificate, familiarity=familiarity)


def vectors(labels: list[int]) -> NDArray[np.float32]:
    """(T, 3): one vector for each label."""
    return np.eye(len(LABELS), dtype=np.float32)[labels]


def expected_transitions(labels: list[int]) -> list[tuple[str | None, str, int, int]]:
    """(from, to, boundary tick, decision tick) of a run of `AT_ONCE` over one label per tick."""
    found: list[tuple[str | None, str, int, int]] = []
    current: int | None = None
    for tick in range(STRIDE - 1, len(labels), STRIDE):
        if labels[tick] != current:
            boundary = 0
            if current is not None:
                boundary = tick
                while labels[boundary - 1] == labels[tick]:
                    boundary -= 1
            previous = None if current is None else LABELS[current]
            found.append((previous, LABELS[labels[tick]], boundary, tick))
            current = labels[tick]
    return found


def _write_level(path: Path, spec: PyramidSpec, level: int, chunk: int) -> None:
    from onnx import helper, numpy_helper

    width, count = spec.levels[level].width, len(spec.labels)
    source = "x" if level == 0 else "bin"
    inner = len(LABELS) if level == 0 else spec.levels[level - 1].width
    constants = {
        "axis": np.array([0], np.int64),
        "sharp": np.float32(SHARP),
        "widen": np.eye(inner, width, dtype=np.float32),
        "narrow": np.eye(inner, count, dtype=np.float32),
        "one": np.ones((inner, 1), np.float32),
    }
    nodes = [
        helper.make_node("Identity", [source], ["token"])
        if level == 0
        else helper.make_node("ReduceMean", [source, "axis"], ["token"], keepdims=1),
        helper.make_node("MatMul", ["token", "widen"], ["trunk"]),
        helper.make_node("Identity", ["trunk"], ["fused"]),
        helper.make_node("MatMul", ["token", "narrow"], ["raw"]),
        helper.make_node("Mul", ["raw", "sharp"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["frame" if level == 0 else "action"], axis=1),
        helper.make_node("MatMul", ["token", "one"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["change"]),
    ]
    states = spec.states(level)
    nodes += [helper.make_node("Identity", [s.name], [f"{s.name}.next"]) for s in states]
    graph = helper.make_graph(
        nodes,
        f"level{level}",
        [_value(tensor) for tensor in (*spec.inputs(level, chunk), *states)],
        [_value(tensor) for tensor in spec.outputs(level, chunk)] + [_value(tensor, ".next") for tensor in states],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    _save(graph, path)


def _write_encoder(path: Path, spec: EncoderSpec) -> None:
    """The mean of each colour, 0..1."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["vector"]),
    ]
    constants = {
        "scale": np.float32(1 / 255),
        "axes": np.array([0, 1], np.int64),
        "shape": np.array([1, spec.size], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, spec.image.shape)],
        [_value(spec.vector)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    _save(graph, path)


def _value(tensor: TensorSpec, suffix: str = "") -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(tensor.name + suffix, TensorProto.FLOAT, tensor.shape)


def _save(graph: Any, path: Path) -> None:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
