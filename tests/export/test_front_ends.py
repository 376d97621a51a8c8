"""Front ends that project or take a baseline off: exported into level 0, certified in every precision, and never one of
the int8 layers."""

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

SIZE, KEPT, TICKS = 40, 3, 20
SPECS = {
    "projected": small_spec(small_int8.LEVELS, size=SIZE, projected=KEPT),
    "baseline": small_spec(small_int8.LEVELS, size=SIZE, baseline=TICKS),
}
SHAPES = {"projected": {"l0.z": (5, KEPT)}, "baseline": {"l0.z": (5, SIZE), "l0.y": (TICKS - 1, SIZE)}}
"""Of states: two windows of 3 ticks without the newest tick, and the window of the baseline without it."""

pytestmark = pytest.mark.slow
each_kind = pytest.mark.parametrize("kind", SPECS)


def made(made_once: MadeOnce, kind: str) -> Path:
    def export_floats(folder: Path) -> None:
        run = save_run(folder / "run", SPECS[kind], small_int8.SEED, reference=random_input(700, SIZE, seed=8))
        export_bundle(run, folder / "fp32")
        export_bundle(run, folder / "fp16", precision="fp16")

    return made_once(kind, export_floats)


def check_bundle(path: Path, kind: str) -> None:
    bundle = load_bundle(path)
    assert bundle.certified and bundle.spec == SPECS[kind]
    assert json.loads((path / "certificate.json").read_text())["passed"]
    states = {tensor.name: tensor.shape for tensor in bundle.spec.states(0)}
    assert {name: states[name] for name in SHAPES[kind]} == SHAPES[kind]


@each_kind
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_model_is_certified(made_once: MadeOnce, kind: str, name: str) -> None:
    check_bundle(made(made_once, kind) / name, kind)


@each_kind
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_model_is_certified_in_int8(made_once: MadeOnce, kind: str, target: str, tmp_path: Path) -> None:
    recordings = [CalibrationRecording(f"r{i}", random_input(700, SIZE, seed=i)) for i in range(6)]
    how: dict[str, Any] = {"recordings": recordings, "budget": small_int8.GENEROUS, "work": tmp_path / "work"}
    export_bundle(made(made_once, kind) / "run", tmp_path / "int8", precision="int8", target=target, **how)
    check_bundle(tmp_path / "int8", kind)


@each_kind
def test_the_front_end_is_no_layer_of_int8(made_once: MadeOnce, kind: str) -> None:
    model = onnx.load(load_bundle(made(made_once, kind) / "fp32").graph(0, 1))
    assert all("front_end" not in layer and "directions" not in layer for layer in layers_of(model, "l0"))


def test_a_projection_is_one_product(made_once: MadeOnce) -> None:
    for name in ("fp32", "fp16"):
        graph = onnx.load(load_bundle(made(made_once, "projected") / name).graph(0, 1)).graph
        weights = {entry.name: tuple(entry.dims) for entry in graph.initializer}
        [product] = [node for node in graph.node if weights.get(node.input[-1]) == (SIZE, KEPT)]
        assert product.op_type == "MatMul"


@each_kind
@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03)])
def test_a_bundle_gives_the_posteriors_of_the_model(
    made_once: MadeOnce, kind: str, name: str, tolerance: float
) -> None:
    folder, spec, x = made(made_once, kind), SPECS[kind], random_input(160, SIZE, seed=4)
    checkpoint = load_checkpoint(folder / "run")
    expected = one_pass(checkpoint.pyramid, checkpoint.front_end, x).heads()
    stream = PyramidStream(spec, open_engines(load_bundle(folder / name)))
    stream.reset()
    rows = []
    for tick, row in enumerate(x):
        stream.push(row[None], (tick,))
        rows.append(stream.heads(1).copy())
    assert np.abs(np.exp(np.concatenate(rows)) - np.exp(expected)).max() < tolerance
