from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_hal.bundle import Bundle, expected_graphs, load_bundle
from edge_hal.calib.sensitivity import Budget, compare_events
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import export_bundle
from edge_hal.export.graphs import export_level
from edge_hal.export.precision import half_graph, half_step
from edge_hal.model.one_pass import one_pass
from edge_hal.model.step import LevelStep
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import EncoderSpec, PyramidSpec
from tests.helpers import small_int8
from tests.helpers.small_models import (
    EXPORTED,
    EXPORTED_SEED,
    THREE,
    TWO,
    MadeOnce,
    picture_bundles,
    random_input,
    random_model,
    save_run,
    small_spec,
)

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All graphs of `EXPORTED`, three levels, in float16."""
    folder = tmp_path_factory.mktemp("halves")
    export_all(EXPORTED, folder, EXPORTED_SEED)
    return folder


def streamed(spec: PyramidSpec, folder: Path, x: np.ndarray, precision: str = "fp16", chunk: int = 1) -> np.ndarray:
    engines = [
        OnnxRuntimeEngine.open({c: folder / f"level{i}.c{c}.{precision}.onnx" for c in spec.chunks(i)}, spec, i)
        for i in range(len(spec.levels))
    ]
    stream, rows = PyramidStream(spec, engines), []
    for start in range(0, len(x) - len(x) % chunk, chunk):
        stream.push(x[start : start + chunk], range(start, start + chunk))
        rows.append(stream.ring.last(0, "frame", chunk).copy())
    return np.concatenate(rows)


def export_all(spec: PyramidSpec, folder: Path, seed: int = 0, precision: str = "fp16") -> None:
    pyramid, front_end = random_model(spec, seed)
    for level in range(len(spec.levels)):
        for chunk in spec.chunks(level):
            export_level(pyramid, front_end, level, chunk, precision, folder)


def test_a_half_graph_carries_its_state_in_half_and_says_posteriors_in_float(halves: Path) -> None:
    spec = EXPORTED
    for level in range(3):
        for chunk in spec.chunks(level):
            graph = onnx.load(halves / f"level{level}.c{chunk}.fp16.onnx").graph
            types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
            for tensor in (*spec.inputs(level, chunk), *spec.outputs(level, chunk)):
                floats = tensor.name in ("x", "frame", "change", "action")
                assert types[tensor.name] == (FLOAT if floats else HALF), tensor.name
            for tensor in spec.states(level):
                assert types[tensor.name] == types[f"{tensor.name}.next"] == HALF, tensor.name
            big = [e for e in graph.initializer if e.data_type == FLOAT and np.prod(e.dims) > 20]
            assert not [entry.name for entry in big if not entry.name.startswith("front_end")]


def test_half_in_any_chunking_stays_close_to_float64(halves: Path) -> None:
    spec = EXPORTED
    pyramid, front_end = random_model(spec, EXPORTED_SEED)
    x = random_input(240, seed=5)
    expected = one_pass(pyramid, front_end, x).outputs[0]["frame"]
    for chunk in spec.chunk_sizes:
        found = streamed(spec, halves, x, chunk=chunk)
        difference = np.exp(found) - np.exp(expected[: len(found)])
        assert np.abs(difference).max() < 0.05 and np.sqrt((difference**2).mean()) < 0.005
    before = {name: value.clone() for name, value in pyramid.state_dict().items()}
    half_step(pyramid, front_end, 0, 1)
    assert all(torch.equal(before[name], value) for name, value in pyramid.state_dict().items())


def test_a_sensor_with_a_large_offset_survives_half_precision(tmp_path: Path) -> None:
    """The float16 next to 1000 is 1000.5; the whole signal may live in between."""
    spec = small_int8.SPEC
    pyramid, front_end = random_model(spec, small_int8.SEED)
    with torch.no_grad():
        front_end.mean += 1000.0
    for level in range(2):
        for chunk in spec.chunks(level):
            export_level(pyramid, front_end, level, chunk, "fp16", tmp_path)
    x = random_input(160, seed=2) + 1000.0
    expected = np.exp(one_pass(pyramid, front_end, x).outputs[0]["frame"])
    assert np.abs(np.exp(streamed(spec, tmp_path, x)) - expected).max() < 0.05
    naive = LevelStep(pyramid, front_end, 0, 1).half()
    state = [torch.full(t.shape, t.fill, dtype=torch.float16) for t in spec.states(0)]
    held = torch.zeros(1, spec.levels[1].width, dtype=torch.float16)
    rows = []
    with torch.inference_mode():
        for row in x[:100]:
            results = naive(torch.from_numpy(row[None]).half(), held, *state)
            rows.append(results[0].float().numpy())
            state = list(results[-len(state) :])
    exact = one_pass(pyramid, front_end, x).outputs[0]["trunk"][:100]
    error = np.abs(np.concatenate(rows) - exact).max() / np.abs(exact).max()
    assert error > 0.1  # what casting everything would have cost


@pytest.fixture(scope="module")
def bundles(made_once: MadeOnce) -> dict[str, Bundle]:
    return {precision: load_bundle(path) for precision, path in picture_bundles(made_once).items()}


def test_a_half_bundle_is_certified_and_smaller(bundles: dict[str, Bundle]) -> None:
    half = bundles["fp16"].path
    for precision, bundle in bundles.items():
        certificate = json.loads((bundle.path / "certificate.json").read_text())
        assert certificate["passed"] and certificate["precision"] == bundle.precision == precision
        assert bundle.target == "any" and bundle.certified
    encoders = [bundle.encoder.stat().st_size for bundle in bundles.values() if bundle.encoder]
    assert encoders[1] < 0.6 * encoders[0]
    checks = json.loads((half / "certificate.json").read_text())["checks"]
    fresh = next(check for check in checks if check["name"] == "onnxruntime from a fresh start")
    assert fresh["max_abs"] == 0.0  # the same numbers, whatever came before: nothing drifts
    assert sorted(expected_graphs(EXPORTED, "fp16")) == sorted(p.name for p in half.glob("*.onnx"))
    pictures = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    a, b = (encode_pictures(bundle.encoder, pictures) for bundle in bundles.values() if bundle.encoder)
    assert a.dtype == b.dtype == np.float32 and 0 < np.abs(a - b).max() < 0.05


def test_an_encoder_that_does_not_fit_half_is_refused() -> None:
    spec = EncoderSpec(2, 2, 3)
    node = [
        helper.make_node("Cast", ["image"], ["float"], to=FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["vector"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1, 12], np.int64), "shape"),
        numpy_helper.from_array(np.full((12, 3), 1e5, np.float32), "w"),
    ]
    graph = helper.make_graph(
        node,
        "e",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, spec.image.shape)],
        [helper.make_tensor_value_info("vector", FLOAT, spec.vector.shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(EdgeHalError, match="w does not fit float16"):
        half_graph(model)


@pytest.mark.slow
def test_ten_thousand_ticks_in_half_do_not_drift(tmp_path: Path) -> None:
    """A stream of any age says bit for bit what one says that began a receptive field ago."""
    spec = small_spec(THREE)
    run = save_run(tmp_path / "run", spec, seed=3, reference=random_input(700))
    bundle = export_bundle(run, tmp_path / "bundle", precision="fp16")
    x = random_input(10_200, seed=11)
    pyramid, front_end = random_model(spec, 3)
    expected = np.exp(one_pass(pyramid, front_end, x).outputs[0]["frame"])
    old = PyramidStream(bundle.spec, open_engines(bundle))
    errors = []
    period = spec.period(spec.top)
    fresh, began = PyramidStream(bundle.spec, open_engines(bundle)), 0
    for start in range(0, len(x) - period, period):
        if start - began > 2 * spec.receptive_field:  # a new companion, always at a whole period
            fresh.reset()
            began = start
        for stream in (old, fresh):
            stream.push(x[start : start + period], range(start, start + period))
        rows = old.ring.last(0, "frame", period)
        errors.append(np.sqrt(((np.exp(rows) - expected[start : start + period]) ** 2).mean()))
        if start + period - began > spec.receptive_field + period:
            np.testing.assert_array_equal(old.ring.last(0, "frame", 1), fresh.ring.last(0, "frame", 1))
            a, b = old.states(), fresh.states()
            assert all(np.array_equal(a[name], b[name]) for name in a)
    first, last = np.mean(errors[: len(errors) // 4]), np.mean(errors[-len(errors) // 4 :])
    assert last < 1.5 * first + 1e-4


def test_events_are_compared_within_the_budget() -> None:
    spec = small_spec(TWO)
    at_once = DecoderConfig(smooth_s=0.0, confirm_s=0.0, min_duration_s=0.0)
    labels = np.repeat(np.arange(40) % 4, 12)

    def posterior(y: np.ndarray) -> np.ndarray:
        return np.log(np.full((len(y), 4), 0.02) + 0.92 * np.eye(4)[y]).astype(np.float32)

    exact = [posterior(labels)]
    same = compare_events(exact, exact, at_once, spec)
    assert (same.moved, same.f1_50, same.posterior_rms, same.within) == (0, 100.0, 0.0, 1.0)
    assert same.transitions == 40 and Budget().allows(same)
    later = [posterior(np.roll(labels, 1))]
    assert compare_events(later, exact, at_once, spec).moved <= 1  # one tick is a tie
    late = compare_events([posterior(np.concatenate([labels[:1].repeat(4), labels[:-4]]))], exact, at_once, spec)
    assert late.moved > 30 and not Budget().allows(late)
    one = labels.copy()
    one[12:24] = 2  # one wrong segment
    wrong = compare_events([posterior(one)], exact, at_once, spec)
    assert wrong.moved >= 1 and wrong.f1_50 < 100


def test_a_bundle_loads_with_its_target_and_no_other(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundles["fp16"].path, tmp_path / "bundle"))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["target"] == "any"
    manifest["target"] = "../abacus"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EdgeHalError, match="abacus"):
        load_bundle(path, allow_uncertified=True)
