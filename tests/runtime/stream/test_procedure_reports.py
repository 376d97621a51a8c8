"""Events of a cycle that goes on in another run: they name events of the run before."""

from __future__ import annotations

import itertools

import numpy as np

from edge_hal.decoding.decoder import Decision
from edge_hal.events import Cycle, Deviation, Event, Moment
from edge_hal.procedure.rules import Procedure
from edge_hal.runtime.stream.procedure_reports import ProcedureReports
from tests.helpers.toy_procedure import step

A, B, C = range(3)
HZ = 10.0
RULES = {"shortest_s": 2.0}
PROCEDURE = Procedure(
    {
        "a": step(begins_cycle=True, then={"b": 1.0}, **RULES),
        "b": step(requires={"a": 0.9}, then={"c": 1.0}, **RULES),
        "c": step(requires={"b": 0.9}, ends_cycle=True, then={"a": 1.0}, **RULES),
    }
)


def reports(first_seq: int) -> ProcedureReports:
    return ProcedureReports(PROCEDURE, HZ, "bench", "d", itertools.count(first_seq).__next__)


def follow(run: ProcedureReports, *labels: int) -> list[Event]:
    """Each step lasts 4 s and is decided after 0.5 s."""
    found: list[Event] = []
    for tick in range(40 * len(labels)):
        number, since = divmod(tick, 40)
        decision = None
        if since == 5:
            decision = Decision(labels[number], None, tick - 5, tick, 0.9, np.zeros((1, 3), np.float32))
        found += run.follow(0, tick, decision, None, lambda tick: Moment(tick, tick, tick * 10**8))
    return found


def test_a_step_that_comes_again_takes_no_progress_back() -> None:
    run = reports(0)
    follow(run, A, B)
    assert run.progress(B, 5) == (2 + 0.5) / 6  # the steps last 2 s each
    assert run.progress(A, 5) == (2 + 2) / 6  # `a` comes again: it was over, as `b` is now
    assert run.progress(C, 5) == (2 + 2 + 0.5) / 6
    run = reports(0)
    follow(run, A, B, C, B)  # the last one counts
    assert run.progress(B, 5) == 1.0


def test_a_deviation_corrects_one_of_the_run_before() -> None:
    before, after = reports(57), reports(100)
    [skipped] = follow(before, A, C)
    assert isinstance(skipped, Deviation) and (skipped.seq, skipped.expected) == (57, ("b",))
    kept = before.kept()
    assert kept.called == {"b": 57}
    assert after.progress(C, 0) == 0.0
    after.resume(kept, 0.2)
    assert after.progress(C, 0) == 1 / 3  # `a` is over
    found = follow(after, C, B, A)
    late, cycle = found
    assert isinstance(late, Deviation) and isinstance(cycle, Cycle)
    assert (late.seq, late.kind, late.corrects) == (100, "out_of_order", 57)
    assert cycle.before == ("a",) and [step["action"] for step in cycle.steps] == ["c", "b"]
    assert cycle.deviations == ({"seq": 100, "kind": "out_of_order"},) and cycle.missing == ()
    assert cycle.begin.t_ns == 0 and not cycle.complete
    assert after.kept().called == {}
