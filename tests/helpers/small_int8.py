"""A small model with heads of other lags, its bundles in every precision, and the recordings that int8 is calibrated
on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.calib.sensitivity import Budget
from edge_hal.export.bundle import export_bundle
from edge_hal.export.graphs import export_level
from edge_hal.spec import LevelSpec
from tests.helpers.small_models import MadeOnce, random_input, random_model, save_run, small_spec

LEVELS = (LevelSpec(1, 6, 16, 2, 1), LevelSpec(2, 4, 16, 2, 1))
SPEC, SEED = replace(small_spec(LEVELS), lag_s=0.6, other_lags_s=(0.0, 0.3, 1.2)), 2
GENEROUS = Budget(f1_points=60.0, within=0.4, ticks=5)
"""A random model wavers between labels at every tick: its events mean nothing, only that there is a budget."""


def recordings(ticks: int = 300, seed: int = 0) -> list[CalibrationRecording]:
    return [CalibrationRecording(f"r{i}", random_input(ticks, seed=seed + i)) for i in range(2)]


def write_graphs(folder: Path) -> Path:
    """The graph of level 0 for two ticks, in float32 and float16."""
    pyramid, front_end = random_model(SPEC, SEED)
    for precision in ("fp32", "fp16"):
        export_level(pyramid, front_end, 0, 2, precision, folder)
    return folder


TARGETS = ("tensorrt", "onnxruntime")
"""Of the int8 bundles."""


def export_all(folder: Path) -> None:
    run = save_run(folder / "run", SPEC, SEED, reference=random_input(200, seed=8))
    for precision in ("fp32", "fp16"):
        export_bundle(run, folder / precision, precision=precision)
    for target in TARGETS:
        export_bundle(run, folder / target, precision="int8", target=target, recordings=recordings(), budget=GENEROUS)


def all_precisions(made_once: MadeOnce) -> Path:
    """A folder with `run`, and its bundles `fp32`, `fp16` and, in int8, those of `TARGETS`. Nobody may write into
    it."""
    return made_once("all-precisions", export_all)
