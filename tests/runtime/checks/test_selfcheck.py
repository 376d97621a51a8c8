"""The state of a stream of any age is that of a fresh one that saw the last receptive field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.bundle import graph_name
from edge_hal.events import Event
from edge_hal.runtime.checks.selfcheck import History, SelfCheck, deviation
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge_hal.runtime.runner import RunOptions, Summary, run
from edge_hal.runtime.stream.pyramid import PyramidStream
from tests.helpers.toy_pyramid import numpy_engines, toy_bundle, toy_spec

STEP_NS = 100_000_000


def signal(count: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def grow(stream: PyramidStream, history: History, x: NDArray[np.float32], cuts: list[int]) -> None:
    done, turn = 0, 0
    while done < len(x):
        end = min(len(x), done + cuts[turn % len(cuts)])
        stream.push(x[done:end], list(range(done, end)))
        history.add(x[done:end])
        done, turn = end, turn + 1


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(), (4,), (4, 3), (2, 5), (1, 3), (4, 1)]),
    st.integers(1, 700),
    st.lists(st.integers(1, 13), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_at_any_age_and_however_it_was_chunked(strides: Any, age: int, cuts: list[int], seed: int) -> None:
    spec = toy_spec(strides)
    stream, history = PyramidStream(spec, numpy_engines(spec)), History(spec)
    grow(stream, history, signal(age, 5, seed), cuts)
    recent, fresh = history.recent(), PyramidStream(spec, numpy_engines(spec))
    assert min(age, spec.receptive_field) <= len(recent) < spec.receptive_field + spec.period(spec.top)
    assert deviation(fresh, recent, stream.states()) <= 1.0
    # and what is not the same is found
    states = stream.states()
    name = sorted(states)[seed % len(states)]
    states[name].flat[seed % states[name].size] += 0.01 * max(1.0, float(np.abs(states[name]).max()))
    assert deviation(fresh, recent, states) > 1.0
    if age > 2:
        assert deviation(fresh, np.delete(recent, -2, axis=0), stream.states()) > 1.0


@pytest.mark.slow
def test_a_real_pyramid_on_its_engine_after_many_receptive_fields(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from edge_hal.export.graphs import export_level
    from tests.helpers.small_models import TWO, random_model, small_spec

    spec = small_spec(TWO)
    pyramid, front_end = random_model(spec, 3)
    for level in range(len(spec.levels)):
        for chunk in spec.chunks(level):
            export_level(pyramid, front_end, level, chunk, "fp32", tmp_path)

    def engines() -> list[Any]:
        return [
            OnnxRuntimeEngine.open({c: tmp_path / graph_name(i, c, "fp32") for c in spec.chunks(i)}, spec, i)
            for i in range(len(spec.levels))
        ]

    stream, history = PyramidStream(spec, engines()), History(spec)
    fresh, x = PyramidStream(spec, engines()), signal(20 * spec.receptive_field, 3, 1)
    for done in range(0, len(x), 2 * spec.receptive_field + 1):
        grow(stream, history, x[done : done + 2 * spec.receptive_field + 1], [1, 4, 3])
        assert deviation(fresh, history.recent(), stream.states()) <= 1.0
    early = history.recent()[spec.period(spec.top) :]  # a bin short of a receptive field is too short
    assert deviation(fresh, early[spec.receptive_field // 2 :], stream.states()) > 1.0


# --- on line -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", toy_spec((4, 3))).path


def checked(bundle: Path, folder: Path, script: str = "", every_s: float = 5.0) -> tuple[Summary, list[Event]]:
    np.save(folder / "f.npy", signal(1500, 5))
    events: list[Event] = []
    options = RunOptions(bundle, f"{script}features:{folder}/f.npy@10", "tcp://127.0.0.1:*", pace="asap")
    return run(replace(options, selfcheck_s=every_s), on_event=events.append), events


def test_a_run_checks_itself_and_reports_it(tmp_path: Path, bundle: Path) -> None:
    summary, _ = checked(bundle, tmp_path)
    health = summary.health["selfcheck"]
    assert health["checks"] >= 1 and health["failed"] == 0 and 0 <= health["worst"] <= 1
    assert health["t_ns"] >= 5_000_000_000


def test_checks_start_afresh_with_each_epoch(tmp_path: Path, bundle: Path) -> None:
    summary, events = checked(bundle, tmp_path, "fault:unplug@20s+3s,unplug@33s+2s,unplug@90s+2s:", 0.5)
    assert sum(event.type == "gap" for event in events) == 3
    assert summary.health["selfcheck"]["checks"] >= 2 and summary.health["selfcheck"]["failed"] == 0


def test_a_state_that_drifts_is_found_reported_and_logged(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = PyramidStream.states
    monkeypatch.setattr(
        PyramidStream,
        "states",
        lambda self: {name: value + 1e-3 * (self.ticks > 400) for name, value in real(self).items()},
    )
    # Only the old stream has seen more than 400 ticks: its state is off by a thousandth from then on.
    summary, _ = checked(bundle, tmp_path, every_s=30.0)
    assert summary.health["selfcheck"]["failed"] >= 1
    assert "not that of a fresh stream" in "\n".join(record.getMessage() for record in caplog.records)


def test_a_check_that_cannot_be_made_is_a_failed_one(caplog: pytest.LogCaptureFixture) -> None:
    spec = toy_spec()

    def nothing() -> list[Any]:
        raise OSError("the bundle is gone")

    check = SelfCheck(spec, 0.1, nothing)
    stream = PyramidStream(spec, numpy_engines(spec))
    stream.push(signal(4, 5), [tick * STEP_NS for tick in range(4)])
    check.stepped(signal(4, 5), 3 * STEP_NS, stream)
    check.close()
    assert (check.health()["selfcheck"]["checks"], check.health()["selfcheck"]["failed"]) == (1, 1)
    assert "the bundle is gone" in "\n".join(record.getMessage() for record in caplog.records)


def test_checks_go_on_after_one_that_could_not_be_made() -> None:
    spec, opened = toy_spec(), list[int]()

    def levels() -> list[Any]:
        opened.append(len(opened))
        if len(opened) == 2:
            raise OSError("the bundle is gone for a moment")
        return list(numpy_engines(spec))

    check = SelfCheck(spec, 0.1, levels)
    for number in range(3):
        stream = PyramidStream(spec, numpy_engines(spec))
        stream.push(signal(4, 5), [tick * STEP_NS for tick in range(4)])
        check._history.reset()
        check.stepped(signal(4, 5), (3 + 4 * number) * STEP_NS, stream)
        check.close()
        check._stream = None  # each check opens engines
    found = check.health()["selfcheck"]
    assert (found["checks"], found["failed"], found["worst"]) == (3, 1, None)
    assert found["t_ns"] == 11 * STEP_NS and len(opened) == 3


def test_a_state_that_is_no_number_is_drift() -> None:
    spec = toy_spec()
    stream, history = PyramidStream(spec, numpy_engines(spec)), History(spec)
    grow(stream, history, signal(30, 5), [3])
    states = stream.states()
    states[sorted(states)[0]].flat[0] = np.nan
    assert deviation(PyramidStream(spec, numpy_engines(spec)), history.recent(), states) == np.inf
