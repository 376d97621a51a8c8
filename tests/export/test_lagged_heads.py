"""Heads with other lags: exported as one output, in every precision, and certified like the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_hal.bundle import expected_graphs, load_bundle
from edge_hal.export.certificate import all_heads, certify
from edge_hal.model.model_file import load_checkpoint, save_model
from edge_hal.model.one_pass import one_pass
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers.small_int8 import SEED, SPEC, all_precisions
from tests.helpers.small_models import MadeOnce, random_input, save_run

LABELS = len(SPEC.labels)
PRECISIONS = ("fp32", "fp16", "int8")
FOLDERS = {"fp32": "fp32", "fp16": "fp16", "int8": "onnxruntime"}


@pytest.fixture(scope="module")
def made(made_once: MadeOnce) -> Path:
    return all_precisions(made_once)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_heads_are_certified_in_every_precision(made: Path, precision: str) -> None:
    bundle = load_bundle(made / FOLDERS[precision])
    assert bundle.certified and bundle.spec == SPEC
    certificate = json.loads((made / FOLDERS[precision] / "certificate.json").read_text())
    outputs = sum(len(SPEC.outputs(level)) for level in range(2))
    assert certificate["passed"] and certificate["checks"][0]["tensors"] >= outputs
    for name in (each for each in expected_graphs(SPEC, precision) if each.startswith("level0")):
        graph = onnx.load(made / FOLDERS[precision] / name).graph
        [head] = [output for output in graph.output if output.name == "lagged"]
        shape = [dim.dim_value for dim in head.type.tensor_type.shape.dim]
        assert shape[1] == 3 * LABELS and head.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03), ("int8", 0.6)])
def test_the_heads_of_a_bundle_are_those_of_the_model(made: Path, precision: str, tolerance: float) -> None:
    checkpoint, x = load_checkpoint(made / "run"), random_input(160, seed=4)
    whole = one_pass(checkpoint.pyramid, checkpoint.front_end, x)
    stream, rows = PyramidStream(SPEC, open_engines(load_bundle(made / FOLDERS[precision]))), []
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
    run = save_run(tmp_path / "run", SPEC, SEED, reference=random_input(200, seed=8))
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
    weights = [numpy_helper.to_array(each) for each in onnx.load(made / FOLDERS["int8"] / name).graph.initializer]
    width = SPEC.levels[0].width
    heads = [each for each in weights if sorted(each.shape) == sorted((width, 3 * LABELS))]
    assert heads and all(each.dtype in (np.float32, np.float16) for each in heads)
