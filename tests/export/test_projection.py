"""A front end that projects: exported into level 0, certified in every precision, and never one of the int8 layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.export.bundle import export_bundle
from edge_hal.export.quantise import layers_of
from edge_hal.model.model_file import load_checkpoint
from edge_hal.model.one_pass import one_pass
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers import small_int8
from tests.helpers.small_models import MadeOnce, random_input, save_run, small_spec

SIZE, KEPT = 40, 3
SPEC = small_spec(small_int8.LEVELS, size=SIZE, projected=KEPT)


def export_floats(folder: Path) -> None:
    run = save_run(folder / "run", SPEC, small_int8.SEED, reference=random_input(700, SIZE, seed=8))
    export_bundle(run, folder / "fp32")
    export_bundle(run, folder / "fp16", precision="fp16")


@pytest.fixture(scope="module")
def made(made_once: MadeOnce) -> Path:
    return made_once("projected", export_floats)


def check_bundle(path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.certified and bundle.spec == SPEC
    assert json.loads((path / "certificate.json").read_text())["passed"]
    states = {tensor.name: tensor.shape for tensor in bundle.spec.states(0)}
    assert states["l0.z"] == (SPEC.front_end.history, KEPT)
    graph = onnx.load(bundle.graph(0, 1)).graph
    weights = {entry.name: tuple(entry.dims) for entry in graph.initializer}
    [product] = [node for node in graph.node if weights.get(node.input[-1]) == (SIZE, KEPT)]
    assert product.op_type == "MatMul"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_projecting_model_is_certified(made: Path, name: str) -> None:
    check_bundle(made / name)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_projecting_model_is_certified_in_int8(made: Path, target: str, tmp_path: Path) -> None:
    recordings = [CalibrationRecording(f"r{i}", random_input(700, SIZE, seed=i)) for i in range(2)]
    how: dict[str, Any] = {"recordings": recordings, "budget": small_int8.GENEROUS, "work": tmp_path / "work"}
    export_bundle(made / "run", tmp_path / "int8", precision="int8", target=target, **how)
    check_bundle(tmp_path / "int8")


@pytest.mark.slow
def test_the_projection_is_no_layer_of_int8(made: Path) -> None:
    model = onnx.load(load_bundle(made / "fp32").graph(0, 1))
    assert all("front_end" not in layer and "directions" not in layer for layer in layers_of(model, "l0"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03)])
def test_a_bundle_takes_long_vectors_and_gives_the_posteriors_of_the_model(
    made: Path, name: str, tolerance: float
) -> None:
    checkpoint, x = load_checkpoint(made / "run"), random_input(160, SIZE, seed=4)
    expected = one_pass(checkpoint.pyramid, checkpoint.front_end, x).heads()
    bundle = load_bundle(made / name)
    stream = PyramidStream(SPEC, open_engines(bundle))
    stream.reset()
    rows = []
    for tick, row in enumerate(x):
        stream.push(row[None], (tick,))
        rows.append(stream.heads(1).copy())
    assert np.abs(np.exp(np.concatenate(rows)) - np.exp(expected)).max() < tolerance
