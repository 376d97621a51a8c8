from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edge_hal
from edge_hal.bundle import expected_graphs, file_hash, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Start, Transition
from edge_hal.export import bundle as exporting
from edge_hal.export import certificate
from edge_hal.export.bundle import export_bundle, read_reference
from edge_hal.export.certificate import certify, reference_input, snapshots
from edge_hal.export.graphs import export_encoder
from edge_hal.export.layer_checks import AGE_TICKS
from edge_hal.export.lint import lint_step_graph
from edge_hal.model.encoder import FrameEncoder
from edge_hal.model.model_file import load_checkpoint
from edge_hal.model.one_pass import one_pass
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import EncoderSpec, LevelSpec
from tests.helpers.small_models import (
    EXPORTED,
    EXPORTED_SEED,
    MadeOnce,
    random_input,
    random_model,
    save_encoder,
    save_run,
    small_spec,
)

SPEC = EXPORTED
ENCODER = EncoderSpec(height=12, width=16, size=3)
Edit = Callable[[onnx.ModelProto], None]


def export_all(folder: Path) -> None:
    """`run`, a run directory with an encoder, and its pictures and vectors as reference; `bundle`, made from it."""
    path = save_run(folder / "run", SPEC, EXPORTED_SEED)
    save_encoder(path / "encoder.onnx", SPEC)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 12, 16, 3), dtype=np.uint8)
    vectors = encode_pictures(path / "encoder.onnx", pictures)
    x = np.concatenate([vectors, random_input(40)])
    np.savez(path / "reference.npz", x=x, pictures=pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "AGE_TICKS", AGE_TICKS)
        export_bundle(path, folder / "bundle")


@pytest.fixture(scope="module")
def run(made_once: MadeOnce) -> Path:
    return made_once("exported", export_all) / "run"


@pytest.fixture(scope="module")
def good(made_once: MadeOnce) -> Path:
    return made_once("exported", export_all) / "bundle"


def contents(path: Path) -> dict[str, str]:
    return {entry.name: file_hash(entry) for entry in sorted(path.iterdir())}


# --- real graphs ---------------------------------------------------------------------------------


