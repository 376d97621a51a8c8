"""The report `now`: when it is due, and what it says of a belief."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.decoding.belief import Belief
from edge_hal.decoding.forward_filter import filter_tables
from edge_hal.events import Cycle, Moment
from edge_hal.runtime.stream.now import MOVED, NowReporter, now_event
from tests.helpers.toy_procedure import HZ, PROCEDURE, SPEC

TABLES = filter_tables(PROCEDURE, HZ, 0.2)
TICK_NS = round(1e9 / HZ)


def belief(*probability: float, tick: int = 0) -> Belief:
    joint = np.zeros((3, 5))
    joint[:, 1] = probability
    return Belief(tick, np.array(probability), joint, TABLES)


def test_a_report_is_due_at_first_and_after_a_change() -> None:
    reporter = NowReporter(1000.0)
    assert not reporter.due(None, 0)  # nothing is believed before the first decision
    assert reporter.due(belief(0.5, 0.3, 0.2), 0)
    assert not reporter.due(belief(0.5 + 0.9 * MOVED, 0.3, 0.1), TICK_NS)
    assert reporter.due(belief(0.5 + 1.1 * MOVED, 0.3, 0.1), 2 * TICK_NS)
    assert not reporter.due(belief(0.5 + 0.3 * MOVED, 0.3, 0.1), 3 * TICK_NS)  # since the one that was sent
    assert reporter.due(belief(0.3, 0.6, 0.1), 4 * TICK_NS)  # another action, as probable as the last one
    reporter.reset()
    assert reporter.due(belief(0.3, 0.6, 0.1), 5 * TICK_NS)


def test_what_comes_too_early_is_sent_later_if_it_still_holds() -> None:
    reporter = NowReporter(2.0)
    assert reporter.due(belief(0.6, 0.3, 0.1), 0)
    for tick in range(1, 5):
        assert not reporter.due(belief(0.3, 0.6, 0.1), tick * TICK_NS)
    assert reporter.due(belief(0.3, 0.6, 0.1), 5 * TICK_NS)
    reporter.reset()  # a new epoch waits for nothing
    assert reporter.due(belief(0.3, 0.6, 0.1), 6 * TICK_NS)


def test_the_end_of_a_cycle_is_told_by_the_next_report_that_may_be_sent() -> None:
    """The progress begins anew then, so the report before it says too much."""
    at, reporter = Moment(0, 0, 0), NowReporter(2.0)
    ended = Cycle("bench", 0, seq=1, begin=at, end=at, steps=(), deviations=(), missing=(), complete=True, decoder="d")
    assert reporter.due(belief(0.6, 0.3, 0.1), 0)
    assert not reporter.due(belief(0.6, 0.3, 0.1), TICK_NS, [ended])  # too early
    assert [reporter.due(belief(0.6, 0.3, 0.1), n * TICK_NS) for n in range(2, 12)] == [n == 5 for n in range(2, 12)]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0.0, 0.7, 2.0, 3.3, 10.0, 50.0]), st.integers(0, 1 << 30))
def test_there_are_never_more_than_asked_for(most_hz: float, seed: int) -> None:
    rng, reporter = np.random.default_rng(seed), NowReporter(most_hz)
    sent = [n * TICK_NS for n in range(200) if reporter.due(belief(*rng.dirichlet([0.3] * 3)), n * TICK_NS)]
    assert (len(sent) > 1) == (most_hz > 0)
    assert all(later - earlier >= 1e9 / most_hz - 1 for earlier, later in itertools.pairwise(sent))


def test_a_report_names_the_belief() -> None:
    def moment(tick: int) -> Moment | None:
        return Moment(tick, 3 * tick, tick * TICK_NS) if tick >= 10 else None

    report = now_event(
        belief(0.28, 0.7, 0.02, tick=14), "s", 2, SPEC.labels, HZ, Moment(14, 42, 14 * TICK_NS), moment, 0.33333
    )
    assert (report.stream, report.epoch, report.at) == ("s", 2, Moment(14, 42, 14 * TICK_NS))
    assert (report.action, report.probability, report.progress) == ("b", 0.7, 0.333)
    assert report.since == Moment(11, 33, 11 * TICK_NS)
    assert report.others == ({"action": "a", "probability": 0.28}, {"action": "c", "probability": 0.02})
    assert [each["action"] for each in report.next] == ["c", "a"]  # `b` itself cannot follow
    assert sum(each["probability"] for each in report.next) == pytest.approx(1, abs=1e-3)
    assert 0 <= report.remaining_s["p10"] <= report.remaining_s["p50"] <= report.remaining_s["p90"]
    early = now_event(belief(0.28, 0.7, 0.02, tick=12), "s", 2, SPEC.labels, HZ, Moment(12, 36, 12 * TICK_NS), moment)
    assert early.since is None and early.progress is None
