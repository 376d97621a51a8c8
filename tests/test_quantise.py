from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_models import random_input, random_model, save_run, small_spec

from edge_hal.bundle import file_hash, load_bundle, write_bundle
from edge_hal.calib import observe as observing
from edge_hal.calib.ranges import METHODS, Ranges, count, cut, upper_edge
from edge_hal.calib.recordings import CalibrationRecording
from edge_hal.calib.sensitivity import Budget, Memory, Shift, search
from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import export_bundle
from edge_hal.export.certificate import certify
from edge_hal.export.compute import of_graph
from edge_hal.export.graphs import export_encoder, export_level
from edge_hal.export.int8 import Calibration, calibrate
from edge_hal.export.layer_checks import check_age, signal_to_noise_db
from edge_hal.export.lint import lint_step_graph
from edge_hal.export.quantise import INT8_MAX, layers_of, quantise_dynamic, quantise_static, quantised_layers
from edge_hal.features import encode_pictures
from edge_hal.model.checkpoint import load_checkpoint
from edge_hal.model.encoder import FrameEncoder
from edge_hal.runtime.engine import StepEngine
from edge_hal.runtime.engine_onnxruntime import OnnxRuntimeEngine, open_engines
from edge_hal.runtime.stream import PyramidStream
from edge_hal.spec import EncoderSpec, LevelSpec

LEVELS = (LevelSpec(1, 6, 16, 2, 1), LevelSpec(2, 4, 16, 2, 1))
SPEC = small_spec(LEVELS)
GENEROUS = Budget(f1_points=60.0, within=0.4, ticks=5)
"""A random model wavers between labels at every tick: its events mean nothing, only that there is a budget."""


def recordings(ticks: int = 700, seed: int = 0) -> list[CalibrationRecording]:
    return [CalibrationRecording(f"r{i}", random_input(ticks, seed=seed + i)) for i in range(2)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    pyramid, front_end = random_model(SPEC, 2)
    for precision in ("fp32", "fp16"):
        export_level(pyramid, front_end, 0, 2, precision, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("int8") / "run", SPEC, seed=2, reference=random_input(700, seed=8))


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
    engines = [OnnxRuntimeEngine({2: p}, SPEC, 0) for p in (graphs / "level0.c2.fp32.onnx", tmp_path / "int8.onnx")]
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


# --- bundles --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(run: Path) -> dict[str, Path]:
    made = {}
    for target in ("tensorrt", "onnxruntime"):
        bundle = export_bundle(
            run,
            run.with_name(target),
            precision="int8",
            target=target,
            recordings=recordings(),
            budget=GENEROUS,
        )
        made[target] = bundle.path
    return made


def test_a_bundle_counts_the_same_multiply_adds_in_every_form(bundles: dict[str, Path], graphs: Path) -> None:
    found = [load_bundle(path).provenance["multiply_adds"] for path in bundles.values()]
    assert found[0] == found[1] and found[0]["tick"] == found[0]["level0"] + found[0]["level1"]
    assert of_graph(graphs / "level0.c2.fp32.onnx") == of_graph(graphs / "level0.c2.fp16.onnx")
    shapes = {"a": (5, 3), "b": (7, 5), "y": (3, 7), "c": (2, 4, 6), "d": (2, 6, 8), "z": (2, 4, 8),
              "p": (1, 4, 9, 9), "w": (6, 2, 3, 3), "o": (1, 6, 7, 7)}  # fmt: skip
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1),
        helper.make_node("MatMul", ["c", "d"], ["z"]),
        helper.make_node("Conv", ["p", "w"], ["o"], group=2),
    ]
    graph = helper.make_graph(nodes, "g", [values[n] for n in "abcdpw"], [values[n] for n in "yzo"])
    path = graphs / "counted.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    assert of_graph(path) == 3 * 7 * 5 + 2 * 4 * 8 * 6 + 6 * 7 * 7 * 2 * 3 * 3


def test_a_stream_that_ages_fails_its_certificate(bundles: dict[str, Path]) -> None:
    class Drifting:
        """An engine whose posterior moves a little with every step since its reset."""

        def __init__(self, engine: StepEngine) -> None:
            self._engine, self._steps = engine, 0
            self.state = engine.state

        def reset(self) -> None:
            self._engine.reset()
            self._steps = 0

        def step(self, inputs):
            self._steps += 1
            outputs = self._engine.step(inputs)
            return {name: v * (1 + 1e-6 * self._steps) if name == "frame" else v for name, v in outputs.items()}

    x = random_input(300, seed=4)
    for path in bundles.values():
        assert check_age(SPEC, open_engines(load_bundle(path)), x)["passed"]
    drifting = [Drifting(engine) for engine in open_engines(load_bundle(bundles["onnxruntime"]))]
    check = check_age(SPEC, drifting, x, ticks=2000)
    assert not check["passed"] and "frame" in check["wrong"]


