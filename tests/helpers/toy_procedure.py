"""A toy pyramid with heads of several lags that decides by a belief, and whose procedure has rules. On `steps`, steps
are skipped, out of order, repeated and overdue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.toy_pyramid import toy_bundle, toy_spec

HZ = 10.0
SPEC = toy_spec((4, 3), lag_s=0.6, other_lags_s=(0.0, 0.3), lookback_s=4.0, model_hz=HZ)


def step(**rules: Any) -> Step:
    usual = {"first": 1 / 3, "share": 1 / 3, "median_s": 2.0, "spread": 1.6, "shortest_s": 0.3}
    return Step(**{**usual, "optional": False, "repeatable": False, **rules})


PROCEDURE = Procedure(
    {
        "a": step(begins_cycle=True, then={"b": 1.0}),
        "b": step(requires={"a": 0.9}, then={"c": 1.0}, overdue_s=4.0),
        "c": step(requires={"a": 0.9, "b": 0.9}, ends_cycle=True, then={"a": 1.0}),
    }
)
BELIEF = DecoderConfig(
    min_duration_s=0.3,
    lead_s=0.1,
    decide_at=0.6,
    decide_hz=6.0,
    belief_hz=10.0,
    free_order=0.2,
    procedure=PROCEDURE,
)


def procedure_bundle(path: Path, decoder: DecoderConfig = BELIEF) -> Bundle:
    return toy_bundle(path, SPEC, decoder)


def steps(count: int = 60, seed: int = 3) -> NDArray[np.float32]:
    """(T, 5): `count` stretches of 0.8 to 5 s, each around a random vector of its own."""
    rng = np.random.default_rng(seed)
    size = SPEC.front_end.size
    rows = 3 * np.repeat(rng.normal(size=(count, size)), rng.integers(8, 50, count), axis=0)
    return np.asarray(rows + 0.5 * rng.normal(size=rows.shape), np.float32)