def test_graphs_equal_torch_over_more_than_ten_thousand_ticks(run: Path, good: Path) -> None:
    x = random_input(10_007, seed=9)
    checkpoint = load_checkpoint(run)
    expected = one_pass(checkpoint.pyramid, checkpoint.front_end, x)
    stream = PyramidStream(SPEC, open_engines(load_bundle(good)))
    rng, done = np.random.default_rng(1), 0
    while done < len(x):
        part = x[done : done + int(rng.integers(1, 40))]
        stream.push(part, range(done, done + len(part)))
        done += len(part)
        for level, outputs in enumerate(expected.outputs):
            for name, value in outputs.items():
                kept, tokens = stream.ring.last(level, name, 40), stream.ring.count(level)
                wanted = value[tokens - len(kept) : tokens]
                np.testing.assert_allclose(kept, wanted, rtol=1e-4, atol=1e-5, err_msg=f"{level} {name}")
        if rng.random() < 0.05 or done == len(x):
            states = stream.states()
            for name, value in expected.states(done).items():
                np.testing.assert_allclose(states[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_level_that_keeps_the_rate_below_is_exported_and_equals_torch(tmp_path: Path) -> None:
    spec = small_spec((LevelSpec(1, 4, 8, 2, 1), LevelSpec(1, 3, 12, 3, 1), LevelSpec(3, 3, 8, 2, 1)))
    run = save_run(tmp_path / "run", spec, seed=4)
    stream = PyramidStream(spec, open_engines(load_bundle(export_bundle(run, tmp_path / "bundle").path)))
    checkpoint, x = load_checkpoint(run), random_input(120, seed=6)
    stream.push(x, range(len(x)))
    for level, outputs in enumerate(one_pass(checkpoint.pyramid, checkpoint.front_end, x).outputs):
        for name, value in outputs.items():
            kept, tokens = stream.ring.last(level, name, 40), stream.ring.count(level)
            np.testing.assert_allclose(kept, value[tokens - len(kept) : tokens], rtol=1e-4, atol=1e-5)


def test_the_bundle_says_where_it_came_from_and_what_was_proved(run: Path, good: Path) -> None:
    bundle = load_bundle(good)
    assert bundle.certified and bundle.provenance["by"] == "tests"
    assert bundle.provenance["model_sha256"] == file_hash(run / "model.safetensors")
    assert bundle.provenance["export"]["opset"] == 20
    assert bundle.provenance["export"]["torch"] == torch.__version__
    assert bundle.encoder is not None and bundle.encoder.read_bytes() == (run / "encoder.onnx").read_bytes()
    found = json.loads((good / "certificate.json").read_text())
    assert found["passed"] and found["reference"] == "real"
    assert found["reference_ticks"] == 48 and found["ticks"] > SPEC.receptive_field
    names = [check["name"] for check in found["checks"]]
    for chunk in SPEC.chunk_sizes:
        assert any(name.startswith(f"torch in steps of {chunk} ") for name in names)
        assert any(name.startswith(f"onnxruntime in steps of {chunk} ") for name in names)
    assert any(name.startswith("after 10000") and name.endswith("from a fresh start") for name in names)
    assert len(names) == len(set(names)) == 3 * len(SPEC.chunk_sizes) + 2 + 3
    for check in found["checks"]:
        if check["name"].startswith("torch"):
            assert check["max_abs"] <= 1e-9 == check["tolerance_abs"]
    outputs = sum(len(SPEC.outputs(level)) for level in range(3))
    states = sum(len(SPEC.states(level)) for level in range(3))
    when = snapshots(found["ticks"], 1)
    assert found["checks"][0]["tensors"] == outputs + states * len(when)
    assert found["metrics"]["frame_agreement"] >= 0.99


@pytest.mark.slow
def test_no_graph_names_a_folder_of_the_machine_that_made_it(run: Path, good: Path, tmp_path: Path) -> None:
    export_bundle(run, tmp_path / "fp16", precision="fp16")
    graphs = [run / "encoder.onnx", *good.glob("*.onnx"), *(tmp_path / "fp16").glob("*.onnx")]
    assert len(graphs) == 1 + 2 * len(expected_graphs(SPEC, "fp32"))
    folders = [str(Path(module.__file__).parent).encode() for module in (edge_hal, torch, onnx) if module.__file__]
    for graph in graphs:
        data = graph.read_bytes()
        for text in (*folders, b"stack_trace", b".py", b"site-packages", str(tmp_path).encode()):
            assert text not in data, (graph.name, text)


def test_the_model_file_alone_will_do_and_random_input_says_so(run: Path, good: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "encoder.onnx"):
        shutil.copy(run / name, tmp_path / name)
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    found = certify(load_bundle(good), checkpoint)
    assert found["passed"] and found["reference"] == "random"
    assert found == certify(load_bundle(good), checkpoint)


def test_a_bundle_runs_through_the_python_api(good: Path) -> None:
    rng = np.random.default_rng(2)
    with edge_hal.open_stream(good) as stream:
        events = []
        for frame in range(200):
            picture = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            events += stream.push(picture, frame * 100_000_000)
        assert isinstance(events[0], Start) and events[0].labels == SPEC.labels
        assert any(isinstance(event, Transition) for event in events)
        assert stream.counters["ticks"] == 200


@pytest.mark.slow
def test_a_flat_model_is_exported_too(tmp_path: Path) -> None:
    spec = small_spec((LevelSpec(1, 4, 8, 2, 1),))
    run = save_run(tmp_path / "run", spec)
    stages = []
    bundle = export_bundle(run, tmp_path / "bundle", progress=lambda *report: stages.append(report))
    found = json.loads((bundle.path / "certificate.json").read_text())
    assert found["passed"] and found["reference"] == "random"
    assert {stage for stage, *_ in stages} == {"export", "certify"}
    for stage in ("export", "certify"):
        done = [d for s, d, _, _ in stages if s == stage]
        assert done == sorted(done) and done[-1] == next(t for s, _, t, _ in stages if s == stage)


# --- broken exports ------------------------------------------------------------------------------


def swapped(first: str, second: str) -> Edit:
    """Two outputs exchange what they are fed from."""

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = {first: second, second: first}.get(name, name)

    return edit


def off_by_one(output: str) -> Edit:
    """The window of a state slides one token too little."""

    def edit(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if output in node.output)
        assert node.op_type == "Slice"
        constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
        start = constants[node.input[1]]
        for index, name, value in ((1, "early", start - 1), (2, "end", np.full_like(start, -1))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
            node.input[index] = name

    return edit


def another_weight(model: onnx.ModelProto) -> None:
    largest = max(
        (entry for entry in model.graph.initializer if entry.data_type == TensorProto.FLOAT),
        key=lambda entry: np.prod(entry.dims),
    )
    value = numpy_helper.to_array(largest).copy()
    value.flat[value.size // 2] += 0.02
    largest.CopyFrom(numpy_helper.from_array(value, largest.name))


def never_valid(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if "l1.valid.next" in node.output)
    node.CopyFrom(helper.make_node("Identity", ["l1.valid"], ["l1.valid.next"]))


BROKEN: dict[str, tuple[str, Edit]] = {
    "keys and values swapped": ("level0.c1.fp32.onnx", swapped("l0.b0.k.next", "l0.b0.v.next")),
    "blocks swapped": ("level0.c2.fp32.onnx", swapped("l0.b0.k.next", "l0.b1.k.next")),
    "one chunk size off by one": ("level0.c2.fp32.onnx", off_by_one("l0.b1.v.next")),
    "upper level off by one": ("level2.c1.fp32.onnx", off_by_one("l2.b0.k.next")),
    "one weight": ("level1.c1.fp32.onnx", another_weight),
    "one weight in one chunk size": ("level0.c2.fp32.onnx", another_weight),
    "cache never valid": ("level1.c1.fp32.onnx", never_valid),
    "trunk for fused": ("level1.c1.fp32.onnx", swapped("trunk", "fused")),
}


FEW = ("keys and values swapped", "one weight in one chunk size", "cache never valid")


@pytest.mark.parametrize(
    "what", [what if what in FEW else pytest.param(what, marks=pytest.mark.slow) for what in BROKEN]
)
def test_a_broken_export_is_not_certified_and_leaves_nothing(
    what: str, run: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, edit = BROKEN[what]

    def export_level(_pyramid: Any, _front_end: Any, level: Any, chunk: Any, precision: Any, out: Path) -> None:
        name = f"level{level}.c{chunk}.{precision}.onnx"
        model = onnx.load(good / name)
        if name == broken:
            edit(model)
            lint_step_graph(model, SPEC, level, chunk, name)  # it looks right
        onnx.save(model, out / name)

    monkeypatch.setattr(exporting, "export_level", export_level)
    with pytest.raises(EdgeHalError, match="do not compute what was trained"):
        export_bundle(run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    kept = Path(shutil.copytree(good, tmp_path / "bundle"))
    before = contents(kept)
    with pytest.raises(EdgeHalError, match="failed: onnxruntime"):
        export_bundle(run, kept)
    assert contents(kept) == before and [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_another_encoder_than_that_of_training_is_not_certified(
    run: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    torch.manual_seed(6)
    export_encoder(FrameEncoder(ENCODER), ENCODER, other / "encoder.onnx")
    monkeypatch.setattr(
        exporting,
        "export_level",
        lambda _p, _f, level, chunk, precision, out: shutil.copy(good / f"level{level}.c{chunk}.{precision}.onnx", out),
    )
    with pytest.raises(EdgeHalError, match="failed: encoder"):
        export_bundle(other, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# --- references ---------------------------------------------------------------------------------------


def test_a_reference_is_longer_than_the_receptive_field_and_restarts_on_a_bin() -> None:
    for real in (None, random_input(7), random_input(900), random_input(9000)):
        x, restart = reference_input(SPEC, real)
        assert len(x) >= restart + SPEC.receptive_field and len(x) <= 3000
        assert restart > 0 and restart % SPEC.period(SPEC.top) == 0
        if real is not None:
            np.testing.assert_array_equal(x[: len(real)], real[: len(x)])
            np.testing.assert_array_equal(x[len(real) :][:5], real[:5][: max(0, len(x) - len(real))])


def test_a_users_reference_may_lie_either_way_and_bad_ones_are_named(tmp_path: Path) -> None:
    x = random_input(20)
    np.save(tmp_path / "td.npy", x)
    np.save(tmp_path / "dt.npy", x.T.astype(np.float64))
    np.savez(tmp_path / "x.npz", x=x)
    for name in ("td.npy", "dt.npy", "x.npz"):
        np.testing.assert_array_equal(read_reference(tmp_path / name, SPEC), x)
    np.save(tmp_path / "wide.npy", random_input(20, size=4))
    np.save(tmp_path / "empty.npy", x[:0])
    np.save(tmp_path / "nan.npy", np.where(np.arange(60).reshape(20, 3) == 7, np.nan, x))
    np.savez(tmp_path / "y.npz", y=x)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("wide.npy", "empty.npy", "nan.npy", "y.npz", "objects.npy", "text.npy", "none.npy"):
        with pytest.raises(EdgeHalError, match=name):
            read_reference(tmp_path / name, SPEC)


# --- the lint ---------------------------------------------------------------------------------------------


def dynamic(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def newer(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def branch(model: onnx.ModelProto) -> None:
    def body(name: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, (1,))
        constant = helper.make_node("Constant", [], [f"{name}.y"], value_floats=[1.0])
        return helper.make_graph([constant], name, [], [made])

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    node = helper.make_node("If", ["true"], ["z"], "a_branch", then_branch=body("a"), else_branch=body("b"))
    model.graph.node.append(node)


def counter(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    model.graph.node.append(helper.make_node("Add", ["one", "one"], ["two"], "a_counter"))
    model.graph.value_info.append(helper.make_tensor_value_info("two", TensorProto.INT64, (1,)))


def shape(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Shape", [model.graph.input[0].name], ["s"], "a_shape"))


def moving_slice(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Slice")
    model.graph.node.insert(0, helper.make_node("Identity", [node.input[1]], ["moving"]))
    node.input[1] = "moving"


def misnamed(model: onnx.ModelProto) -> None:
    swapped("frame", "frames")(model)
    next(entry for entry in model.graph.output if entry.name == "frame").name = "frames"


def stateless(model: onnx.ModelProto) -> None:
    kept = [entry for entry in model.graph.output if entry.name != "l0.b1.k.next"]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def additional(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("clock", TensorProto.FLOAT, (1,)))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (dynamic, "dynamic axis"),
        (newer, "opset 21"),
        (foreign, "com.microsoft"),
        (branch, r"a_branch.*control flow"),
        (counter, r"a_counter.*integer arithmetic"),
        (shape, r"a_shape.*static"),
        (moving_slice, "bounds are not constant"),
        (misnamed, "'frame'"),
        (stateless, r"l0\.b1\.k\.next"),
        (additional, "'clock'"),
    ],
)
def test_the_lint_refuses_and_says_what(good: Path, edit: Edit, told: str) -> None:
    name = "level0.c2.fp32.onnx"
    model = onnx.load(good / name)
    lint_step_graph(model, SPEC, 0, 2, name)
    edit(model)
    with pytest.raises(EdgeHalError, match=f"{name} was refused.*{told}"):
        lint_step_graph(model, SPEC, 0, 2, name)


def test_the_lint_knows_levels_and_chunks_apart(good: Path) -> None:
    model = onnx.load(good / "level0.c2.fp32.onnx")
    for level, chunk in ((0, 1), (1, 1), (2, 1)):
        with pytest.raises(EdgeHalError, match="refused"):
            lint_step_graph(model, SPEC, level, chunk, "graph")


def test_every_exported_graph_is_static_opset_20_and_known_to_the_checker(good: Path) -> None:
    for name in expected_graphs(SPEC, "fp32"):
        model = onnx.load(good / name)
        onnx.checker.check_model(model, full_check=True)
        assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)}
        for tensor in (*model.graph.input, *model.graph.output):
            assert all(dim.dim_value > 0 for dim in tensor.type.tensor_type.shape.dim)


def test_exporting_does_not_change_the_model(run: Path, good: Path) -> None:
    pyramid, front_end = random_model(SPEC, 3)
    checkpoint = load_checkpoint(run)
    for module, stored in ((pyramid, checkpoint.pyramid), (front_end, checkpoint.front_end)):
        for key, value in module.state_dict().items():
            assert torch.equal(value, stored.state_dict()[key])
