"""The filter over the procedure: the likeliest path, exactly, in constant memory, published a little late."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.decoding import semi_markov as filter_module
from edge_hal.decoding.decode import decode_posteriors, open_decoder
from edge_hal.decoding.decoder import Decision, Decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.evidence import LOG_RATIO_LIMIT, SHARE_POWER
from edge_hal.decoding.hysteresis import HysteresisDecoder
from edge_hal.decoding.semi_markov import SemiMarkovDecoder
from edge_hal.metrics import runs_of
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.lagging import lagging
from tests.helpers.small_models import TWO, small_spec

HZ = 10.0
Log = NDArray[np.float32]
seeds = st.integers(0, 2**32 - 1)


def random_procedure(rng: np.random.Generator, count: int = 3, median_s: tuple[float, float] = (0.3, 1.5)) -> Procedure:
    names = [f"step{i}" for i in range(count)]
    return Procedure(
        {
            name: Step(
                first=float(rng.random()),
                share=float(rng.random()),
                median_s=float(rng.uniform(*median_s)),
                spread=float(rng.uniform(1, 2)),
                then={to: float(rng.random()) for to in names if to != name},
            )
            for name in names
        }
    )


def cycle(*names: str, median_s: float = 3.0, spread: float = 1.4) -> Procedure:
    """Each of the names after the one before it."""
    after = dict(zip(names, [*names[1:], names[0]], strict=True))
    return Procedure({n: Step(float(n == names[0]), 1 / len(names), median_s, spread, {after[n]: 1.0}) for n in names})


def config_of(procedure: Procedure, **thresholds: float) -> DecoderConfig:
    known = {"evidence_hz": 4.0, "confirm_s": 0.3, "min_duration_s": 0.0, **thresholds}
    return DecoderConfig(procedure=procedure).with_thresholds(known)


def random_log(rng: np.random.Generator, ticks: int, count: int = 3, sharpness: float = 1.0) -> Log:
    """Random segments with noise."""
    labels = np.repeat(rng.integers(0, count, ticks), rng.integers(1, 25, ticks))[:ticks]
    logits = rng.normal(size=(ticks, count))
    logits[np.arange(ticks), labels] += sharpness
    return np.float32(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def certain(labels: Sequence[int] | NDArray[np.int64], count: int = 3, confidence: float = 0.9) -> Log:
    posterior = np.full((len(labels), count), (1 - confidence) / (count - 1))
    posterior[np.arange(len(labels)), labels] = confidence
    return np.log(posterior).astype(np.float32)


def decode(decoder: Decoder, log_posterior: Log, every: int = 1, keep: int = 10_000) -> list[Decision]:
    made = []
    for tick in range(every - 1, len(log_posterior), every):
        decision = decoder.decide(tick, log_posterior[max(0, tick + 1 - keep) : tick + 1])
        if decision is not None:
            made.append(decision)
    return made


def told(decisions: list[Decision]) -> list[tuple[int | None, int, int]]:
    return [(d.previous, d.label, d.boundary_tick) for d in decisions]


def best_path(config: DecoderConfig, log_posterior: Log) -> tuple[NDArray[np.int64], float, float]:
    """Labels (T,) of the likeliest of all segmentations, its score and the next best: no segment follows one of
    its own label, so a segmentation is a label for each tick."""
    assert config.procedure is not None
    tables = config.procedure.tables(HZ)
    ticks, count = log_posterior.shape
    rows = log_posterior.astype(np.float64)
    limited = np.maximum(rows - rows.max(axis=1, keepdims=True), -LOG_RATIO_LIMIT)
    evidence = config.evidence_hz / HZ * (limited - SHARE_POWER * tables.share)
    scored = []
    for path in itertools.product(range(count), repeat=ticks):
        kinds, starts, stops = runs_of(np.array(path))
        lasted = np.minimum(stops - starts, tables.duration.shape[1])  # longer is as good as the longest
        score = tables.first[kinds[0]] + evidence[np.arange(ticks), path].sum()
        score += tables.duration[kinds[:-1], lasted[:-1] - 1].sum() + tables.follows[kinds[:-1], kinds[1:]].sum()
        score += tables.survival[kinds[-1], lasted[-1] - 1]  # the last goes on
        scored.append((float(score), path))
    scored.sort(reverse=True)
    return np.array(scored[0][1]), scored[0][0], scored[1][0]


@given(seeds, st.integers(1, 7), st.sampled_from([0.0, 0.1, 0.2, 0.4, 1.0]), st.floats(0.5, 40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_path_is_the_likeliest_of_all_segmentations(
    seed: int, ticks: int, confirm_s: float, evidence_hz: float, brief: bool
) -> None:
    """At the last tick: what the path says of `confirm_s` ago, its label and where that began. `brief` steps have a
    longest duration of four ticks, so that beginnings are merged."""
    rng = np.random.default_rng(seed)
    procedure = random_procedure(rng, median_s=(0.04, 0.05) if brief else (0.3, 1.5))
    config = config_of(procedure, evidence_hz=evidence_hz, confirm_s=confirm_s)
    log_posterior = np.log(rng.dirichlet(np.full(3, 0.5), ticks) + 1e-6).astype(np.float32)
    log_posterior[rng.random(log_posterior.shape) < 0.1] = -60  # blunders
    log_posterior[rng.random(ticks) < 0.1] -= np.float32(3)  # not normalised: only differences count
    path, best, second = best_path(config, log_posterior)
    if best - second < 1e-9:
        return
    decoder = SemiMarkovDecoder(config, HZ)
    assert (decoder._tables.duration.shape[1] == 4) is brief
    for tick in range(ticks):
        decoder.decide(tick, log_posterior[: tick + 1])
    kinds, starts, _ = runs_of(path)
    then = max(ticks - 1 - round(confirm_s * HZ), 0)
    segment = int(np.searchsorted(starts, then, side="right")) - 1
    assert decoder._trace_back(ticks - 1) == (kinds[segment], starts[segment])


@given(seeds, st.integers(2, 8), st.integers(30, 400))
@settings(deadline=None, max_examples=30)
def test_how_many_ticks_come_at_once_and_how_many_are_kept_decides_nothing(seed: int, every: int, keep: int) -> None:
    """One told tick by tick against one told `every` ticks at a time, over many times the longest duration."""
    rng = np.random.default_rng(seed)
    config = config_of(random_procedure(rng, 4), confirm_s=float(rng.uniform(0, 1)), min_duration_s=0.3)
    log_posterior = random_log(rng, 300, 4)
    each, paths = SemiMarkovDecoder(config, HZ), []
    for tick in range(len(log_posterior)):
        each.decide(tick, log_posterior[: tick + 1])
        if tick % every == every - 1:
            paths.append(each._trace_back(tick))
    some, since = SemiMarkovDecoder(config, HZ), 0
    expected: list[tuple[Any, ...]] = []
    label: int | None = None
    decisions = decode(some, log_posterior, every, keep)
    for tick, (now, began) in zip(range(every - 1, len(log_posterior), every), paths, strict=True):
        if now == label or (tick < some._first_decision_tick if label is None else tick - since < 3):
            continue
        if label is not None:
            since = min(tick, max(began, since + 3, tick + 1 - keep))
        expected.append((label, now, since, tick))
        label = now
    assert [(d.previous, d.label, d.boundary_tick, d.decision_tick) for d in decisions] == expected
    whole = decode(SemiMarkovDecoder(config, HZ), log_posterior, every)
    assert [(d.label, d.decision_tick) for d in decisions] == [(d.label, d.decision_tick) for d in whole]


def sizes(decoder: SemiMarkovDecoder) -> dict[str, int]:
    held = {name: value for name, value in vars(decoder).items() if not isinstance(value, (int, float, type(None)))}
    return {name: value.nbytes if isinstance(value, np.ndarray) else len(repr(value)) for name, value in held.items()}


def test_memory_is_constant_and_a_step_may_last_longer_than_any_duration() -> None:
    procedure = cycle("a", "b", "c", median_s=1.0)
    config = config_of(procedure)
    decoder = SemiMarkovDecoder(config, HZ)
    longest = decoder._tables.duration.shape[1]
    labels = np.repeat([0, 1, 2, 0, 1, 2, 0, 1], [9_000, 8, 12, 9_900, 15, 10, 900, 155])
    assert len(labels) == 20_000 and 100 * longest < 9_000
    rows, before, made = certain(labels), sizes(decoder), []
    for tick in range(3, len(rows), 4):
        decision = decoder.decide(tick, rows[max(0, tick - 59) : tick + 1])
        if decision is not None:
            made.append(decision)
    _, starts, _ = runs_of(labels)
    assert [d.boundary_tick for d in made] == starts.tolist()
    assert [d.label for d in made] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert sizes(decoder) == before
    # Nor has the sum of 20,000 ticks of evidence cost precision: a fresh one sees the end alike.
    fresh = SemiMarkovDecoder(config, HZ)
    again = decode(fresh, rows[-400:], 4)
    assert again[-1].boundary_tick == starts[-1] - (len(rows) - 400)


def test_an_order_that_is_forbidden_keeps_a_look_alike_out() -> None:
    """After `a`, posteriors lean to `c`, a little; `b` looks nearly the same."""
    labels = np.repeat([0, 2, 0], [30, 30, 30])
    rows = np.log(np.where(labels[:, None] == 0, [[0.9, 0.05, 0.05]], [[0.05, 0.45, 0.5]])).astype(np.float32)
    free = Step(0.34, 0.33, 3.0, 1.4, {})

    def found(after: dict[str, float]) -> list[tuple[int | None, int, int]]:
        procedure = Procedure({"a": replace(free, then=after), "b": free, "c": free})
        return told(decode(SemiMarkovDecoder(config_of(procedure), HZ), rows))

    assert found({"b": 0.5, "c": 0.5}) == [(None, 0, 0), (0, 2, 30), (2, 0, 60)]
    assert found({"b": 1.0, "c": 0.0}) == [(None, 0, 0), (0, 1, 30), (1, 0, 60)]
    # What no step list has shown is unlikely, not impossible: posteriors that are sure win.
    sure = certain(labels)
    procedure = Procedure({"a": replace(free, then={"b": 1.0}), "b": free, "c": free})
    decisions = decode(SemiMarkovDecoder(config_of(procedure), HZ), sure)
    assert told(decisions) == [(None, 0, 0), (0, 2, 30), (2, 0, 60)]


def test_a_flicker_too_short_for_its_step_is_sat_out_and_a_step_of_its_length_is_not() -> None:
    labels = np.repeat([0, 1, 0], [40, 6, 40])
    rows = certain(labels, 2, 0.8)

    def found(median_s: float) -> list[int]:
        brief = Step(0.0, 0.5, median_s, 1.2, {"a": 1.0})
        procedure = Procedure({"a": Step(1.0, 0.5, 4.0, 1.3, {"b": 1.0}), "b": brief})
        config = config_of(procedure, confirm_s=1.0)  # the flicker is over before it would be published
        return [d.label for d in decode(SemiMarkovDecoder(config, HZ), rows)]

    assert found(6.0) == [0] and found(0.6) == [0, 1, 0]


@given(seeds, st.integers(1, 8), st.floats(0, 1.5), st.integers(0, 12))
@settings(deadline=None, max_examples=60)
def test_no_looks_a_second_or_no_procedure_is_hysteresis(
    seed: int, every: int, confirm_s: float, lag_ticks: int
) -> None:
    rng = np.random.default_rng(seed)
    log_posterior = random_log(rng, 250)
    spec = replace(small_spec(TWO), labels=("a", "b", "c"), lag_s=lag_ticks / HZ, lookback_s=30.0)
    assert spec.lag_ticks == lag_ticks
    plain = DecoderConfig(confirm_s=confirm_s, min_duration_s=0.5)
    expected = decode(HysteresisDecoder(plain, HZ, lag_ticks), log_posterior, every)
    for config in (plain, plain.with_thresholds({"evidence_hz": 3}), replace(plain, procedure=cycle("a", "b", "c"))):
        decoder = open_decoder(config, spec)
        assert type(decoder) is HysteresisDecoder
        assert decode(decoder, log_posterior, every) == expected
    both = replace(plain, procedure=cycle("a", "b", "c"), evidence_hz=3.0)
    assert type(open_decoder(both, spec)) is SemiMarkovDecoder


@pytest.mark.parametrize("never", [-60.0, -np.inf])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("confirm_s", [0.0, 0.5])
def test_one_confident_blunder_makes_no_pair_of_transitions(
    monkeypatch: pytest.MonkeyPatch, never: float, every: int, confirm_s: float
) -> None:
    """Wherever in a step it comes; without a limit it does, so this test can tell."""
    labels = np.repeat([0, 1], [40, 40])
    config = config_of(cycle("a", "b"), confirm_s=confirm_s)
    clean = told(decode(SemiMarkovDecoder(config, HZ), certain(labels, 2), every))
    assert [(label, boundary) for _, label, boundary in clean] == [(0, 0), (1, 40)]

    def blundered() -> list[bool]:
        same = []
        for tick in (12, 20, 31, 52, 60, 75):
            rows = certain(labels, 2)
            rows[tick] = [never, 0] if labels[tick] == 0 else [0, never]
            made = decode(SemiMarkovDecoder(config, HZ), rows, every)
            assert all(np.isfinite(d.confidence) for d in made)
            same.append(told(made) == clean)
        return same

    assert all(blundered())
    monkeypatch.setattr(filter_module, "LOG_RATIO_LIMIT", 1e3)
    assert not all(blundered())


@given(seeds, st.floats(-50, 50))
@settings(deadline=None, max_examples=20)
def test_what_is_added_to_a_whole_row_decides_nothing(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    config = config_of(random_procedure(rng), confirm_s=float(rng.uniform(0, 1)))
    rows = np.round(random_log(rng, 150) * 64).astype(np.float64) / 64  # so that sums are exact
    moved = rows + np.round(shift * rng.random((len(rows), 1)) * 64) / 64
    one, two = (decode(SemiMarkovDecoder(config, HZ), np.float32(each)) for each in (rows, moved))
    assert told(one) == told(two)


@given(seeds, st.floats(0.8, 0.99), st.sampled_from([2.0, 4.0, 8.0]))
@settings(deadline=None, max_examples=25)
def test_a_label_never_seen_does_not_win_on_clean_posteriors(seed: int, confidence: float, evidence_hz: float) -> None:
    """Even where one step takes most of the time: what is divided by a share is divided by no share near zero."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(9) % 3, np.round(np.tile([40, rng.integers(60, 400), 30], 3)).astype(int))
    procedure = learn_procedure([labels], ("a", "b", "c", "never"), HZ)
    assert procedure.steps["never"].share == 0
    config = config_of(procedure, evidence_hz=evidence_hz)
    made = decode(SemiMarkovDecoder(config, HZ), certain(labels, 4, confidence))
    kinds, _, _ = runs_of(labels)
    assert [d.label for d in made] == kinds.tolist()


