"""Ranges, quantised graphs, and the search for layers that can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge_hal.calib.ranges import FINE, LEVELS, METHODS, Ranges, count, cut, upper_edge
from edge_hal.calib.sensitivity import Budget, Memory, Shift, search
from edge_hal.errors import EdgeHalError
from edge_hal.export.graphs import export_encoder
from edge_hal.export.layer_checks import signal_to_noise_db
from edge_hal.export.lint import lint_encoder, lint_step_graph
from edge_hal.export.quantise import INT8_MAX, layers_of, quantise_dynamic, quantise_static, quantised_layers
from edge_hal.export.quantise_convolutions import FIRST_IN_FLOAT, has_many_convolutions, quantise_convolutions
from edge_hal.model.encoder import FrameEncoder
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge_hal.spec import EncoderSpec
from tests.helpers.small_int8 import SPEC, write_graphs
from tests.helpers.small_models import random_input


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graphs(tmp_path_factory.mktemp("graphs"))


# --- ranges ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
)
def test_counts_add_up_in_any_order_and_cuts_never_exceed_the_largest(a: list[float], b: list[float]) -> None:
    both = count(np.array([*a, *b]))
    np.testing.assert_array_equal(both, count(np.array(b)) + count(np.array(a)))
    assert both.sum() == len(a) + len(b)
    largest = np.abs([*a, *b]).max()
    found = {method: cut(both, method) for method in METHODS}
    if largest >= 2.0**-23:
        assert largest <= found["max"] <= largest * 2 ** (1 / 64) * (1 + 1e-6)
        assert 0 < found["percentile"] <= found["max"] and 0 < found["entropy"] <= found["max"] * (1 + 1e-9)


def test_outliers_are_clipped_by_percentile_and_entropy_only() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=200_000), [500.0]])
    counts = count(values)
    assert cut(counts, "max") > 499
    assert 3 < cut(counts, "percentile") < 6
    assert cut(counts, "entropy") < 100
    assert cut(count(np.zeros(10)), "max") == 0.0
    noise = {name: signal_to_noise_db(count(rng.normal(size=100_000)), r / INT8_MAX) for name, r in
             (("fits", 4.5), ("wide", 450.0), ("narrow", 0.1))}  # fmt: skip
    assert 33 < noise["fits"] < 40 and noise["wide"] < 3 and noise["narrow"] < 3


@pytest.mark.parametrize(("kind", "near"), [("normal", 0.1), ("laplace", 0.1), ("t", 0.25)])
def test_entropy_ranges_are_those_of_a_histogram_with_equal_bins(kind: str, near: float) -> None:
    """The counts are kept in logarithmic bins, which are wider than the equal ones where values are large."""
    rng = np.random.default_rng(0)
    drawn: dict[str, Callable[..., Any]] = {"normal": rng.normal, "laplace": rng.laplace}
    values = drawn.get(kind, partial(rng.standard_t, 3))(size=300_000)
    magnitude = np.abs(values)
    fine = np.histogram(magnitude, FINE, (0.0, magnitude.max()))[0].astype(float)
    fine[0] = 0.0
    divergences = {}
    for stop in range(FINE // 16, FINE + 1, FINE // 128):
        reference = np.append(fine[: stop - 1], fine[stop - 1 :].sum())
        part = np.arange(stop) * LEVELS // stop
        total, filled = np.bincount(part, fine[:stop]), np.bincount(part, fine[:stop] > 0)
        quantised = np.where(fine[:stop] > 0, (total / np.maximum(filled, 1))[part], 0.0)
        p, q = reference / reference.sum(), quantised / quantised.sum()
        divergences[stop] = (p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], 1e-12))).sum()
    direct = magnitude.max() * min(divergences, key=lambda stop: float(divergences[stop])) / FINE
    assert cut(count(values), "entropy") == pytest.approx(direct, rel=near)


def test_ranges_are_read_back_and_damaged_ones_refused(tmp_path: Path) -> None:
    ranges = Ranges("g", {"a": "s"}, 10, {"l0.entry": dict.fromkeys(METHODS, 1.5)})
    path = tmp_path / "ranges.json"
    path.write_text(ranges.to_json())
    assert Ranges.from_file(path) == ranges
    for text in ("", "{}", '{"schema": 9}', ranges.to_json().replace("1.5", "NaN", 1), "[1]"):
        path.write_text(text)
        with pytest.raises(EdgeHalError, match="calibrate again"):
            Ranges.from_file(path)


def test_bins_are_as_fine_as_they_say() -> None:
    assert upper_edge(24 * 64) == 1.0
    assert count(np.array([1.0]))[24 * 64] == 1


# --- graphs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_static_quantisation_touches_the_named_layers_and_nothing_else(graphs: Path, precision: str) -> None:
    model = onnx.load(graphs / f"level0.c2.{precision}.onnx")
    layers = layers_of(model, "l0")
    assert "l0.entry" in layers and "l0.blocks.0.mlp.3" in layers
    assert not any(name.endswith(("frame", "change")) for name in layers)
    chosen = {"l0.blocks.0.qkv": 3.0, "l0.own": 2.0}
    made = quantise_static(model, "l0", chosen)
    lint_step_graph(made, SPEC, 0, 2, "made")
    onnx.checker.check_model(made, full_check=True)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") == 2 and kinds.count("DequantizeLinear") == 4
    untouched = [n for n in made.graph.node if not n.name.startswith(tuple(chosen))]
    for before, after in zip(model.graph.node, untouched, strict=True):
        same = (before.op_type, list(before.output)) == (after.op_type, list(after.output))
        assert same and (list(before.input) == list(after.input) or before.op_type == "Gemm")
    constants = {e.name: numpy_helper.to_array(e) for e in made.graph.initializer}
    wide = np.float16 if precision == "fp16" else np.float32
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not constants[node.input[2]].any() and constants[node.input[2]].dtype == np.int8
            assert constants[node.input[1]].dtype == wide
    assert not any(name.endswith("qkv.weight") for name in constants)  # stored once, as int8


def test_quantised_weights_lie_half_a_step_from_float(graphs: Path) -> None:
    model = onnx.load(graphs / "level0.c2.fp32.onnx")
    constants = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
    layers = layers_of(model, "l0")
    for made, levels in (
        (quantise_static(model, "l0", dict.fromkeys(layers, 1.0)), 127),
        (quantise_dynamic(model, "l0", layers), 64),
    ):
        found = quantised_layers(made)
        assert found.keys() == layers.keys()
        for layer, weight in found.items():
            exact = constants[f"level.{layer.removeprefix('l0.')}.weight"]
            step = np.abs(exact).max(axis=1, keepdims=True) / levels
            assert (np.abs(weight - exact) <= step * 0.5001).all()


def test_the_lint_refuses_zero_points_and_quantised_biases(graphs: Path) -> None:
    good = quantise_static(onnx.load(graphs / "level0.c2.fp32.onnx"), "l0", {"l0.entry": 2.0})
    for name, value, told in (
        ("l0.entry.x.zero", np.array(3, np.int8), "zero point"),
        ("l0.entry.zero", np.full(16, -1, np.int8), "zero point"),
        ("l0.entry.int8", None, "int32"),
    ):
        model = onnx.ModelProto()
        model.CopyFrom(good)
        entry = next(entry for entry in model.graph.initializer if entry.name == name)
        changed = numpy_helper.to_array(entry).astype(np.int32) if value is None else value
        entry.CopyFrom(numpy_helper.from_array(changed, name))
        with pytest.raises(EdgeHalError, match=rf"l0\.entry.*{told}"):
            lint_step_graph(model, SPEC, 0, 2, "graph")


def test_a_zero_point_cannot_hide(graphs: Path) -> None:
    """Users' own encoders hold it in a node, in uint8, or leave it out: ONNX Runtime and TensorRT then disagree."""

    def in_a_node(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        value = numpy_helper.from_array(np.array(3, np.int8))
        model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=value))
        node.input[2] = "hidden"

    def in_uint8(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "unsigned"))
        node.input[2] = "unsigned"

    def left_out(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        del node.input[2]

    good = quantise_static(onnx.load(graphs / "level0.c2.fp32.onnx"), "l0", {"l0.entry": 2.0})
    for hide, told in ((in_a_node, "not an int8 0"), (in_uint8, "not an int8 0"), (left_out, "left out")):
        model = onnx.ModelProto()
        model.CopyFrom(good)
        hide(model, next(node for node in model.graph.node if node.op_type == "QuantizeLinear"))
        with pytest.raises(EdgeHalError, match=rf"l0\.entry\.x\.quantize.*{told}"):
            lint_step_graph(model, SPEC, 0, 2, "graph")


def test_an_unknown_layer_is_refused(graphs: Path) -> None:
    model = onnx.load(graphs / "level0.c2.fp32.onnx")
    for wrong in ("l0.frame", "l1.entry", "l0.blocks.9.qkv"):
        with pytest.raises(EdgeHalError, match=wrong):
            quantise_static(model, "l0", {wrong: 1.0})
        with pytest.raises(EdgeHalError, match=wrong):
            quantise_dynamic(model, "l0", [wrong])


@pytest.mark.parametrize("way", ["static", "dynamic"])
def test_an_int8_step_stays_close_to_float(graphs: Path, tmp_path: Path, way: str) -> None:
    model = onnx.load(graphs / "level0.c2.fp32.onnx")
    layers = layers_of(model, "l0")
    made = quantise_static(model, "l0", dict.fromkeys(layers, 12.0)) if way == "static" else quantise_dynamic(
        model, "l0", layers)  # fmt: skip
    onnx.save(made, tmp_path / "int8.onnx")
    engines = [
        OnnxRuntimeEngine.open({2: p}, SPEC, 0) for p in (graphs / "level0.c2.fp32.onnx", tmp_path / "int8.onnx")
    ]
    held = np.zeros((1, 16), np.float32)
    x, errors = random_input(100, seed=3), []
    for start in range(0, 100, 2):
        a, b = (engine.step({"x": x[start : start + 2], "held": held})["trunk"].copy() for engine in engines)
        errors.append(np.sqrt(((a - b) ** 2).mean() / (a**2).mean()))
    assert 1e-4 < np.mean(errors) < 0.2


def test_convolutions_are_quantised_but_for_the_first(tmp_path: Path) -> None:
    spec = EncoderSpec(24, 32, 8)
    torch.manual_seed(0)
    export_encoder(FrameEncoder(spec), spec, tmp_path / "e.onnx")
    model = onnx.load(tmp_path / "e.onnx")
    layers = layers_of(model, "encoder")
    names = ("convolutions.3", "convolutions.6", "convolutions.9", "head")
    assert sorted(layers) == [f"encoder.{name}" for name in names]
    onnx.save(quantise_static(model, "encoder", dict.fromkeys(layers, 3.0)), tmp_path / "q.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    a, b = (encode_pictures(tmp_path / f"{name}.onnx", pictures) for name in "eq")
    assert 0 < np.abs(a - b).max() < 0.5
    with pytest.raises(EdgeHalError, match="Conv"):
        quantise_dynamic(model, "encoder", ["encoder.convolutions.6"])


class _Deep(torch.nn.Module):
    """Fourteen convolutions, for pictures (24, 32, 3)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[16] * 14]
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, 3, padding=1, stride=2 if i in (3, 7) else 1)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        for weight in self.parameters():
            if weight.dim() == 4:
                torch.nn.init.kaiming_normal_(weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.float().unsqueeze(0).permute(0, 3, 1, 2) / 127.5 - 1.0
        for number, convolution in enumerate(self.convolutions):
            made = torch.nn.functional.relu6(convolution(x))
            x = made + x if number > 3 and made.shape == x.shape else made
        return x.mean((2, 3))


def test_convolutions_of_a_large_encoder_run_in_8_bits_on_cpus(tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = (torch.zeros(24, 32, 3, dtype=torch.uint8),)
    torch.onnx.export(
        _Deep().eval(),
        example,
        tmp_path / "e.onnx",
        input_names=["image"],
        output_names=["vector"],
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    unnamed = onnx.load(tmp_path / "e.onnx")
    assert has_many_convolutions(unnamed)
    for node in unnamed.graph.node:
        node.name = ""
    onnx.save(unnamed, tmp_path / "e.onnx")
    rng = np.random.default_rng(0)
    colours = [rng.integers(0, 200, (n, 1, 1, 3), dtype=np.uint8) for n in (40, 1, 90)]
    pictures = [each + rng.integers(0, 56, (len(each), 24, 32, 3), dtype=np.uint8) for each in colours]
    made = quantise_convolutions(tmp_path / "e.onnx", pictures)
    assert made == quantise_convolutions(tmp_path / "e.onnx", pictures)
    onnx.save(made, tmp_path / "q.onnx")
    a, b = (encode_pictures(tmp_path / f"{name}.onnx", pictures[2]) for name in "eq")
    error = np.sqrt(((a - b) ** 2).mean() / ((a - a.mean(0)) ** 2).mean())
    assert 0 < error < 0.3
    weights = {entry.name: numpy_helper.to_array(entry) for entry in made.graph.initializer}
    kernels = [value for value in weights.values() if value.ndim == 4]
    assert sum(kernel.dtype == np.float32 for kernel in kernels) == FIRST_IN_FLOAT
    assert all(np.abs(kernel.astype(int)).max() <= 64 for kernel in kernels if kernel.dtype == np.int8)
    spec = EncoderSpec(24, 32, 16)
    lint_encoder(made, spec, "q", tensorrt=False)
    with pytest.raises(EdgeHalError, match="TensorRT reads symmetric int8"):
        lint_encoder(made, spec, "q")


# --- the search --------------------------------------------------------------------------------------


def shift(moved: int, rms: float) -> Shift:
    return Shift(1000, moved, 100.0 - moved / 100, 1.0, rms, 0)


def test_the_costly_layers_fall_back_and_the_report_says_which(tmp_path: Path) -> None:
    price = {f"layer{i}": i for i in range(6)}
    asked: list[frozenset[str]] = []

    def evaluate(layers: frozenset[str]) -> Shift:
        asked.append(layers)
        moved = sum(price[layer] for layer in layers)
        return shift(moved, moved / 100)

    verdict = search(sorted(price), evaluate, Budget(), lambda *_: None)
    assert verdict.layers == {"layer0", "layer1", "layer2", "layer3", "layer4"}  # 10 of 1,000 moved
    report = verdict.to_dict()
    assert report["layers"]["layer5"]["verdict"] == "float" and report["layers"]["layer4"]["verdict"] == "int8"
    assert report["all_quantised"]["moved"] == 15 and report["shift"]["moved"] == 10
    assert search(sorted(price), evaluate, Budget(within=0.9), lambda *_: None).layers == set(price)
    with pytest.raises(EdgeHalError, match="no layer can be quantised"):
        search(["a", "b"], lambda layers: shift(500, 1.0), Budget(), lambda *_: None)
    memory = Memory(tmp_path / "search.json", "key")
    remembered = memory.through(evaluate, "max")
    asked.clear()
    first = search(sorted(price), remembered, Budget(), lambda *_: None)
    count_of = len(asked)
    again = Memory(tmp_path / "search.json", "key").through(evaluate, "max")  # a process that began afresh
    assert search(sorted(price), again, Budget(), lambda *_: None) == first and len(asked) == count_of
    other = Memory(tmp_path / "search.json", "another key").through(evaluate, "max")
    search(sorted(price), other, Budget(), lambda *_: None)
    assert len(asked) > count_of


def test_a_costly_layer_does_not_condemn_those_behind_it() -> None:
    moved, rms = {"a": 6, "b": 6, "c": 4, "d": 9}, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}  # 10 of 1,000 may move

    def evaluate(layers: frozenset[str]) -> Shift:
        return shift(sum(moved[layer] for layer in layers), sum(rms[layer] for layer in layers))

    verdict = search(sorted(moved), evaluate, Budget(), lambda *_: None)
    assert verdict.layers == {"a", "c"} and verdict.shift.moved == 10
