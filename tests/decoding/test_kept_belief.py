"""What is kept of a belief, and the filter that begins with it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.decoding.belief import BeliefTracker
from edge_hal.decoding.forward_filter import FilterTables, ForwardFilter, filter_tables
from edge_hal.decoding.kept_belief import KeptBelief
from edge_hal.files.untrusted import parse_json
from edge_hal.procedure.rules import Procedure, Step

NAMES = ("a", "b", "c")
HZ = 10.0


def tables() -> FilterTables:
    then = {"a": {"b": 0.7, "c": 0.3}, "b": {"c": 1.0}, "c": {"a": 1.0}}
    medians = {"a": 2.0, "b": 4.0, "c": 1.0}
    return filter_tables(Procedure({k: Step(1 / 3, 1 / 3, medians[k], 1.5, then[k]) for k in NAMES}), HZ, 0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2), st.integers(1, 40), st.integers(0, 60))
def test_after_a_pause_a_segment_goes_on_as_often_as_its_durations_say(label: int, age: int, pause: int) -> None:
    made, table = ForwardFilter(tables(), (0.3, 0.9)), tables()
    probability = np.eye(3)[label]
    made.resume(probability, [age, age, age], pause)
    assert made.ticks == 0
    numbers = np.array([age, age + pause])
    at_first, at_last = table.lasting(label, numbers)
    for joint in made.ahead([]):
        assert joint.sum() == pytest.approx(1)
        longest = table.lasts.shape[1]
        column = joint.shape[1] - min(age + pause, longest)
        assert joint[label, column] == pytest.approx(at_last / at_first, rel=1e-6)
        # Only a segment that began in the pause may be younger.
        assert joint[:, : max(0, joint.shape[1] - age - pause)].sum() == pytest.approx(0, abs=1e-12)


def test_a_belief_that_is_kept_and_resumed_at_once_is_the_same() -> None:
    made = ForwardFilter(tables(), (0.5,))
    probability, ages = np.array([0.2, 0.5, 0.3]), [3, 17, 8]
    made.resume(probability, ages, 0)
    joint = made.ahead([])[0]
    np.testing.assert_allclose(joint.sum(axis=1), probability)
    for label, age in enumerate(ages):
        assert joint[label, joint.shape[1] - age] == pytest.approx(probability[label])


def test_a_tracker_that_resumes_believes_what_was_believed_and_not_the_first_step() -> None:
    procedure = Procedure(
        {k: Step(float(k == "a"), 1 / 3, 20.0, 1.5, {"b": 1.0} if k != "b" else {"c": 1.0}) for k in NAMES}
    )
    tracker = BeliefTracker(filter_tables(procedure, HZ, 0.05), (0.3, 0.25), (0, 3))
    nothing = {lag: np.log(np.full((1, 3), 1 / 3)) for lag in (0, 3)}
    assert tracker.follow(0, nothing).now.label == 0
    tracker.resume(np.array([0.02, 0.03, 0.95]), [5, 5, 40], 20)
    belief = tracker.follow(0, nothing).now
    assert belief.label == 2 and belief.probability[2] > 0.8
    assert belief.tick == 0 and belief.began(2) == -60  # 40 ticks, 20 of the pause
    kept = KeptBelief.of(belief, NAMES, HZ)
    assert kept.action == "c" and kept.action_s == pytest.approx(6.1)
    again = BeliefTracker(filter_tables(procedure, HZ, 0.05), (0.3, 0.25), (0, 3))
    again.restore(tracker.state())
    rows = {lag: np.log(np.full((2, 3), 1 / 3)) for lag in (0, 3)}
    np.testing.assert_array_equal(again.follow(1, rows).now.probability, tracker.follow(1, rows).now.probability)


def test_the_text_of_a_belief_gives_it_back_and_fits_labels_in_any_order() -> None:
    kept = KeptBelief({"a": (0.25, 1.5), "b": (0.75, 3.0)})
    assert KeptBelief.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
    assert kept.fits(("b", "a")) and not kept.fits(("a",)) and not kept.fits(("a", "b", "c"))
    probability, ages = kept.in_order(("b", "a"), HZ)
    assert probability.tolist() == [0.75, 0.25] and ages == [30, 15]


@pytest.mark.parametrize(
    "data",
    [
        *(None, 1, "text", [], {}, {"a": 1}, {"a": [1]}, {"a": [1, 2, 3]}, {"a": ["1", 2]}, {"a": [True, 0]}),
        *({"a": [0.4, 1], "b": [0.4, 1]}, {"a": [-1, 0], "b": [2, 0]}, {"a": [1, -1]}, {"a": [1, 1e300]}),
        *({"a": [float("nan"), 0]}, {"a": [1, float("inf")]}, {"a": [[], {}]}, {str(k): [0, 0] for k in range(70_000)}),
    ],
    ids=lambda data: str(data)[:30],
)
def test_other_data_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="belief"):
        KeptBelief.from_dict(data)
    if "nan" in str(data):
        with pytest.raises(ValueError, match="not finite"):
            parse_json(json.dumps(data))