def test_an_int8_bundle_says_what_it_was_calibrated_on(bundles: dict[str, Path], run: Path) -> None:
    for target, path in bundles.items():
        bundle = load_bundle(path)
        assert bundle.certified and (bundle.precision, bundle.target) == ("int8", target)
        report = bundle.provenance["quantisation"]
        assert report["recordings"] == {r.name: r.sha256() for r in recordings()}
        verdicts = {layer["verdict"] for layer in report["layers"].values()}
        assert verdicts <= {"int8", "float"} and "int8" in verdicts
        for level in range(2):
            found = quantised_layers(onnx.load(bundle.graph(level)))
            chosen = {name for name, layer in report["layers"].items() if layer["verdict"] == "int8"}
            assert found.keys() == {name for name in chosen if name.startswith(f"l{level}.")}
    ranges = run / "calibration" / "ranges.json"
    assert load_bundle(bundles["tensorrt"]).provenance["quantisation"]["ranges_sha256"] == file_hash(ranges)
    assert Ranges.from_file(ranges).seen == {r.name: r.sha256() for r in recordings()}


def broken(good: Path, out: Path, run: Path, edit) -> list[str]:
    """The checks that fail once `edit` has changed the graphs of a good bundle."""
    source, checkpoint, caught = load_bundle(good), load_checkpoint(run), {}

    def write(folder: Path) -> None:
        for name in json.loads((good / "manifest.json").read_text())["graphs"]:
            model = onnx.load(good / name)
            edit(name, model)
            onnx.save(model, folder / name)

    def judge(bundle) -> dict:
        caught.update(certify(bundle, checkpoint, budget=GENEROUS))
        return caught

    with pytest.raises(EdgeHalError, match="do not compute"):
        write_bundle(out, source.spec, "int8", source.decoder, {}, write, judge, target=source.target)
    assert not out.exists()
    return [check["name"] for check in caught["checks"] if not check["passed"]]


def replace(model: onnx.ModelProto, name: str, change) -> bool:
    for entry in model.graph.initializer:
        if entry.name == name:
            value = numpy_helper.to_array(entry)
            entry.CopyFrom(numpy_helper.from_array(change(value).astype(value.dtype), name))
            return True
    return False


def test_an_over_quantised_layer_fails_its_certificate(bundles: dict[str, Path], run: Path, tmp_path: Path) -> None:
    def three_bits(name: str, model: onnx.ModelProto) -> None:
        if name == "level1.c1.int8.onnx":
            assert replace(model, "l1.blocks.0.out.int8", lambda w: np.round(w / 42) * 42)

    for target, path in bundles.items():
        assert "int8 weights = float weights" in broken(path, tmp_path / target, run, three_bits)


def test_a_range_from_elsewhere_fails_its_certificate(bundles: dict[str, Path], run: Path, tmp_path: Path) -> None:
    for factor in (1 / 64, 64):

        def rescaled(name: str, model: onnx.ModelProto, factor: float = factor) -> None:
            scales = [e.name for e in model.graph.initializer if e.name.endswith("blocks.0.qkv.x.scale")]
            for scale in scales:
                replace(model, scale, lambda value: value * factor)

        failed = broken(bundles["tensorrt"], tmp_path / "b", run, rescaled)
        assert "int8 inputs on the reference" in failed


def test_a_state_that_slides_wrongly_fails_in_int8_too(bundles: dict[str, Path], run: Path, tmp_path: Path) -> None:
    def off_by_one(name: str, model: onnx.ModelProto) -> None:
        if name != "level0.c2.int8.onnx":
            return
        node = next(node for node in model.graph.node if "l0.b0.v.next" in node.output)
        constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
        start = constants[node.input[1]]
        for index, label, value in ((1, "early", start - 1), (2, "end", np.full_like(start, -1))):
            model.graph.initializer.append(numpy_helper.from_array(value, label))
            node.input[index] = label

    failed = broken(bundles["tensorrt"], tmp_path / "b", run, off_by_one)
    assert "states move by whole tokens in steps of 2" in failed


