"""Videos of mistakes: which deviations their labels have, and which limits find them as they look to a student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_hal.calib import fit_rules as limits_of_rules
from edge_hal.calib.fit_rules import fit_rules
from edge_hal.calib.followed import EVERY_TICKS, Followed, deviations, follow_labels
from edge_hal.calib.known_mistakes import KnownMistakes
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.procedure.rules import Procedure

HZ, TICKS = 10.0, 80
NAMES = ("reach", "grasp", "turn", "place", "rest")
NORMAL = [0, 1, 2, 3, 4]
ORDERS = {"skipped": [0, 1, 3, 4], "out_of_order": [0, 2, 1, 3, 4], "repeated": [0, 1, 2, 1, 3, 4]}


def labels_of(order: list[int]) -> np.ndarray:
    return np.repeat(order, TICKS)


def learned() -> Procedure:
    rng = np.random.default_rng(0)
    return learn_procedure([np.repeat(NORMAL, rng.integers(60, 100, len(NAMES))) for _ in range(12)], NAMES, HZ)


def followed(order: list[int], *, unsure: dict[int, float] | None = None) -> Followed:
    """Decisions half a second late. `unsure`: the places in `order` that are believed with this probability only."""
    video = follow_labels(labels_of(order), len(NAMES), 5)
    decisions, probability = [], video.probability.copy()
    for place, decision in enumerate(video.decisions):
        sure = (unsure or {}).get(place, 0.97)
        decisions.append(replace(decision, confidence=sure))
        rows = slice(place * TICKS // EVERY_TICKS, (place + 1) * TICKS // EVERY_TICKS)
        probability[rows] = (1 - sure) / (len(NAMES) - 1)
        probability[rows, decision.label] = sure
    return Followed(tuple(decisions), probability)


@pytest.mark.parametrize("kind", ORDERS)
def test_the_labels_of_a_video_show_its_mistake(kind: str) -> None:
    """However short its steps are: the limits of the procedure do not hold for labels."""
    procedure = learned()
    short = Procedure({name: replace(step, shortest_s=100.0) for name, step in procedure.steps.items()})
    known = KnownMistakes.of(followed(ORDERS[kind]), labels_of(ORDERS[kind]), short, HZ)
    assert kind in {each.kind for each in known.true}
    assert not KnownMistakes.of(followed(NORMAL), labels_of(NORMAL), short, HZ).true


@pytest.mark.parametrize("kind", ORDERS)
def test_reports_count_for_the_mistake_they_name_and_against_others(kind: str) -> None:
    procedure, video = learned(), followed(ORDERS[kind])
    known = KnownMistakes.of(video, labels_of(ORDERS[kind]), procedure, HZ)
    right = deviations(procedure, video, HZ)
    assert known.named(right) == len(known.true) > 0 and known.named([]) == 0
    others = [replace(each, kind="repeated" if kind == "skipped" else "skipped", expected=0, seen=0) for each in right]
    assert known.named(others) == -len(others)
    assert known.named([replace(each, kind="overdue") for each in right]) == 0
    assert known.named([replace(each, kind="another") for each in right]) == -len(right)


def test_steps_that_last_too_long_are_no_mistake_of_order() -> None:
    procedure = learned()
    labels = np.repeat(NORMAL, [TICKS, 30 * TICKS, TICKS, TICKS, TICKS])
    assert {each.kind for each in deviations(procedure, follow_labels(labels, len(NAMES)), HZ)} == {"overdue"}
    assert not KnownMistakes.of(followed(NORMAL), labels, procedure, HZ).true


def test_labels_are_followed_as_decisions() -> None:
    video = follow_labels(np.array([2] * 12 + [0] * 7 + [1] * 6), 3, 4)
    assert [(d.label, d.previous, d.boundary_tick, d.decision_tick) for d in video.decisions] == [
        (2, None, 0, 4),
        (0, 2, 12, 16),
        (1, 0, 19, 23),
    ]
    assert video.probability.argmax(axis=1).tolist() == [2, 2, 2, 0, 1]


@pytest.mark.parametrize("with_known", [False, True])
def test_limits_find_mistakes_that_look_uncertain(with_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is believed with less certainty than normal work. Mistakes that are put into normal decisions hide it:
    they keep the certainty of normal work, so that each limit finds as many."""
    monkeypatch.setattr(limits_of_rules, "LEAST_CONFIDENCE", (0.9, 0.6))  # the first of equal limits is taken
    procedure = learned()
    normal = [followed(NORMAL) for _ in range(8)]
    mistaken = {kind: followed(order, unsure={1: 0.75, 2: 0.75, 3: 0.75}) for kind, order in ORDERS.items()}
    known = [KnownMistakes.of(video, labels_of(ORDERS[kind]), procedure, HZ) for kind, video in mistaken.items()]
    fitted = fit_rules(procedure, normal, HZ, known if with_known else [])
    assert not [each for video in normal for each in deviations(fitted, video, HZ)]
    found = [kind in {each.kind for each in deviations(fitted, video, HZ)} for kind, video in mistaken.items()]
    assert all(found) if with_known else not all(found)


def test_limits_are_as_strict_as_wrong_reports_on_mistakes_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a mistake was made, other steps are recognised wrongly with little confidence."""
    monkeypatch.setattr(limits_of_rules, "LEAST_CONFIDENCE", (0.4, 0.9))
    procedure = learned()
    normal = [followed(NORMAL) for _ in range(8)]
    order = [0, 1, 3, 2, 1, 4]  # the last two are not what happened
    known = [
        KnownMistakes.of(followed(order, unsure={3: 0.5, 4: 0.5}), labels_of([0, 1, 3, 3, 3, 4]), procedure, HZ)
        for _ in range(3)
    ]
    fitted = fit_rules(procedure, normal, HZ, known)
    assert all(step.least_confidence == 0.9 for step in fitted.steps.values())
    assert all(each.named(deviations(fitted, each.video, HZ)) == len(each.true) for each in known)
