"""Heads with other lags: exported as one output, in every precision, and certified like the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_hal.bundle import expected_graphs, load_bundle
from edge_hal.export.bundle import export_bundle
from edge_hal.export.certificate import all_heads, certify
from edge_hal.model.model_file import load_checkpoint, save_model
from edge_hal.model.one_pass import one_pass
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers import small_int8
from tests.helpers.small_models import MadeOnce, random_input, save_run

SPEC = replace(small_int8.SPEC, lag_s=0.6, other_lags_s=(0.0, 0.3, 1.2))
LABELS = len(SPEC.labels)
PRECISIONS = ("fp32", "fp16", "int8")


def export_all(folder: Path) -> None:
    run = save_run(folder / "run", SPEC, small_int8.SEED, reference=random_input(700, seed=8))
    export_bundle(run, folder / "fp32")
    export_bundle(run, folder / "fp16", precision="fp16")
    how: dict[str, Any] = {"recordings": small_int8.recordings(), "budget": small_int8.GENEROUS}
    export_bundle(run, folder / "int8", precision="int8", target="onnxruntime", **how)


@pytest.fixture(scope="module")
def made(made_once: MadeOnce) -> Path:
    return made_once("lagged", export_all)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_heads_are_certified_in_every_precision(made: Path, precision: str) -> None:
    bundle = load_bundle(made / precision)
    assert bundle.certified and bundle.spec == SPEC
    certificate = json.loads((made / precision / "certificate.json").read_text())
    outputs = sum(len(SPEC.outputs(level)) for level in range(2))
    assert certificate["passed"] and certificate["checks"][0]["tensors"] >= outputs
    for name in (each for each in expected_graphs(SPEC, precision) if each.startswith("level0")):
        graph = onnx.load(made / precision / name).graph
        [head] = [output for output in graph.output if output.name == "lagged"]
        shape = [dim.dim_value for dim in head.type.tensor_type.shape.dim]
        assert shape[1] == 3 * LABELS and head.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03), ("int8", 0.6)])
def test_the_heads_of_a_bundle_are_those_of_the_model(made: Path, precision: str, tolerance: float) -> None:
    checkpoint, x = load_checkpoint(made / "run"), random_input(160, seed=4)
    whole = one_pass(checkpoint.pyramid, checkpoint.front_end, x)
    stream, rows = PyramidStream(SPEC, open_engines(load_bundle(made / precision))), []
    for start in range(0, len(x), 2):
        stream.push(x[start : start + 2], range(start, start + 2))
        rows.append(stream.heads(2).copy())
    found, wanted = np.concatenate(rows), whole.heads()
    assert found.shape == wanted.shape == (160, SPEC.heads_width) == (160, 4 * LABELS)
    np.testing.assert_allclose(np.exp(found), np.exp(wanted), atol=tolerance)
    for head in range(4):  # each head is a distribution of its own
        part = slice(head * LABELS, (head + 1) * LABELS)
        np.testing.assert_allclose(np.exp(found[:, part]).sum(1), 1, atol=1e-4)
        assert head == 0 or np.abs(found[:, part] - found[:, :LABELS]).max() > 0.1
    outputs = {f"level0.{name}": value for name, value in whole.outputs[0].items()}
    np.testing.assert_array_equal(all_heads(outputs), wanted)


def test_a_wrong_head_is_not_certified(made: Path, tmp_path: Path) -> None:
    """One weight of the heads with other lags is changed in the run, after the export."""
    run = save_run(tmp_path / "run", SPEC, small_int8.SEED, reference=random_input(700, seed=8))
    checkpoint = load_checkpoint(run)
    lagged = checkpoint.pyramid.levels[0].lagged
    assert isinstance(lagged, torch.nn.Linear) and lagged.out_features == 3 * LABELS
    with torch.no_grad():
        lagged.bias[2 * LABELS] += 0.2
    save_model(run / "model.safetensors", checkpoint.pyramid, checkpoint.front_end, checkpoint.decoder, {})
    certificate = certify(load_bundle(made / "fp32"), load_checkpoint(run))
    failed = [check for check in certificate["checks"] if not check["passed"]]
    assert not certificate["passed"] and any("lagged" in check["worst"] for check in failed)


def test_the_weights_of_the_heads_stay_in_float_in_int8(made: Path) -> None:
    """As those of the head `frame`: a head decides, and costs nothing."""
    name = next(each for each in expected_graphs(SPEC, "int8") if each.startswith("level0"))
    weights = [numpy_helper.to_array(each) for each in onnx.load(made / "int8" / name).graph.initializer]
    width = SPEC.levels[0].width
    heads = [each for each in weights if sorted(each.shape) == sorted((width, 3 * LABELS))]
    assert heads and all(each.dtype in (np.float32, np.float16) for each in heads)
