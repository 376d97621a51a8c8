"""The recogniser that decides by a belief: however its ticks are cut into chunks, and from wherever it goes on, it
gives the same events; and offline the same decisions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.decoding.decode import decode_posteriors
from edge_hal.events import Cycle, Deviation, Event, Moment, Transition, encode
from edge_hal.runtime.api import open_model, open_stream
from edge_hal.runtime.model import Model
from edge_hal.runtime.recording.state_file import check_like, load, save
from edge_hal.runtime.runner import RunOptions
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.loops import features, recorded
from tests.helpers.then_and_now import same
from tests.helpers.toy_procedure import BELIEF, HZ, SPEC, procedure_bundle, steps

ROWS = steps()
TICK_NS = round(1e9 / HZ)
MOMENTS = [Moment(tick, 2 * tick, tick * TICK_NS) for tick in range(len(ROWS))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(procedure_bundle(tmp_path_factory.mktemp("procedure") / "bundle").path)


def followed(stream: Recognizer, start: int, stop: int, longest: int) -> list[Event]:
    """Steps ticks start .. stop - 1, at most `longest` at once."""
    events = []
    for begin in range(start, stop, longest):
        end = min(begin + longest, stop)
        events += stream.follow(ROWS[begin:end], MOMENTS[begin:end])
    return events


@pytest.fixture(scope="module")
def expected(model: Model) -> list[Event]:
    stream = model.stream()
    events = followed(stream, 0, len(ROWS), 1) + stream.close_cycle()
    kinds = Counter(event.kind for event in events if isinstance(event, Deviation))
    assert sum(isinstance(event, Transition) for event in events) > 30
    assert sum(isinstance(event, Cycle) for event in events) > 10
    assert kinds.keys() == {"skipped", "out_of_order", "repeated", "overdue"}
    return events


def alike(found: Sequence[Event | None], wanted: Sequence[Event | None]) -> bool:
    """Graphs of other chunks sum in another order, so the last digits of a confidence may differ. `run` differs too."""
    bodies = [[json.loads(encode(e)) for e in events if e is not None] for events in (found, wanted)]
    now, then = ([{**body, "run": None} for body in part] for part in bodies)
    return same(now, then, tolerance=1e-4)


@pytest.mark.parametrize("longest", [2, 3, 4, 100])
def test_chunks_give_the_events_of_single_ticks(model: Model, expected: list[Event], longest: int) -> None:
    stream = model.stream()
    assert alike(followed(stream, 0, len(ROWS), longest) + stream.close_cycle(), expected)


def test_what_is_believed_does_not_depend_on_the_chunks(model: Model) -> None:
    found: list[list[Any]] = []
    for longest in (1, 4):
        stream = model.stream()
        reports: list[Any] = []
        done = 0
        while done < len(ROWS):
            done += stream.step(ROWS[done : done + longest], MOMENTS[done : done + longest])
            reports += [stream.now() for _ in stream.decide()]
            stream.settle()
        found.append(reports)
    assert len(found[0]) == len(ROWS) and alike(*found)
    assert all(report.at == moment for report, moment in zip(found[0], MOMENTS, strict=True))
    assert any(report.since is None for report in found[0])  # a step that is longer than the ring
    shares = [report.progress for report in found[0]]
    assert min(shares) < 0.3 and max(shares) > 0.8


def test_the_decisions_are_those_of_the_posteriors_of_all_heads(model: Model, expected: list[Event]) -> None:
    stream, rows = model.stream(), []
    for tick in range(len(ROWS)):
        stream.follow(ROWS[tick : tick + 1], MOMENTS[tick : tick + 1])
        rows.append(stream.pyramid.heads(1)[0].copy())
    heads = np.stack(rows)
    assert heads.shape == (len(ROWS), SPEC.heads_width) == (len(ROWS), 9)
    transitions = [event for event in expected if isinstance(event, Transition)]

    def read(posteriors: np.ndarray) -> list[tuple[str, int, int, float]]:
        decisions = decode_posteriors(posteriors, BELIEF, SPEC)
        return [(SPEC.labels[d.label], d.boundary_tick, d.decision_tick, d.confidence) for d in decisions]

    assert read(heads) == [(e.to, e.boundary.tick, e.decision.tick, e.confidence) for e in transitions]
    assert read(heads[:, :3]) != read(heads)  # the heads with other lags have their say


@pytest.mark.parametrize("at", [1, 5, 37, 250, 700, 1201])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(
    model: Model, expected: list[Event], tmp_path: Path, at: int
) -> None:
    stream = model.stream()
    before = followed(stream, 0, at, 1)
    save(tmp_path / "state.npz", stream.state())
    state = load(tmp_path / "state.npz")
    seqs = iter(range(len(before), 10_000))
    successor = model.stream(next_seq=seqs.__next__)
    check_like(successor.state(), state)
    successor.restore(state)
    np.testing.assert_equal(successor.state(), stream.state())
    assert before + followed(successor, at, len(ROWS), 1) + successor.close_cycle() == expected


def test_without_the_belief_and_the_procedure_a_state_goes_on_otherwise(model: Model, expected: list[Event]) -> None:
    """So both belong to the state."""
    for name in ("belief", "procedure"):
        stream, fresh = model.stream(), model.stream()
        before = followed(stream, 0, 702, 1)
        state = stream.state()
        if name == "belief":
            state["belief"]["filter"]["mass"][:, :, :] = state["belief"]["filter"]["mass"][:, ::-1]
        else:
            state["procedure"] = fresh.state()["procedure"]
        successor = model.stream(next_seq=iter(range(len(before), 10_000)).__next__)
        successor.restore(state)
        after = followed(successor, 702, len(ROWS), 1) + successor.close_cycle()
        assert not alike(before + after, expected)


def test_a_state_that_does_not_fit_is_refused(model: Model) -> None:
    stream = model.stream()
    followed(stream, 0, 200, 4)
    for newest, ticks in ((200, 195), (-1, 0), (150, 145), (199, 100)):
        state = stream.state()
        state["belief"]["newest_tick"], state["belief"]["filter"]["ticks"] = newest, ticks
        with pytest.raises(ValueError, match="belief"):
            model.stream().restore(state)


def test_moments_of_a_state_that_was_changed_are_those_of_ticks_that_there_were(model: Model) -> None:
    stream = model.stream()
    followed(stream, 0, 200, 4)
    state = stream.state()
    state["procedure"]["conformance"]["segments"][:, 1] = 1 << 50  # begins far in the future
    state["procedure"]["conformance"]["cycle"]["steps"][:3] = [[0, 1 << 50, 1 << 51]] * 3
    state["procedure"]["conformance"]["cycle"]["counts"][0] = 3
    successor = model.stream()
    successor.restore(state)
    cycles = [event for event in successor.close_cycle() if isinstance(event, Cycle)]
    assert cycles and all(event.begin.t_ns <= MOMENTS[199].t_ns for event in cycles)


def test_a_file_in_chunks_and_frame_by_frame_gives_the_same_events(
    model: Model, expected: list[Event], tmp_path: Path
) -> None:
    path = model.bundle.path
    options = RunOptions(path, features(tmp_path, ROWS, HZ), pace="asap")
    _, run = recorded(options)
    assert [event.seq for event in run] == list(range(len(run)))
    with open_stream(path, source_hz=HZ) as stream:
        pushed: list[Event] = []
        for number, row in enumerate(ROWS):
            pushed += stream.push(row, round(number * 1e9 / HZ))
        pushed += stream.close()
    assert alike(run[1:-1], pushed[1:-1])
    frames = [event for event in expected if not isinstance(event, Cycle)]
    ticks = [(event.type, event.decision.tick) for event in run[1:-1] if hasattr(event, "decision")]
    assert ticks == [(event.type, event.decision.tick) for event in frames]
    _, again = recorded(replace(options, decide_every=1))
    assert [replace(event, run={}) for event in again] == [replace(event, run={}) for event in run]
