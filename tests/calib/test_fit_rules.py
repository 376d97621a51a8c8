"""The limits of deviations: few are false on videos without mistakes, and mistakes that are put in are found."""

from __future__ import annotations

import numpy as np
import pytest

from edge_hal.calib import fit_rules as limits_of_rules
from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.calib.fit_rules import MOST_FALSE, MOST_OVERDUE, fit_rules, mistakes
from edge_hal.calib.followed import EVERY_TICKS, Followed, deviations
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.decoding.decoder import Decision
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.small_models import small_spec

HZ = 10.0
NAMES = ("reach", "grasp", "turn", "place", "rest")


def simulated(rng: np.random.Generator, order: list[int], *, wrong: float = 0.0, wrong_ticks: int = 8) -> Followed:
    """Decisions half a second after each step began. `wrong`: the share of steps within which another one is decided
    for `wrong_ticks`, with little confidence."""
    decisions: list[Decision] = []
    probability: list[np.ndarray] = []
    tick, previous = 0, None

    def believe(label: int, ticks: int, certainty: float) -> None:
        row = np.full(len(NAMES), (1 - certainty) / (len(NAMES) - 1))
        row[label] = certainty
        probability.extend([row] * ticks)

    for label in order:
        length = int(rng.integers(60, 100))
        decisions.append(Decision(label, previous, tick, tick + 5, 0.97))
        previous = label
        if rng.random() < wrong:
            other = int((label + rng.integers(1, len(NAMES))) % len(NAMES))
            believe(label, 30, 0.97)
            decisions.append(Decision(other, label, tick + 30, tick + 33, 0.6))
            believe(other, wrong_ticks, 0.6)
            decisions.append(Decision(label, other, tick + 30 + wrong_ticks, tick + 34 + wrong_ticks, 0.9))
            length = max(length, 50 + wrong_ticks)
            believe(label, length - 30 - wrong_ticks, 0.95)
        else:
            believe(label, length, 0.97)
        tick += length
    whole = len(probability) - len(probability) % EVERY_TICKS
    return Followed(tuple(decisions), np.reshape(probability[:whole], (-1, EVERY_TICKS, len(NAMES))).mean(axis=1))


def learned(count: int = 12) -> Procedure:
    rng = np.random.default_rng(0)
    videos = [np.repeat(np.arange(len(NAMES)), rng.integers(60, 100, len(NAMES))) for _ in range(count)]
    return learn_procedure(videos, NAMES, HZ)


@pytest.fixture
def fewer_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 of the 140 limits that are tried: those decide it too."""
    for name in ("LEAST_CONFIDENCE", "LONGER", "DOUBT"):
        monkeypatch.setattr(limits_of_rules, name, getattr(limits_of_rules, name)[::2])


WRONG_ORDERS = {"skipped": [0, 1, 3, 4], "out_of_order": [0, 2, 1, 3, 4], "repeated": [0, 1, 2, 1, 3, 4]}


@pytest.mark.usefixtures("fewer_limits")
@pytest.mark.parametrize(("wrong", "least"), [(0.0, 1.0), (0.3, 0.6), (0.6, 0.2)])
def test_false_deviations_stay_within_the_limits_and_mistakes_are_found(wrong: float, least: float) -> None:
    rng = np.random.default_rng(2)
    procedure, order = learned(), list(range(len(NAMES)))
    videos = [simulated(rng, order, wrong=wrong) for _ in range(16)]
    fitted = fit_rules(procedure, videos, HZ)
    minutes = sum(len(video.probability) for video in videos) * EVERY_TICKS / HZ / 60
    overdue = [each.kind == "overdue" for video in videos for each in deviations(fitted, video, HZ)]
    assert 10 * overdue.count(False) / minutes <= MOST_FALSE and 10 * overdue.count(True) / minutes <= MOST_OVERDUE
    for kind, wrong_order in WRONG_ORDERS.items():
        found = [
            kind in {each.kind for each in deviations(fitted, simulated(rng, wrong_order, wrong=wrong), HZ)}
            for _ in range(40)
        ]
        assert np.mean(found) >= least, kind


def test_limits_are_narrowed_until_few_deviations_are_false() -> None:
    """Steps that are decided by mistake for four seconds, with little confidence."""
    rng = np.random.default_rng(5)
    procedure = learned()
    videos = [simulated(rng, [0, 1, 2, 3, 4], wrong=0.5, wrong_ticks=40) for _ in range(16)]
    before = [each for video in videos for each in deviations(procedure, video, HZ)]
    fitted = fit_rules(procedure, videos, HZ)
    minutes = sum(len(video.probability) for video in videos) * EVERY_TICKS / HZ / 60
    after = [each for video in videos for each in deviations(fitted, video, HZ)]
    assert 10 * len(before) / minutes > MOST_FALSE + MOST_OVERDUE >= 10 * len(after) / minutes


def test_mistakes_that_are_put_in_are_of_the_kind_that_they_name() -> None:
    rng = np.random.default_rng(6)
    procedure = learned()
    kinds = {"skipped": [], "out_of_order": [], "repeated": []}  # type: dict[str, list[bool]]
    for seed in range(12):
        for kind, label, video in mistakes(procedure, simulated(rng, [0, 1, 2, 3, 4]), seed):
            found = {each.kind for each in deviations(procedure, video, HZ)}
            last = kind == "skipped" and label == 4  # that the last step is missing is not known before a new cycle
            kinds[kind].append(kind in found or last)
    assert all(len(found) == 12 for found in kinds.values())
    assert np.mean(kinds["skipped"]) == np.mean(kinds["out_of_order"]) == 1.0 and np.mean(kinds["repeated"]) >= 0.5


@pytest.mark.usefixtures("fewer_limits")
def test_only_limits_change() -> None:
    procedure = learned()
    rng = np.random.default_rng(3)
    fitted = fit_rules(procedure, [simulated(rng, [0, 1, 2, 3, 4], wrong=0.5) for _ in range(4)], HZ)
    limits = ("shortest_s", "least_confidence", "overdue_s", "doubt_s")
    for name, step in fitted.steps.items():
        before = procedure.steps[name]
        assert {k: v for k, v in vars(step).items() if k not in limits} == {
            k: v for k, v in vars(before).items() if k not in limits
        }
        assert step.shortest_s >= before.shortest_s
        assert step.overdue_s is not None and before.overdue_s is not None and step.overdue_s >= before.overdue_s


@pytest.mark.parametrize("order", [[], [2], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("rules", [True, False])
def test_one_video_no_rule_and_no_decision_can_be_fitted(order: list[int], rules: bool) -> None:
    plain = Procedure({name: Step(0.2, 0.2, 7.0, 1.3, {}) for name in NAMES})
    video = simulated(np.random.default_rng(4), order) if order else Followed((), np.full((20, len(NAMES)), 0.2))
    procedure = learned() if rules else plain
    assert tuple(fit_rules(procedure, [video], HZ).steps) == NAMES
    assert fit_rules(procedure, [], HZ) == procedure


def test_one_label_can_be_fitted() -> None:
    spec = small_spec()
    spec = type(spec)(**{**vars(spec), "labels": ("all",)})
    labels = [np.zeros(80, np.int64)] * 4
    got = fit_decoder([np.zeros((80, 1), np.float32)] * 4, labels, spec, {})
    assert got.believes and got.procedure is not None and tuple(got.procedure.steps) == ("all",)
