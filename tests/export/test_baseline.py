"""A front end with a baseline: exported into level 0 and certified in every precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.export.bundle import export_bundle
from edge_hal.model.model_file import load_checkpoint
from edge_hal.model.one_pass import one_pass
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers import small_int8
from tests.helpers.small_models import MadeOnce, random_input, save_run, small_spec

SIZE, TICKS = 12, 40
SPEC = small_spec(small_int8.LEVELS, size=SIZE, baseline=TICKS)


def export_floats(folder: Path) -> None:
    run = save_run(folder / "run", SPEC, small_int8.SEED, reference=random_input(700, SIZE, seed=8))
    export_bundle(run, folder / "fp32")
    export_bundle(run, folder / "fp16", precision="fp16")


@pytest.fixture(scope="module")
def made(made_once: MadeOnce) -> Path:
    return made_once("baseline", export_floats)


def check_stream(bundle_path: Path, run: Path, tolerance: float) -> None:
    """The states have the shapes of the table, and the stream gives what one pass gives."""
    bundle = load_bundle(bundle_path)
    assert bundle.certified and bundle.spec == SPEC
    assert {t.name: t.shape for t in bundle.spec.states(0)}["l0.y"] == (TICKS - 1, SIZE)
    x = random_input(300, SIZE, seed=5)
    stream = PyramidStream(SPEC, open_engines(bundle))
    stream.push(x, range(len(x)))
    checkpoint = load_checkpoint(run)
    expected = one_pass(checkpoint.pyramid, checkpoint.front_end, x)
    found = np.exp(stream.ring.last(0, "frame", 10**6))
    np.testing.assert_allclose(found, np.exp(expected.outputs[0]["frame"])[len(x) - len(found) :], atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03)])
def test_a_model_with_a_baseline_is_certified(made: Path, name: str, tolerance: float) -> None:
    check_stream(made / name, made / "run", tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_model_with_a_baseline_is_certified_in_int8(made: Path, target: str, tmp_path: Path) -> None:
    recordings = [CalibrationRecording(f"r{i}", random_input(700, SIZE, seed=i)) for i in range(6)]
    how: dict[str, Any] = {"recordings": recordings, "budget": small_int8.GENEROUS, "work": tmp_path / "work"}
    export_bundle(made / "run", tmp_path / "int8", precision="int8", target=target, **how)
    check_stream(tmp_path / "int8", made / "run", tolerance=0.6)
