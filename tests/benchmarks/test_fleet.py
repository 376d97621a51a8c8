"""`benchmarks/fleet.py` with two stations: real stations, bridges and broker."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.fleet import measured, small_bundle


@pytest.mark.slow
def test_everything_that_two_stations_publish_arrives(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    arguments = argparse.Namespace(streams=2, step_s=1.0, seconds=8.0)
    found = measured(small_bundle(tmp_path, 1.0), 2, arguments)
    assert found["missing"] == 0 and found["durable"] > 1 and found["messages"] > found["durable"]
    assert 0 < found["lag_ms"]["p50"] <= found["lag_ms"]["largest"]
    assert min(found["cores"].values()) >= 0 and min(found["memory_mb"].values()) > 0
