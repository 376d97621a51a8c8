"""A machine that is too slow is told once, and again after it had kept up for a while."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.runtime import overload_warning
from edge_hal.runtime.overload_warning import AGAIN_S, OverloadWarning


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waits_ms=st.lists(st.integers(1, 25_000), min_size=1, max_size=12))
def test_only_an_overload_after_a_pause_is_told_again(
    waits_ms: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    warning = OverloadWarning()
    for number, t_ms in enumerate(itertools.accumulate(waits_ms)):
        monkeypatch.setattr(overload_warning.time, "monotonic_ns", lambda t_ms=t_ms: 10**6 * t_ms)
        warning.tell("left", 10.0, number + 1)
    told = [number for number, wait_ms in enumerate(waits_ms) if not number or wait_ms > 1000 * AGAIN_S]
    assert [record.message for record in caplog.records] == [
        f"left: too slow for 10 ticks a second, {number + 1} were cut; a smaller model, a lower model_hz or fewer "
        "streams would help"
        for number in told
    ]
