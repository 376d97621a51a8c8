"""A small model to quantise, and recordings to calibrate it on."""

from __future__ import annotations

from pathlib import Path

from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.calib.sensitivity import Budget
from edge_hal.export.graphs import export_level
from edge_hal.spec import LevelSpec
from tests.helpers.small_models import random_input, random_model, small_spec

LEVELS = (LevelSpec(1, 6, 16, 2, 1), LevelSpec(2, 4, 16, 2, 1))
SPEC, SEED = small_spec(LEVELS), 2
GENEROUS = Budget(f1_points=60.0, within=0.4, ticks=5)
"""A random model wavers between labels at every tick: its events mean nothing, only that there is a budget."""


def recordings(ticks: int = 700, seed: int = 0) -> list[CalibrationRecording]:
    return [CalibrationRecording(f"r{i}", random_input(ticks, seed=seed + i)) for i in range(2)]


def write_graphs(folder: Path) -> Path:
    """The graph of level 0 for two ticks, in float32 and float16."""
    pyramid, front_end = random_model(SPEC, SEED)
    for precision in ("fp32", "fp16"):
        export_level(pyramid, front_end, 0, 2, precision, folder)
    return folder
