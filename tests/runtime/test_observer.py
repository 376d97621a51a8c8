"""What the loop tells its observers, and in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Gap
from edge_hal.runtime import runner
from edge_hal.runtime.observer import Observer
from edge_hal.runtime.runner import RunOptions
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import vectors
from tests.helpers.loops import ANY_PORT, features, segments


class Log(Observer):
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Observer) and not name.startswith("_") and name != "health":
            return lambda *arguments: self.calls.append((name, arguments))
        return super().__getattribute__(name)

    def health(self) -> dict[str, Any]:
        return {"log": len(self.calls)}

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]


def observed(monkeypatch: pytest.MonkeyPatch, options: RunOptions) -> tuple[list[Log], Any]:
    logs = [Log(), Log()]
    monkeypatch.setattr(runner, "_observers", lambda *_: logs)
    try:
        return logs, runner.run(replace(options, endpoint=ANY_PORT))
    except EdgeHalError as error:
        return logs, error


@pytest.mark.parametrize("script", ["", "fault:drop=5%,unplug@4s+2s,seed=1:"])
def test_observers_are_told_of_all_that_happens(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    rows = np.repeat(vectors(segments(1, 10)), 2, axis=0)
    camera = script + features(tmp_path, rows, 20)
    logs, summary = observed(monkeypatch, RunOptions(bundle, camera, pace="asap", max_hold_ms=300))
    names = [[name for name, _ in log.calls] for log in logs]
    assert names[0] == names[1]
    log, counters, counted = logs[0], summary.counters, Counter(names[0])
    assert counted["frame_taken"] + sum(missed for _, missed, _ in log.of("frame_taken")) == counters["captured"]
    assert counted["frame_shown"] == counters["fresh"] == counters["used"]
    stepped = [vector for vectors_of_step, _, _ in log.of("stepped") for vector in vectors_of_step]
    assert len(stepped) == counters["ticks"] - counters["cut"]
    events: list[Event] = [event for (event,) in log.of("published")]
    assert len(events) == summary.events and [event.seq for event in events] == list(range(len(events)))
    assert any(isinstance(event, Gap) for event in events) is bool(script)
    assert names[0][0] == "published" and names[0][-3:] == ["published", "ended", "close"]
    assert counted["idle"] > 0 and counted["bundle_changed"] == 0 and counted["close"] == 1
    assert log.of("ended")[0][0] == "eof" and summary.health["log"] == len(log.calls)


def test_a_run_that_fails_closes_its_observers_and_did_not_end(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Recognizer, data: Any) -> Any:
        raise EdgeHalError("the encoder broke")

    monkeypatch.setattr(Recognizer, "encode", fail)
    options = RunOptions(bundle, features(tmp_path, vectors([0] * 30), 10), pace="asap")
    logs, error = observed(monkeypatch, options)
    assert isinstance(error, EdgeHalError) and "broke" in error.what
    for log in logs:
        assert [name for name, _ in log.calls][-2:] == ["published", "close"] and not log.of("ended")
        assert log.of("published")[-1][0].reason == "error"


def test_a_checkpoint_is_taken_only_if_an_observer_asks(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = Recognizer.state, []
    monkeypatch.setattr(Recognizer, "state", lambda self: taken.append(1) or real(self))
    options = RunOptions(bundle, features(tmp_path, vectors([0] * 30), 10), pace="asap")
    logs, _ = observed(monkeypatch, options)
    assert not taken
    t_ns, checkpoint = logs[0].of("idle")[-1]
    found = checkpoint()
    assert len(taken) == 1 and found.t_ns == t_ns and found.state["clock"]["epoch"] == 0
