"""Mistakes that are put into posteriors: they are what they are called, and the belief hesitates over them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.calib.fit_rules import deviations
from edge_hal.calib.followed import EVERY_TICKS, Followed, follow
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.calib.mistakes import MOST_VIDEOS, in_order, put_mistakes, wrong_orders
from edge_hal.decoding.decoder import Decision
from edge_hal.procedure.rules import Procedure
from tests.helpers.small_models import small_spec

SPEC = small_spec()
COUNT, HZ, LAG = len(SPEC.labels), SPEC.model_hz, SPEC.lag_ticks
HEADS = SPEC.heads_width // COUNT


def truth(rng: np.random.Generator, order: list[int]) -> np.ndarray:
    return np.repeat(order, rng.integers(50, 90, len(order)))


def posteriors(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """(T, H K): noisy, and right on average."""
    logits = rng.normal(0, 1.5, (len(labels), HEADS, COUNT))
    at = np.arange(len(labels))
    logits[at, :, labels[np.maximum(at - LAG, 0)]] += 3.0
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).reshape(len(labels), -1).astype(np.float32)


def certain(labels: list[int]) -> Followed:
    """Decisions half a second after each step of eight seconds began."""
    ticks = round(8 * HZ)
    ticks -= ticks % EVERY_TICKS
    previous = [None, *labels[:-1]]
    at = range(0, ticks * len(labels), ticks)
    decisions = [Decision(k, p, t, t + 5, 1.0) for k, p, t in zip(labels, previous, at, strict=True)]
    return Followed(tuple(decisions), np.repeat(np.eye(COUNT)[labels], ticks // EVERY_TICKS, axis=0))


def learned(orders: list[list[int]]) -> Procedure:
    rng = np.random.default_rng(0)
    return learn_procedure([truth(rng, order) for order in orders], SPEC.labels, HZ)


USUAL = list(range(COUNT))


@pytest.mark.parametrize("orders", [[USUAL], [USUAL, [0, 1, 0, *USUAL[2:]]], [USUAL, [1, 0, *USUAL[2:]]]])
def test_mistakes_are_of_the_kind_that_they_are_called(orders: list[list[int]]) -> None:
    procedure = learned(orders * 12)
    named: dict[str, list[bool]] = {"skipped": [], "out_of_order": [], "repeated": []}
    for seed in range(30):
        for kind, label, order in wrong_orders(procedure, orders[seed % len(orders)], seed):
            found = deviations(procedure, certain([orders[seed % len(orders)][i] for i in order]), HZ)
            if kind != "skipped" or label != COUNT - 1:  # the last step may come still
                named[kind].append(any(each.kind == kind and label in (each.expected, each.seen) for each in found))
    # Where steps may be repeated, a few mistakes can be the begin of another cycle.
    assert all(len(found) >= 10 and np.mean(found) >= 0.8 for found in named.values()), named


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_whole_steps(seed: int) -> None:
    """Posteriors at tick t describe t - lag."""
    rng = np.random.default_rng(seed)
    labels = truth(rng, [int(k) for k in rng.permutation(COUNT)])
    begins = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist()]
    rows = np.zeros((len(labels), 1), np.float32)
    rows[:, 0] = labels[np.maximum(np.arange(len(labels)) - LAG, 0)]
    decisions = [Decision(int(labels[t]), None, t, t + 5, 1.0) for t in begins]
    order = rng.integers(0, COUNT, 6).tolist()
    found = in_order(rows, decisions, order, LAG)[:, 0]
    kinds = found[[0, *(np.flatnonzero(np.diff(found)) + 1).tolist()]]
    wanted = [int(labels[begins[i]]) for i in order]
    assert kinds.tolist() == [k for i, k in enumerate(wanted) if not i or wanted[i - 1] != k]
    assert np.array_equal(in_order(rows, decisions, range(COUNT), LAG), rows)


def test_a_step_in_another_order_is_believed_less_and_its_mistake_is_found_all_the_same() -> None:
    rng = np.random.default_rng(3)
    labels = [truth(rng, USUAL) for _ in range(12)]
    rows = [posteriors(rng, each) for each in labels]
    config = fit_decoder(rows, labels, SPEC, {})
    assert config.procedure is not None
    followed = [follow(each, config, SPEC) for each in rows]
    made = put_mistakes(rows, followed, config, SPEC)

    def certainty(video: Followed) -> float:
        return float(np.mean(video.probability.max(axis=1)))

    assert {each.kind for each in made} == {"skipped", "out_of_order", "repeated"}
    assert np.mean([certainty(each.followed) for each in made]) < np.mean([certainty(each) for each in followed])
    wrong = [0, 2, 1, *USUAL[3:]]
    unseen = [follow(posteriors(rng, truth(rng, wrong)), config, SPEC) for _ in range(20)]
    found = [{each.kind for each in deviations(config.procedure, each, HZ)} for each in unseen]
    assert np.mean(["out_of_order" in kinds for kinds in found]) >= 0.7


@pytest.mark.parametrize("count", [0, 1, 5, MOST_VIDEOS, MOST_VIDEOS + 1, 3 * MOST_VIDEOS])
def test_many_videos_are_not_all_spoiled(count: int) -> None:
    rng = np.random.default_rng(4)
    labels = truth(rng, USUAL)
    rows = posteriors(rng, labels)
    config = fit_decoder([rows] * 2, [labels] * 2, SPEC, {})
    made = put_mistakes([rows] * count, [follow(rows, config, SPEC)] * count, config, SPEC)
    spoiled = [each.kind for each in made].count("skipped")
    assert min(count, MOST_VIDEOS // 2) <= spoiled <= MOST_VIDEOS
