"""A small real pyramid for runtime tests: at each level a causal sliding mean of linear keys, with
the states, inputs and outputs of the spec. Once in numpy (any chunk), once as ONNX step graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle, graph_name, write_bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.runtime.engines.engine import Engines
from edge_hal.spec import EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec

Array = NDArray[Any]


def toy_spec(
    strides: tuple[int, ...] = (4, 3),
    *,
    size: int = 5,
    labels: int = 3,
    window: int = 6,
    model_hz: float = 10.0,
    lookback_s: float = 2.0,
    encoder: EncoderSpec | None = None,
    lag_s: float = 0.0,
    other_lags_s: tuple[float, ...] = (),
) -> PyramidSpec:
    return PyramidSpec(
        model_hz=model_hz,
        labels=tuple("abcdefgh"[:labels]),
        front_end=FrontEndSpec(size=size, window=3),
        levels=tuple(LevelSpec(stride, window, 8, 2, 1) for stride in (1, *strides)),
        encoder=encoder,
        lookback_s=lookback_s,
        lag_s=lag_s,
        other_lags_s=other_lags_s,
    )


def weights(spec: PyramidSpec, level: int) -> dict[str, NDArray[np.float32]]:
    """Random, fixed by the level: `in` maps the input to the width, the others map the width."""
    rng = np.random.default_rng(100 + level)
    width, count = spec.levels[level].width, len(spec.labels)
    if level == 0:
        into = rng.normal(size=(spec.front_end.size, width))
    else:
        into = rng.normal(size=(spec.levels[level - 1].width, width))
    above = spec.levels[level + 1].width if level < spec.top else 1
    shapes = {"held": (above, width), "labels": (width, count), "change": (width, 1)}
    if level == 0 and spec.other_lags_s:
        shapes["lagged"] = (width, count * len(spec.other_lags_s))
    made = {"in": into, **{name: rng.normal(size=shape) for name, shape in shapes.items()}}
    return {name: np.float32(value / math.sqrt(len(value))) for name, value in made.items()}


def band(window: int, chunk: int) -> NDArray[np.float32]:
    """(chunk, window - 1 + chunk): token c averages the `window` newest keys up to itself."""
    matrix = np.zeros((chunk, window - 1 + chunk), np.float32)
    for token in range(chunk):
        matrix[token, token : token + window] = 1 / window
    return matrix


class NumpyEngine:
    """`StepEngine` in numpy. `fed` records what every step was given."""

    def __init__(self, spec: PyramidSpec, level: int) -> None:
        self.spec, self.level, self.weights = spec, level, weights(spec, level)
        self.fed: list[dict[str, Array]] = []
        self.reset()

    def reset(self) -> None:
        self._state = {
            tensor.name: np.full(tensor.shape, tensor.fill, np.float32) for tensor in self.spec.states(self.level)
        }

    def state(self) -> dict[str, Array]:
        return {name: value.copy() for name, value in self._state.items()}

    def step(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.fed.append({name: np.array(value) for name, value in inputs.items()})
        spec, level, weight = self.spec, self.level, self.weights
        entry = spec.levels[level]
        if level == 0:
            token = inputs["x"]
            self._slide(f"l{level}.z", token, axis=0)
            self._slide(f"l{level}.n", np.ones((len(token), 1), np.float32), axis=0)
        else:
            token = inputs["bin"].mean(axis=0, keepdims=True)
        chunk = len(token)
        keys = (token @ weight["in"]).reshape(chunk, entry.heads, -1).transpose(1, 0, 2)
        both = self._slide(f"l{level}.b0.k", keys, axis=1)
        self._slide(f"l{level}.b0.v", -keys, axis=1)
        self._slide(f"l{level}.valid", np.zeros((1, chunk), np.float32), axis=1)
        mixed = (band(entry.window, chunk) @ both).transpose(1, 0, 2).reshape(chunk, entry.width)
        trunk = np.tanh(mixed)
        fused = trunk if level == spec.top else trunk + inputs["held"] @ weight["held"]
        made = {"trunk": trunk, "fused": fused}
        made["frame"] = made["action"] = log_softmax(fused @ weight["labels"])
        if "lagged" in weight:
            heads = (fused @ weight["lagged"]).reshape(-1, len(spec.labels))
            made["lagged"] = log_softmax(heads).reshape(chunk, -1)
        made["change"] = 1 / (1 + np.exp(-fused @ weight["change"]))
        return {tensor.name: made[tensor.name] for tensor in spec.outputs(level, chunk)}

    def _slide(self, name: str, new: Array, axis: int) -> Array:
        both = np.concatenate([self._state[name], new], axis=axis)
        size = self._state[name].shape[axis]
        self._state[name] = both[-size:] if axis == 0 else both[:, -size:]
        return both


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    made: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return made


class NumpyModel:
    """`OpenedModel` in numpy. Its streams share nothing that changes."""

    kind = "numpy"
    why = "a toy"
    opens_in_background = True

    def __init__(self, spec: PyramidSpec) -> None:
        self._spec = spec

    def open_stream(self) -> Engines:
        return Engines(self, numpy_engines(self._spec), None)

    def close(self) -> None:
        pass


def numpy_engines(spec: PyramidSpec) -> list[NumpyEngine]:
    return [NumpyEngine(spec, level) for level in range(len(spec.levels))]


def write_level(path: Path, spec: PyramidSpec, level: int, chunk: int) -> None:
    """The step graph of one level, arithmetic as in `NumpyEngine`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    entry, weight = spec.levels[level], weights(spec, level)
    depth = entry.width // entry.heads
    nodes: list[Any] = []
    constants: dict[str, Array] = {f"w.{name}": value for name, value in weight.items()}

    def op(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(name: str, value: Array) -> str:
        constants[name] = value
        return name

    def slide(state: str, new: str, axis: int, length: int) -> str:
        both = op("Concat", [state, new], f"{state}.both", axis=axis)
        bounds = [
            constant(f"{state}.{what}", np.array([value], np.int64))
            for what, value in (("start", chunk), ("stop", chunk + length), ("axis", axis))
        ]
        op("Slice", [both, *bounds], f"{state}.next")
        return both

    name, history, past = f"l{level}", spec.front_end.history, entry.window - 1
    if level == 0:
        token = "x"
        slide(f"{name}.z", "x", 0, history)
        slide(f"{name}.n", constant("there", np.ones((chunk, 1), np.float32)), 0, history)
    else:
        rows = constant("rows", np.array([0], np.int64))
        token = op("ReduceMean", ["bin", rows], "token", keepdims=1)
    flat = op("MatMul", [token, "w.in"], "flat")
    shape = constant("split", np.array([chunk, entry.heads, depth], np.int64))
    keys = op("Transpose", [op("Reshape", [flat, shape], "heads")], "keys", perm=[1, 0, 2])
    slide(f"{name}.b0.v", op("Neg", [keys], "negated"), 1, past)
    slide(f"{name}.valid", constant("seen", np.zeros((1, chunk), np.float32)), 1, past)
    both = slide(f"{name}.b0.k", keys, 1, past)
    mixed = op("MatMul", [constant("band", band(entry.window, chunk)), both], "mixed")
    joined = op("Transpose", [mixed], "joined", perm=[1, 0, 2])
    merge = constant("merge", np.array([chunk, entry.width], np.int64))
    fused = op("Tanh", [op("Reshape", [joined, merge], "merged")], "trunk")
    if level < spec.top:
        fused = op("Add", ["trunk", op("MatMul", ["held", "w.held"], "above")], "fused")
    elif level > 0:
        fused = op("Identity", ["trunk"], "fused")
    logits = op("MatMul", [fused, "w.labels"], "logits")
    op("LogSoftmax", [logits], "frame" if level == 0 else "action", axis=1)
    op("Sigmoid", [op("MatMul", [fused, "w.change"], "score")], "change")
    if "lagged" in weight:
        heads, count = len(spec.other_lags_s), len(spec.labels)
        rows = op("MatMul", [fused, "w.lagged"], "lagged.flat")
        each = constant("lagged.each", np.array([chunk * heads, count], np.int64))
        whole = constant("lagged.whole", np.array([chunk, heads * count], np.int64))
        made = op("LogSoftmax", [op("Reshape", [rows, each], "lagged.logits")], "lagged.log", axis=1)
        op("Reshape", [made, whole], "lagged")

    def value(tensor: Any, suffix: str = "") -> Any:
        return helper.make_tensor_value_info(tensor.name + suffix, TensorProto.FLOAT, tensor.shape)

    states = spec.states(level)
    graph = helper.make_graph(
        nodes,
        name,
        [value(tensor) for tensor in (*spec.inputs(level, chunk), *states)],
        [value(tensor) for tensor in spec.outputs(level, chunk)] + [value(tensor, ".next") for tensor in states],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    save(onnx, helper, graph, path)


def write_encoder(path: Path, spec: EncoderSpec) -> None:
    """The picture scaled to 0..1, averaged over its columns, mapped by a fixed matrix."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix = encoder_matrix(spec)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["vector"]),
    ]
    constants = {
        "scale": np.float32(1 / 255),
        "axes": np.array([1], np.int64),
        "shape": np.array([1, spec.height * 3], np.int64),
        "matrix": matrix,
    }
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, spec.image.shape)],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, spec.vector.shape)],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )
    save(onnx, helper, graph, path)


def encoder_matrix(spec: EncoderSpec) -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(spec.height * 3, spec.size)).astype(np.float32)


def save(onnx: Any, helper: Any, graph: Any, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_graphs(spec: PyramidSpec) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        for level in range(len(spec.levels)):
            for chunk in spec.chunks(level):
                write_level(directory / graph_name(level, chunk, "fp32"), spec, level, chunk)
        if spec.encoder is not None:
            write_encoder(directory / "encoder.fp32.onnx", spec.encoder)

    return write


def toy_bundle(path: Path, spec: PyramidSpec, decoder: DecoderConfig | None = None, *, passed: bool = True) -> Bundle:
    """A whole bundle on disk, certified by decree."""
    checks = [{"name": "decree", "passed": passed}]
    return write_bundle(
        path,
        spec,
        "fp32",
        decoder or DecoderConfig(),
        {"made_by": "tests"},
        write_graphs(spec),
        lambda bundle: {"passed": passed, "checks": checks},
    )
