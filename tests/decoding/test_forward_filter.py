"""The forward filter against the sum over all segmentations, and its state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoding.belief import BeliefTracker
from edge_hal.decoding.belief_decoder import BeliefDecoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.evidence import LOG_RATIO_LIMIT, SHARE_POWER
from edge_hal.decoding.forward_filter import FilterTables, ForwardFilter, filter_tables
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import Procedure, Step


def random_tables(rng: np.random.Generator, labels: int, longest: int) -> FilterTables:
    """Durations of 1 .. `longest` ticks; the last column of `ends` is the hazard of the tail times what is left."""
    p = rng.dirichlet(np.ones(longest), labels)
    lasts = p[:, ::-1].cumsum(1)[:, ::-1]
    tail = rng.uniform(0.1, 0.5, labels)
    ends = p.copy()
    ends[:, -1] = lasts[:, -1] * tail
    follows = rng.dirichlet(np.ones(labels), labels) * (1 - np.eye(labels))
    follows /= follows.sum(1, keepdims=True)
    return FilterTables(
        ends, lasts, tail, follows, rng.dirichlet(np.ones(labels)), np.log(rng.dirichlet(np.ones(labels)))
    )


def chance_to_end(tables: FilterTables, label: int, ticks: int) -> float:
    """P(a segment lasts exactly `ticks`)."""
    longest = tables.ends.shape[1]
    if ticks < longest:
        return float(tables.ends[label, ticks - 1])
    return float(tables.lasts[label, -1] * (1 - tables.tail[label]) ** (ticks - longest) * tables.tail[label])


def chance_to_last(tables: FilterTables, label: int, ticks: int) -> float:
    """P(a segment lasts at least `ticks`)."""
    longest = tables.ends.shape[1]
    if ticks <= longest:
        return float(tables.lasts[label, ticks - 1])
    return float(tables.lasts[label, -1] * (1 - tables.tail[label]) ** (ticks - longest))


def segmentations(ticks: int) -> Iterator[tuple[int, ...]]:
    """The first ticks of all segments, for each way to cut."""
    for cuts in itertools.product((False, True), repeat=ticks - 1):
        yield (0, *(i + 1 for i, cut in enumerate(cuts) if cut))


def likelihoods(tables: FilterTables, rows: list[NDArray[np.floating] | None], evidence: float) -> NDArray[np.float64]:
    out = np.ones((len(rows), len(tables.first)))
    for tick, row in enumerate(rows):
        if row is not None:
            out[tick] = np.exp(evidence * (np.maximum(row - row.max(), -LOG_RATIO_LIMIT) - SHARE_POWER * tables.share))
    return out


def brute_force(
    tables: FilterTables, rows: list[NDArray[np.floating] | None], evidence: float
) -> dict[tuple[int, int], float]:
    """(label, first tick) -> probability that this segment holds the last tick, summed over all paths."""
    like = likelihoods(tables, rows, evidence)
    ticks, labels = like.shape
    mass: dict[tuple[int, int], float] = {}
    for starts in segmentations(ticks):
        for path in itertools.product(range(labels), repeat=len(starts)):
            p = float(tables.first[path[0]])
            for number, (label, start) in enumerate(zip(path, starts, strict=True)):
                last = number + 1 == len(starts)
                stop = ticks if last else starts[number + 1]
                p *= math.prod(like[start:stop, label])
                if last:
                    p *= chance_to_last(tables, label, stop - start)
                else:
                    p *= chance_to_end(tables, label, stop - start) * tables.follows[label, path[number + 1]]
            key = (path[-1], starts[-1])
            mass[key] = mass.get(key, 0.0) + p
    total = sum(mass.values())
    return {key: value / total for key, value in mass.items()}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(2, 4), st.integers(0, 3))
def test_the_filter_is_the_sum_over_all_segmentations(seed: int, ticks: int, longest: int, unknown: int) -> None:
    rng = np.random.default_rng(seed)
    labels = 2 if ticks > 5 else 3
    tables, evidence = random_tables(rng, labels, longest), float(rng.uniform(0.1, 1.0))
    rows: list[NDArray[np.floating] | None] = list(np.log(rng.dirichlet(np.ones(labels), ticks)))
    for tick in rng.integers(0, ticks, unknown):
        rows[tick] = None
    expected = brute_force(tables, rows, evidence)
    final = int(rng.integers(0, ticks + 1))
    made = ForwardFilter(tables, (evidence,), ticks)
    for row in rows[:final]:
        made.update(row)
    joint = made.ahead(rows[final:])[0]
    n = joint.shape[1]
    found: dict[tuple[int, int], float] = {}
    for label, column in itertools.product(range(labels), range(n)):
        found[label, ticks - n + column] = float(joint[label, column])
    for (label, first), p in expected.items():
        oldest = max(ticks - n, final - longest if final else 0)
        if first <= oldest:  # what has lasted longer than the table is in the first column
            together = sum(value for (k, at), value in expected.items() if k == label and at <= oldest)
            assert found[label, oldest] == pytest.approx(together, abs=1e-9)
        else:
            assert found[label, first] == pytest.approx(p, abs=1e-9)


def test_looking_ahead_leaves_the_filter_where_it_is() -> None:
    rng = np.random.default_rng(3)
    tables = random_tables(rng, 3, 20)
    rows = list(np.log(rng.dirichlet(np.ones(3), 300)))
    plain, looking = (ForwardFilter(tables, (0.4, 0.9), 15) for _ in range(2))
    for tick, row in enumerate(rows):
        looking.ahead(rows[tick : tick + int(rng.integers(0, 15))])
        for each in (plain, looking):
            each.update(row)
        np.testing.assert_allclose(plain.ahead([]), looking.ahead([]), rtol=1e-12)


def test_a_long_stream_keeps_its_size_and_stays_finite() -> None:
    rng = np.random.default_rng(1)
    made = ForwardFilter(random_tables(rng, 3, 30), (1.0,))
    before = {name: np.shape(value) for name, value in made.state().items()}
    for _ in range(5000):
        made.update(np.log(rng.dirichlet([0.05, 0.05, 0.05]) + 1e-30))
        assert made.ahead([]).sum() == pytest.approx(1)
    assert {name: np.shape(value) for name, value in made.state().items()} == before


def procedure() -> Procedure:
    def step(then: dict[str, float], median_s: float) -> Step:
        return Step(first=1 / 3, share=1 / 3, median_s=median_s, spread=1.4, then=then)

    return Procedure({"a": step({"b": 1.0}, 2.0), "b": step({"c": 1.0}, 3.0), "c": step({"a": 1.0}, 2.0)})


def certain(labels: NDArray[np.int_], p: float = 0.97) -> NDArray[np.float32]:
    rows = np.full((len(labels), 3), (1 - p) / 2)
    rows[np.arange(len(labels)), labels] = p
    return np.log(rows).astype(np.float32)


@pytest.mark.parametrize("order", [[0, 1, 2, 0, 1], [0, 2, 1, 0, 2]])
def test_an_order_that_no_list_shows_is_followed_too(order: list[int]) -> None:
    labels = np.repeat(order, 25)
    made = ForwardFilter(filter_tables(procedure(), 10.0, 0.05), (0.25,))
    right = []
    for tick, row in enumerate(certain(labels)):
        made.update(row)
        right.append(int(made.ahead([])[0].sum(1).argmax()) == labels[tick])
    assert np.mean(right) > 0.85


def test_too_many_labels_and_durations_are_refused() -> None:
    steps = {f"s{i}": Step(first=0, share=0.001, median_s=1e4, spread=3, then={}) for i in range(900)}
    steps |= {f"t{i}": Step(first=0, share=0.001, median_s=1e4, spread=3, then={}) for i in range(1200)}
    with pytest.raises(EdgeHalError, match="too much memory"):
        filter_tables(Procedure(steps), 1000.0, 0.05)


# --- heads with several lags ------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 4))
def test_each_tick_is_described_by_the_longest_head_that_is_available(seed: int, lags: set[int], every: int) -> None:
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 3, 12)
    heads = {lag: np.log(rng.dirichlet(np.ones(3), 60)).astype(np.float32) for lag in lags}
    tracker = BeliefTracker(tables, (0.3, 0.8), sorted(lags))
    for tick in range(every - 1, 60, every):
        beliefs = tracker.follow(tick, {lag: rows[: tick + 1] for lag, rows in heads.items()})
        rows: list[NDArray[np.floating] | None] = []
        for about in range(tick + 1):
            available = [lag for lag in lags if about + lag <= tick]
            rows.append(heads[max(available)][about + max(available)] if available else None)
        for belief, evidence in zip(beliefs, (0.3, 0.8), strict=True):
            plain = ForwardFilter(tables, (evidence,))
            for row in rows:
                plain.update(row)
            np.testing.assert_allclose(belief.probability, plain.ahead([])[0].sum(1), atol=1e-9)
            assert belief.tick == tick


def test_a_tracker_continues_from_its_state_and_refuses_another() -> None:
    rng = np.random.default_rng(5)
    tables = random_tables(rng, 3, 12)
    heads = {lag: np.log(rng.dirichlet(np.ones(3), 90)).astype(np.float32) for lag in (0, 3)}
    one, other = (BeliefTracker(tables, (0.3, 0.8), (0, 3)) for _ in range(2))

    def follow(tracker: BeliefTracker, tick: int) -> NDArray[np.float64]:
        return tracker.follow(tick, {lag: rows[: tick + 1] for lag, rows in heads.items()}).now.probability

    for tick in range(50):
        follow(one, tick)
    state = one.state()
    other.restore(state)
    for tick in range(50, 90):
        np.testing.assert_array_equal(follow(one, tick), follow(other, tick))
    for damage in ({"newest_tick": 7}, {"filter": {**state["filter"], "ticks": 3}}):
        with pytest.raises(ValueError, match="belief"):
            other.restore({**state, **damage})
    for value in (np.nan, -1.0, 0.0):
        broken = {**state["filter"], "mass": np.full_like(state["filter"]["mass"], value)}
        with pytest.raises(ValueError, match="belief"):
            other.restore({**state, "filter": broken})


def test_the_remaining_time_has_the_quantiles_of_the_durations() -> None:
    """Simulated: among segments that have lasted as long, how long do they still last?"""
    tables = filter_tables(procedure(), 10.0, 0.05)
    tracker = BeliefTracker(tables, (2.0, 2.0), (0,))
    rows = certain(np.repeat([0, 1], [20, 12]), 0.999)
    belief = [tracker.follow(tick, {0: rows[: tick + 1]}).now for tick in range(len(rows))][-1]
    assert belief.label == 1 and abs(belief.began(1) - 20) <= 2
    age = belief.tick - belief.began(1) + 1
    p = tables.ends[1, age - 1 :] / tables.lasts[1, age - 1]
    sampled = np.random.default_rng(0).choice(len(p), 4000, p=p / p.sum())
    for found, quantile in zip(belief.remaining_ticks(1, (0.1, 0.5, 0.9)), (0.1, 0.5, 0.9), strict=True):
        assert abs(found - np.quantile(sampled, quantile)) <= 2 + 0.1 * found
    assert belief.next_labels(1).argmax() == 2 and belief.next_labels(1).sum() == pytest.approx(1)


def test_a_step_that_lasts_longer_than_the_table_still_has_a_remaining_time() -> None:
    tables = random_tables(np.random.default_rng(2), 2, 10)
    tracker = BeliefTracker(tables, (1.0, 1.0), (0, 3))
    rows = np.log(np.full((100, 2), [0.99, 0.01])).astype(np.float32)
    for tick in range(100):
        belief = tracker.follow(tick, {lag: rows[: tick + 1] for lag in (0, 3)}).now
        quantiles = belief.remaining_ticks(0, (0.1, 0.5, 0.9))
        assert quantiles == sorted(quantiles) and quantiles[0] >= 0
    # Beyond the table, durations have no memory: the time that remains is geometric.
    assert abs(quantiles[1] - np.log(0.5) / np.log(1 - tables.tail[0])) <= 1


@pytest.mark.parametrize(("hz", "median_s"), [(30.0, 120.0), (30.0, 5.0), (15.0, 60.0), (10.0, 5.0)])
def test_a_step_that_outlasts_the_table_is_held_by_evidence(hz: float, median_s: float) -> None:
    """With the settings of a decoder that nobody has fitted. One tick of evidence weighs little at a high rate."""
    steps = {
        n: Step(first=1 / 3, share=1 / 3, median_s=median_s, spread=1.3, then={m: 1.0}) for n, m in ("ab", "bc", "ca")
    }
    config = DecoderConfig(procedure=Procedure(steps), decide_at=0.7)
    tables = filter_tables(Procedure(steps), hz, config.free_order)
    longest = tables.lasts.shape[1]
    tracker = BeliefTracker(tables, (config.belief_hz / hz, config.decide_hz / hz), (0,))
    decoder = BeliefDecoder(config, hz, 10**9)
    row = np.log(np.array([0.95, 0.03, 0.02], np.float32))
    decided = []
    for tick in range(longest + 400):
        beliefs = tracker.follow(tick, {0: row[None]})
        if (decision := decoder.decide(tick, row, beliefs.steady)) is not None:
            decided.append(decision.label)
    assert decided == [0] and beliefs.now.probability[0] > 0.9
    assert beliefs.now.known_begin(0) is None
    assert beliefs.now.remaining_ticks(0, (0.5,))[0] > hz  # it does not end at once


@given(st.floats(5, 200), st.floats(1.2, 4.0), st.sampled_from([4.0, 10.0, 30.0]))
@settings(max_examples=40, deadline=None)
def test_the_hazard_goes_on_beyond_the_table(median_s: float, spread: float, hz: float) -> None:
    """A segment that has reached the end of the table ends then as often as just before it."""
    steps = {n: Step(first=0.5, share=0.5, median_s=median_s, spread=spread, then={m: 1.0}) for n, m in ("ab", "ba")}
    tables = filter_tables(Procedure(steps), hz, 0.05)
    np.testing.assert_allclose(tables.lasts[:, 0], 1)
    np.testing.assert_allclose(tables.lasts[:, :-1] - tables.lasts[:, 1:], tables.ends[:, :-1], atol=1e-9)
    before = tables.ends[:, -2] / tables.lasts[:, -2]
    assert (np.abs(np.log(tables.tail / np.maximum(before, 1e-4))) < 0.7).all() and (tables.tail < 0.2).all()


def test_the_greatest_weight_of_the_evidence_gives_numbers() -> None:
    tables = filter_tables(procedure(), 10.0, 0.05)
    made = ForwardFilter(tables, (1000.0, 100.0), 12)
    rows = certain(np.repeat([0, 1, 2], 20), 0.999)
    for tick in range(len(rows) - 12):
        made.update(rows[tick])
        assert np.isfinite(made.ahead(list(rows[tick + 1 : tick + 13]))).all()