def test_a_calibration_in_which_little_happens_is_refused(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    calm = CalibrationRecording("calm", 1 + 1e-3 * rng.normal(size=(1500, 3)).astype(np.float32))
    with pytest.raises(EdgeHalError, match=r"show too little: float32 sees \d transitions.* at least 10"):
        calibrate(load_checkpoint(run), [calm], "onnxruntime", tmp_path / "w", lambda *_: None)


def test_one_calibration_at_a_time_and_in_a_folder_that_can_be_written(run: Path, tmp_path: Path) -> None:
    def go(work: Path) -> None:
        calibrate(load_checkpoint(run), recordings(), "onnxruntime", work, lambda *_: None, GENEROUS)

    (tmp_path / "w").mkdir()
    with (tmp_path / "w" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EdgeHalError, match=r"another calibration is at work(.|\n)*--work"):
            go(tmp_path / "w")
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeHalError, match=r"cannot write the calibration .*file"):
        go(tmp_path / "file" / "w")


def test_int8_without_recordings_or_with_useless_ones_is_refused(run: Path, tmp_path: Path) -> None:
    still = CalibrationRecording("still", np.ones((2000, 3), np.float32))
    wide = CalibrationRecording("wide", random_input(2000, size=4))
    hole = CalibrationRecording("hole", np.where(np.arange(6000).reshape(2000, 3) == 5, np.nan, 1).astype(np.float32))
    for given_, told in (
        ([], "nothing to calibrate"),
        ([still], "constant"),
        ([wide], "wide is of the wrong size"),
        (recordings(100), "too short"),
        ([hole], "hole is damaged"),
    ):
        with pytest.raises(EdgeHalError, match=told):
            export_bundle(run, tmp_path / "b", precision="int8", target="tensorrt", recordings=given_)
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_calibration_killed_half_way_goes_on_and_ends_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = observing._count_one

    def counted(spec, engines, eye, recording) -> None:
        if seen == ["r0"] and not resumed:
            raise KeyboardInterrupt
        seen.append(recording.name)
        real(spec, engines, eye, recording)

    def go(number: int = 0) -> Calibration:
        chosen = recordings(seed=number)
        return calibrate(load_checkpoint(run), chosen, "tensorrt", tmp_path, lambda *_: None, GENEROUS)

    monkeypatch.setattr(observing, "_count_one", counted)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        go()
    resumed = True
    first = go()
    assert seen == ["r0", "r1"]  # the first was not streamed again
    kept = (tmp_path / "ranges.json").read_bytes()
    assert go() == first and seen == ["r0", "r1"]
    (tmp_path / "ranges.json").write_bytes(kept[: len(kept) // 2])  # as a power cut may leave it
    (tmp_path / "partial").mkdir()
    for recording in recordings():
        (tmp_path / "partial" / f"{json.loads(kept)['graphs'][:12]}.{recording.sha256()[:24]}.npz").write_bytes(b"PK")
    assert go() == first and (tmp_path / "ranges.json").read_bytes() == kept
    assert seen == ["r0", "r1"] * 2 and not (tmp_path / "partial").exists()
    assert go(50).ranges != first.ranges and (tmp_path / "ranges.json").read_bytes() != kept
    assert go() == first and (tmp_path / "ranges.json").read_bytes() == kept


def test_chunks_change_nothing_in_dynamic_int8(bundles: dict[str, Path]) -> None:
    bundle, x, found = load_bundle(bundles["onnxruntime"]), random_input(120, seed=4), []
    for chunk in (1, 2):
        stream = PyramidStream(SPEC, open_engines(bundle))
        for start in range(0, 120, chunk):
            stream.step(x[start : start + chunk], range(start, start + chunk))
            stream.settle()
        found.append((stream.posterior(50).copy(), stream.states()))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(value, found[1][1][name], atol=1e-5, rtol=1e-4)


def test_a_graph_for_tensorrt_has_no_zero_points_and_one_for_cpus_no_saturation(bundles: dict[str, Path]) -> None:
    for path in bundles["tensorrt"].glob("level*.onnx"):
        model = onnx.load(path)
        for entry in model.graph.initializer:
            if entry.name.endswith(".zero"):
                assert entry.data_type == TensorProto.INT8 and not numpy_helper.to_array(entry).any()
    for path in bundles["onnxruntime"].glob("level*.onnx"):
        for entry in onnx.load(path).graph.initializer:
            if entry.data_type == TensorProto.INT8:
                assert np.abs(numpy_helper.to_array(entry).astype(int)).max() <= 64  # 2 * 255 * 64 fits 16 bits
