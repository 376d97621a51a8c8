"""Bundles in int8: what they were calibrated on, what their certificate refuses, calibrations that were interrupted."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_hal.bundle import file_hash, load_bundle, write_bundle
from edge_hal.calib import observe as observing
from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.calib.ranges import Ranges
from edge_hal.errors import EdgeHalError
from edge_hal.export import int8
from edge_hal.export.bundle import export_bundle
from edge_hal.export.certificate import certify
from edge_hal.export.compute import of_graph
from edge_hal.export.int8 import Calibration, calibrate
from edge_hal.export.layer_checks import AGE_TICKS, check_age
from edge_hal.export.quantise import quantised_layers
from edge_hal.model.model_file import load_checkpoint
from edge_hal.runtime.engines.engine import StepEngine
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers.small_int8 import GENEROUS, SPEC, TARGETS, all_precisions, recordings, write_graphs
from tests.helpers.small_models import MadeOnce, random_input


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graphs(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def run(made_once: MadeOnce) -> Path:
    return all_precisions(made_once) / "run"


@pytest.fixture(scope="module")
def bundles(made_once: MadeOnce) -> dict[str, Path]:
    folder = all_precisions(made_once)
    return {target: folder / target for target in TARGETS}


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

        def step(self, inputs: Any) -> Any:
            self._steps += 1
            outputs = self._engine.step(inputs)
            return {name: v * (1 + 1e-6 * self._steps) if name == "frame" else v for name, v in outputs.items()}

    x = random_input(300, seed=4)
    for path in bundles.values():
        assert check_age(SPEC, open_engines(load_bundle(path)), x, AGE_TICKS)["passed"]
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


def broken(good: Path, out: Path, run: Path, edit: Any) -> list[str]:
    """The checks that fail once `edit` has changed the graphs of a good bundle."""
    source, checkpoint = load_bundle(good), load_checkpoint(run)
    caught: dict[str, Any] = {}

    def write(folder: Path) -> None:
        for name in json.loads((good / "manifest.json").read_text())["graphs"]:
            model = onnx.load(good / name)
            edit(name, model)
            onnx.save(model, folder / name)

    def judge(bundle: Any) -> dict[str, Any]:
        caught.update(certify(bundle, checkpoint, budget=GENEROUS))
        return caught

    with pytest.raises(EdgeHalError, match="do not compute"):
        write_bundle(out, source.spec, "int8", source.decoder, {}, write, judge, target=source.target)
    assert not out.exists()
    return [check["name"] for check in caught["checks"] if not check["passed"]]


def replace(model: onnx.ModelProto, name: str, change: Any) -> bool:
    for entry in model.graph.initializer:
        if entry.name == name:
            value = numpy_helper.to_array(entry)
            entry.CopyFrom(numpy_helper.from_array(change(value).astype(value.dtype), name))
            return True
    return False


@pytest.mark.slow
def test_an_over_quantised_layer_fails_its_certificate(bundles: dict[str, Path], run: Path, tmp_path: Path) -> None:
    def three_bits(name: str, model: onnx.ModelProto) -> None:
        if name == "level1.c1.int8.onnx":
            assert replace(model, "l1.blocks.0.out.int8", lambda w: np.round(w / 42) * 42)

    for target, path in bundles.items():
        assert "int8 weights = float weights" in broken(path, tmp_path / target, run, three_bits)


@pytest.mark.slow
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

    def counted(spec: Any, engines: Any, eye: Any, recording: Any) -> None:
        if seen == ["r0"] and not resumed:
            raise KeyboardInterrupt
        seen.append(recording.name)
        real(spec, engines, eye, recording)

    def go(number: int = 0) -> Calibration:
        chosen = recordings(700, seed=number)  # enough transitions with either seed
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
    for recording in recordings(700):
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


def test_the_vectors_of_an_encoder_are_those_of_its_own_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods find other ranges for the same layers."""
    encoded: list[Path] = []

    def encode(graph: Path, pictures: Any) -> NDArray[np.float32]:
        encoded.append(graph)
        return np.full((2, 3), len(encoded), np.float32)

    monkeypatch.setattr(int8, "encode_pictures", encode)
    monkeypatch.setattr(onnx, "save", lambda model, path: None)
    monkeypatch.setattr(Calibration, "apply", lambda self, model, prefix: self.ranges)
    trial = int8._Trial.__new__(int8._Trial)
    pictures = SimpleNamespace(pictures=np.zeros((2, 4, 4, 3), np.uint8), vectors=np.zeros((2, 3), np.float32))
    trial._encoded, trial.recordings, trial.models = {}, [pictures], {"encoder": None}  # type: ignore[list-item, dict-item]
    layers = frozenset(["encoder.a", "l0.b"])
    for ranges, expected in (({"encoder.a": 1.0}, 1), ({"encoder.a": 9.0}, 2), ({"encoder.a": 9.0, "l0.b": 3.0}, 2)):
        found = trial._vectors(Calibration("tensorrt", ranges, layers, {}), tmp_path / "graph")
        assert found[0][0, 0] == expected == len(encoded)
