"""Bridges, brokers and databases killed for real: what `benchmarks/bridge_kills.py` measures, with fewer kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bridge_kills import measure

NEEDS = {"sqlite": "sqlalchemy", "postgresql": "psycopg", "mqtt": "paho.mqtt.client", "webhook": "json"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NEEDS)
def test_kills_of_either_side_lose_nothing(kind: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS[kind])
    outcome = measure(kind, tmp_path, kills=4, seed=len(kind))
    assert (outcome.lost, outcome.altered) == (0, 0) and outcome.events > 200
    if kind in ("sqlite", "postgresql"):
        assert outcome.repeated == 0