@pytest.mark.parametrize("filters", [False, True], ids=["hysteresis", "filter"])
@given(seeds, st.integers(0, 15), st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_boundaries_are_exact_on_clean_posteriors_whatever_the_lag(
    filters: bool, seed: int, lag_ticks: int, every: int
) -> None:
    rng = np.random.default_rng(seed)
    order = np.cumsum([0, 1, 1, *rng.integers(1, 3, 5)]) % 3  # every step is there
    labels = np.repeat(order, rng.integers(15, 45, 8))
    procedure = learn_procedure([labels], ("a", "b", "c"), HZ)
    config = config_of(procedure, evidence_hz=5.0 if filters else 0.0, min_duration_s=0.5)
    spec = replace(small_spec(TWO), labels=("a", "b", "c"), lag_s=lag_ticks / HZ)
    decoder = open_decoder(config, spec)
    assert isinstance(decoder, SemiMarkovDecoder) is filters
    rows = lagging(certain(np.append(labels, np.full(40, labels[-1]))), spec.lag_ticks)
    made = decode(decoder, rows, every)
    kinds, starts, _ = runs_of(labels)
    assert [(d.label, d.boundary_tick) for d in made] == list(zip(kinds.tolist(), starts.tolist(), strict=True))
    # Nobody decides before it has been seen, and seen it is `lag_ticks` later.
    assert all(d.decision_tick >= d.boundary_tick + lag_ticks for d in made[1:])


@pytest.mark.parametrize("filters", [False, True], ids=["hysteresis", "filter"])
@given(seeds, st.integers(0, 10), st.integers(1, 8), st.integers(25, 200), st.floats(0, 3), st.floats(0, 1.5))
@settings(deadline=None, max_examples=60)
def test_whatever_comes_the_segments_are_well_formed(
    filters: bool, seed: int, lag_ticks: int, every: int, keep: int, min_duration_s: float, lead_s: float
) -> None:
    rng = np.random.default_rng(seed)
    config = config_of(
        random_procedure(rng),
        confirm_s=float(rng.uniform(0, 1)),
        evidence_hz=float(rng.uniform(0.5, 30)) if filters else 0.0,
        min_duration_s=min_duration_s,
        lead_s=lead_s,
    )
    rows = random_log(rng, 300, sharpness=float(rng.uniform(0, 4)))
    decoder = (SemiMarkovDecoder if filters else HysteresisDecoder)(config, HZ, lag_ticks)
    shortest, before = max(1, round(min_duration_s * HZ)), None
    for d in decode(decoder, rows, every, keep):
        assert 0 < d.confidence <= 1 + 1e-6
        if before is None:
            assert (d.previous, d.boundary_tick) == (None, 0)
        else:
            assert d.previous == before.label != d.label
            assert d.boundary_tick - before.boundary_tick >= shortest
            assert d.decision_tick > before.decision_tick
            kept = max(0, d.decision_tick + 1 - keep)
            assert kept <= d.boundary_tick <= d.decision_tick - lag_ticks
        before = d


def test_the_lead_moves_the_filters_boundaries_too() -> None:
    labels = np.repeat([0, 1, 2], [30, 30, 40])
    config = config_of(cycle("a", "b", "c"))
    for lead_s, boundaries in ((0.0, [0, 30, 60]), (0.4, [0, 26, 56])):
        made = decode(SemiMarkovDecoder(config.with_thresholds({"lead_s": lead_s}), HZ), certain(labels))
        assert [d.boundary_tick for d in made] == boundaries


def test_reset_forgets_all_that_was_seen() -> None:
    rng = np.random.default_rng(4)
    config = config_of(random_procedure(rng), confirm_s=0.4)
    one, two = random_log(rng, 150), random_log(rng, 150)
    used = SemiMarkovDecoder(config, HZ, 3)
    decode(used, one)
    used.reset()
    assert used.label is None
    assert decode(used, two) == decode(SemiMarkovDecoder(config, HZ, 3), two) != []


def test_the_first_label_comes_from_none_at_tick_zero_and_once_the_path_has_it() -> None:
    """However wrong the first ticks are: the path is the likeliest in hindsight."""
    config = config_of(cycle("a", "b", "c"), confirm_s=1.0)
    made = decode(SemiMarkovDecoder(config, HZ), certain([0] * 40), every=1)
    assert (made[0].previous, made[0].label, made[0].boundary_tick) == (None, 0, 0)
    assert made[0].decision_tick == 15  # half the shortest step, which is longer than `confirm_s`
    one = SemiMarkovDecoder(config_of(cycle("a")), HZ)  # a procedure of one step has nothing to decide
    assert told(decode(one, np.zeros((300, 1), np.float32), every=4)) == [(None, 0, 0)]


def test_steps_that_follow_the_procedure_are_told_from_noise_better_than_by_hysteresis() -> None:
    """What the filter is for. Each tick is wrong often, and the order and durations are known."""
    rng = np.random.default_rng(7)
    names = ("a", "b", "c", "d")
    spec = replace(small_spec(TWO), labels=names)
    videos = [np.repeat(np.arange(12) % 4, np.round(30 * np.exp(rng.normal(0, 0.2, 12))).astype(int)) for _ in range(6)]
    procedure = learn_procedure(videos[:3], names, HZ)

    def right(config: DecoderConfig) -> float:
        shares = []
        for seed, labels in enumerate(videos[3:]):
            noise = np.random.default_rng(seed).normal(size=(len(labels), 4)) * 2
            noise[np.arange(len(labels)), labels] += 1.2
            rows = np.float32(noise - np.log(np.exp(noise).sum(axis=1, keepdims=True)))
            found = np.zeros(len(labels), np.int64)
            for d in decode_posteriors(rows, config, spec):
                found[d.boundary_tick :] = d.label
            shares.append(float((found == labels).mean()))
        return float(np.mean(shares))

    config = config_of(procedure, evidence_hz=2.0, min_duration_s=1.0)
    patience = (0.3, 0.6, 1.0)
    hysteresis = max(right(config.with_thresholds({"evidence_hz": 0, "smooth_s": s, "confirm_s": s})) for s in patience)
    assert right(config) > max(0.85, hysteresis + 0.08)
