"""Sessions with a mistake: exactly one, of the kind that they name."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from edge_hal.workbench.mistakes import KINDS, ONCE, PROLONGED_S, REQUIRED, sample_mistake
from edge_hal.workbench.schedule import is_valid_order


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_has_the_mistake_that_it_names(kind: str, number: int) -> None:
    mistake = sample_mistake(kind, 5, number)
    segments, steps = mistake.session.segments, mistake.session.transcript
    counts = Counter(steps)
    assert mistake.kind == kind and segments[0].start_s == 0.0
    assert all(a.end_s == b.start_s and a.step != b.step for a, b in itertools.pairwise(segments))
    assert is_valid_order(steps) == (kind == "overdue")
    if kind == "skipped":
        (step,) = mistake.steps
        assert step in REQUIRED and step not in steps
    elif kind == "out_of_order":
        places = [i for i, pair in enumerate(itertools.pairwise(steps)) if set(pair) == mistake.steps]
        swapped = [[*steps[:i], steps[i + 1], steps[i], *steps[i + 2 :]] for i in places]
        assert any(is_valid_order(tuple(order)) for order in swapped)
    elif kind == "repeated":
        (step,) = mistake.steps
        assert step in ONCE and counts[step] == 2
    else:
        assert PROLONGED_S[0] <= max(segment.active_s for segment in segments) <= PROLONGED_S[1]


@pytest.mark.parametrize("hz", [3.0, 25.0])
def test_labels_at_another_rate_are_those_of_the_same_moments(hz: float) -> None:
    session = sample_mistake("repeated", 5, 3).session
    labels = session.labels(hz)
    assert len(labels) == round(session.duration_s * hz)
    for segment in session.segments:
        middle_s = (segment.start_s + segment.end_s) / 2
        assert labels[round(middle_s * hz)] == segment.step


def test_the_seed_and_the_number_decide_the_session() -> None:
    again, once = sample_mistake("skipped", 5, 1), sample_mistake("skipped", 5, 1)
    others = [sample_mistake("skipped", *which) for which in ((5, 2), (6, 1))]
    assert again == once and once not in others
