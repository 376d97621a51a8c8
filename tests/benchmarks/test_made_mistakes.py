"""`benchmarks/made_mistakes.py`: the mistakes are what they say, and the scores of known judges are known."""

from __future__ import annotations

import numpy as np
import pytest
from deviations import Sequence_, _procedure
from made_mistakes import KINDS, mistake, score
from step_graph import Assembly, Step

PARTS = ("frame", "axle", "wheel", "roof", "lamp", "door")
STEPS = [Step(part, "body") for part in PARTS]


@pytest.mark.parametrize("seed", range(20))
def test_a_made_mistake_is_wrong_at_its_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(STEPS)))
    made = {kind: mistake(kind, STEPS, at, [*STEPS, Step("flag", "mast")], rng) for kind in KINDS}
    assert all(one != STEPS[at] for one in made.values())
    assert (made["order"] is None and at == len(STEPS) - 1) or made["order"] in STEPS[at + 1 :]
    place = made["place"]
    assert place is not None and place.pair not in {step.pair for step in STEPS}
    assert {place.this, place.that} <= {*PARTS, "body"}
    apart = made["apart"]
    assert (apart is None and at == 0) or (
        apart is not None and apart.apart and apart.pair in {s.pair for s in STEPS[:at]}
    )


@pytest.mark.parametrize(("answer", "recall", "alarms", "f1"), [(False, 0, 0, 0), (True, 100, 100, 66.7)])
def test_never_and_always_score_as_they_must(answer: bool, recall: float, alarms: float, f1: float) -> None:
    def judge(sequence: Sequence_) -> tuple[list[bool], list[bool]]:
        return [answer] * len(sequence.rows), [answer] * len(sequence.rows)

    found = score([Assembly("a01a", STEPS)] * 3, [judge] * 3)
    assert found == {**dict.fromkeys(KINDS, recall), "false_alarms": alarms, "f1": f1}


def test_rules_come_from_variants_and_else_from_the_closest_product() -> None:
    reverse = STEPS[::-1]
    lists = [Assembly("a01a", STEPS)] * 8 + [Assembly("c05a", reverse)] * 8
    judge = _procedure(lists, 0.85)
    for toy, own in (("a01b", STEPS), ("a07a", STEPS), ("c05b", reverse)):
        found = score([Assembly(toy, own)], [judge])
        assert found["false_alarms"] == 0 and min(found[kind] for kind in ("order", "place", "apart")) == 100
    assert score([Assembly("a01b", STEPS)], [_procedure([], 0.85)])["f1"] == 0
