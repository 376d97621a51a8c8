"""The search among models: children of the right parents, an order that means something, and a better answer."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.learning.hmm import em, restart_search
from edge_hal.learning.hmm.align import HmmAlignment, align_with_hmm
from edge_hal.learning.hmm.em import Candidate, HmmConfig, most_likely_segments
from edge_hal.learning.hmm.restart_search import DUPLICATE_DISTANCE, crossover, rank, without_duplicates
from edge_hal.learning.hmm.transcript_chain import Counts
from edge_hal.metrics import transcript_of
from tests.helpers.hmm_videos import accuracy, make_videos

seeds = st.integers(0, 2**32 - 1)
NEVER, ALWAYS = 1.1, 0.0  # agreement that restarts never, or always, reach


def random_counts(rng: np.random.Generator, states: int, width: int = 3) -> Counts:
    return Counts(
        mass=rng.random((states, 1)),
        first=rng.normal(size=(states, width)),
        second=rng.random((states, width)),
        visits=rng.random(states),
        frames=rng.random(states) * 100,
    )


def candidates_of(rng: np.random.Generator, number: int, states: int = 6) -> list[Candidate]:
    return [
        Candidate(random_counts(rng, states), float(rng.normal(-3, 0.1)), float(rng.normal(0.1, 0.02)))
        for _ in range(number)
    ]


def make_cycles(
    seed: int, videos: int = 10, actions: int = 5, noise: float = 2.0
) -> tuple[list[NDArray[np.float32]], list[tuple[int, ...]], list[NDArray[np.int64]]]:
    """Every video goes round the same cycle, durations uneven: shifted by a step, it looks nearly as good."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(actions, 8)) * 2
    typical = np.exp(rng.normal(np.log(12), 0.8, actions))
    features, transcripts, truth = [], [], []
    for _ in range(videos):
        order = np.arange(rng.integers(6, 11)) % actions
        lengths = np.maximum(typical[order] * np.exp(rng.normal(0, 0.3, len(order))), 3).astype(int)
        labels = np.repeat(order, lengths)
        features.append((means[labels] + noise * rng.normal(size=(len(labels), 8))).astype(np.float32))
        transcripts.append(tuple(order.tolist()))
        truth.append(labels)
    return features, transcripts, truth


@given(seeds, st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_a_child_has_each_step_whole_from_one_parent(seed: int, count: int, sub_states: int, pause: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = (random_counts(rng, count * sub_states + pause) for _ in range(2))
    mine = rng.random(count) < 0.5
    child = crossover(a, b, mine, sub_states)
    for field in fields(Counts):
        got = getattr(child, field.name)
        assert got.shape == getattr(a, field.name).shape
        for step in range(count):
            own = slice(step * sub_states, (step + 1) * sub_states)
            np.testing.assert_array_equal(got[own], getattr(a if mine[step] else b, field.name)[own])
        np.testing.assert_array_equal(got[count * sub_states :], getattr(a, field.name)[count * sub_states :])


@given(seeds, st.sampled_from([1, *range(3, 13)]), st.floats(0.01, 100), st.floats(-10, 10))  # two may tie
def test_the_ranking_is_of_all_and_follows_no_unit(seed: int, number: int, unit: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    found = candidates_of(rng, number)
    first = rank(found, found)
    assert sorted(map(id, first)) == sorted(map(id, found))
    assert [id(c) for c in rank(found[::-1], found)] == [id(c) for c in first]
    for i, better in enumerate(first):  # nobody worse in both comes before
        for worse in first[:i]:
            assert worse.log_likelihood >= better.log_likelihood or worse.margin >= better.margin
    moved = [Candidate(c.counts, unit * c.log_likelihood + shift, c.margin) for c in found]
    assert [id(c.counts) for c in rank(moved, moved)] == [id(c.counts) for c in first]


def test_both_measures_count_alike_by_their_spread_among_the_given() -> None:
    rng = np.random.default_rng(0)
    counts = random_counts(rng, 3)
    among = [Candidate(counts, ll, margin) for ll, margin in ((0.0, 0.0), (10.0, 0.0), (0.0, 0.1), (10.0, 0.1))]
    likely, wide = Candidate(counts, 20.0, 0.0), Candidate(counts, 0.0, 0.3)  # 4 spreads of one, 6 of the other
    assert rank([likely, wide], among) == [wide, likely]
    alike = [Candidate(counts, 1.0, 1.0)] * 3  # nothing to tell them apart by: no division by zero
    assert rank(alike, alike) == alike


@given(seeds, st.integers(1, 10), st.integers(1, 4))
def test_of_alike_models_the_first_stays(seed: int, number: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    originals = candidates_of(rng, number)
    found = []
    for original in originals:
        for _ in range(copies):
            nearly = original.counts.frames * np.exp(rng.normal(0, 1e-3, 6)) * rng.uniform(0.5, 2)  # shares count
            c = original.counts
            counts = Counts(c.mass, c.first, c.second, c.visits, nearly)
            found.append(Candidate(counts, original.log_likelihood, original.margin))

    def apart(a: Candidate, b: Candidate) -> float:
        one, two = (x.counts.frames / x.counts.frames.sum() for x in (a, b))
        return float(np.abs(one - two).sum())

    chosen = without_duplicates(found)
    assert chosen[0] is found[0] and len(chosen) <= number
    assert [id(c) for c in without_duplicates(chosen)] == [id(c) for c in chosen]
    kept = {id(c) for c in chosen}
    assert [c for c in found if id(c) in kept] == chosen  # in their order
    for i, one in enumerate(found):
        before = [c for c in found[:i] if id(c) in kept]
        assert (id(one) in kept) is all(apart(one, c) > DUPLICATE_DISTANCE for c in before)


def came_to(result: HmmAlignment) -> list[tuple[float, float]]:
    return [(c.log_likelihood, c.margin) for c in result.best]


@pytest.mark.parametrize("agreed", [NEVER, ALWAYS])
def test_how_many_processes_search_decides_nothing(agreed: float) -> None:
    features, transcripts, _ = make_videos(7, videos=4)
    config = HmmConfig(iterations=3, population=3, generations=2, agreement=agreed)
    results, told = [], []
    for workers in (1, 2):
        done: list[tuple[int, int]] = []
        results.append(
            align_with_hmm(
                features,
                transcripts,
                5,
                seed=3,
                restarts=5,
                config=config,
                progress=lambda *n, done=done: done.append(n),
                workers=workers,
            )
        )
        told.append(done)
    one, two = results
    assert told[0] == told[1] and came_to(one) == came_to(two) and one.evidence == two.evidence
    for a, b in zip(one.best, two.best, strict=True):
        for field in fields(Counts):
            np.testing.assert_array_equal(getattr(a.counts, field.name), getattr(b.counts, field.name))
    for labels, others in zip(one.labels, two.labels, strict=True):
        np.testing.assert_array_equal(labels, others)


def posterior_of(labels: list[int], segments: int) -> NDArray[np.float64]:
    return np.where(np.arange(segments) == np.array(labels)[:, None], 0.9, 0.1 / max(segments - 1, 1))


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(0, 12))
def test_posteriors_are_summed_and_every_segment_keeps_a_frame(
    seed: int, voters: int, segments: int, spare: int
) -> None:
    rng = np.random.default_rng(seed)
    told = [rng.dirichlet(np.ones(segments), segments + spare) for _ in range(voters)]
    found = most_likely_segments(*told)
    assert found[0] == 0 and found[-1] == segments - 1 and set(np.diff(found)) <= {0, 1}
    np.testing.assert_array_equal(most_likely_segments(*told[::-1], *told), found)  # in any order, all twice
    frames, best = np.arange(len(found)), -np.inf
    for cuts in itertools.combinations(range(1, len(found)), segments - 1):
        path = np.searchsorted(cuts, frames, side="right")
        best = max(best, float(np.sum(told, axis=0)[frames, path].sum()))
    assert np.sum(told, axis=0)[frames, found].sum() == pytest.approx(best)


def test_agreement_is_the_mean_share_of_frames_where_one_says_what_all_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two videos, of 10 and of 20 frames: each counts alike. Two of three put the boundary at the same place."""
    says = {
        "a": [[0] * 4 + [1] * 6, [0] * 10 + [1] * 10],
        "b": [[0] * 4 + [1] * 6, [0] * 10 + [1] * 10],
        "c": [[0] * 7 + [1] * 3, [0] * 9 + [1] * 11],
    }
    monkeypatch.setattr(em, "segment_posteriors", lambda _, counts, config: [posterior_of(x, 2) for x in says[counts]])
    found: list[Any] = [Candidate(name, 0.0, 0.0) for name in says]  # type: ignore[arg-type]
    config = HmmConfig()
    assert em.agreement([], found, config) == pytest.approx(np.mean([(1 + 1 + 0.7) / 3, (1 + 1 + 0.95) / 3]))
    assert em.agreement([], found[:2], config) == em.agreement([], found[2:], config) == 1


@pytest.mark.parametrize("measured", [0.79, 0.8, 0.81])
def test_restarts_that_agree_have_no_children_and_the_better_half_votes(
    monkeypatch: pytest.MonkeyPatch, measured: float
) -> None:
    features, transcripts, _ = make_videos(7, videos=6)
    asked: list[tuple[int, int]] = []

    def agreement(batches: Any, candidates: Any, config: HmmConfig) -> float:
        asked.append((sum(len(batch.lengths) for batch in batches), len(candidates)))
        return measured

    crossings = []
    real = restart_search.crossover
    monkeypatch.setattr(restart_search, "agreement", agreement)
    monkeypatch.setattr(restart_search, "crossover", lambda *given: (crossings.append(1), real(*given))[1])
    config = HmmConfig(iterations=3, population=6, generations=2, voters=2, first_videos=2, more_videos=4)
    found = align_with_hmm(features, transcripts, 5, seed=3, restarts=6, config=config)
    assert asked == [(4, 6)]  # of the kept restarts, on `more_videos`
    sure = measured >= config.agreement
    assert (not crossings) is sure and len(found.best) == (3 if sure else 2)


def test_progress_counts_every_model_up_to_its_total_and_the_seed_decides() -> None:
    features, transcripts, _ = make_videos(7, videos=5)
    config = HmmConfig(iterations=4, population=3, generations=2, agreement=NEVER)
    done: list[tuple[int, int]] = []
    options: dict[str, Any] = {"restarts": 5, "config": config}
    one = align_with_hmm(features, transcripts, 5, seed=3, progress=lambda *n: done.append(n), **options)
    two = align_with_hmm(features, transcripts, 5, seed=3, **options)
    other = align_with_hmm(features, transcripts, 5, seed=4, **options)
    total = 5 + 3 + 2 * 2  # restarts, those that are kept, two children per generation
    assert done == [(n, total) for n in range(1, total + 1)]
    assert all(np.array_equal(a, b) for a, b in zip(one.labels, two.labels, strict=True))
    assert one.evidence == two.evidence

    assert came_to(one) == came_to(two) != came_to(other)
    done.clear()
    sure = replace(config, agreement=ALWAYS)
    align_with_hmm(features, transcripts, 5, seed=3, restarts=5, config=sure, progress=lambda *n: done.append(n))
    assert done == [*((n, total) for n in range(1, 5 + 3 + 1)), (total, total)]  # the children are not missed


def test_the_first_restart_is_the_uniform_split_and_the_best_are_refined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, transcripts, _ = make_cycles(2, videos=6)
    durations: list[NDArray[np.float64]] = []
    evaluated: list[Candidate] = []
    refined: list[Counts] = []
    real = {name: getattr(restart_search, name) for name in ("initialise", "evaluate", "refine")}

    def initialise(batches: Any, count: int, config: HmmConfig, per_label: NDArray[np.float64]) -> Any:
        durations.append(per_label)
        return real["initialise"](batches, count, config, per_label)

    def evaluate(*given: Any) -> Candidate:
        evaluated.append(real["evaluate"](*given))
        return evaluated[-1]

    def refine(batches: Any, counts: Counts, *more: Any) -> Counts:
        refined.append(counts)
        return real["refine"](batches, counts, *more)

    for name, spied in (("initialise", initialise), ("evaluate", evaluate), ("refine", refine)):
        monkeypatch.setattr(restart_search, name, spied)
    config = HmmConfig(population=3, generations=0, agreement=NEVER)
    found = align_with_hmm(features, transcripts, 5, seed=1, restarts=7, config=config)
    assert len(durations) == 7 and (durations[0] == 1).all() and all(np.ptp(each) > 0.1 for each in durations[1:])
    best = rank(evaluated[:7], evaluated[:7])[:3]
    assert [id(counts) for counts in refined[:3]] == [id(each.counts) for each in best]
    assert [id(each) for each in best] != [id(each) for each in evaluated[:3]]  # else this test could not tell
    # The last three are those fitted to all videos, in the order of what was refined.
    assert [id(each) for each in found.best] == [id(each) for each in evaluated[-3:]]
    again = rank(evaluated[7:10], evaluated[7:10])
    assert [id(counts) for counts in refined[-3:]] == [id(each.counts) for each in again]


def test_a_single_restart_is_refined_and_has_no_children() -> None:
    features, transcripts, _ = make_videos(7, videos=4)
    done: list[tuple[int, int]] = []
    found = align_with_hmm(features, transcripts, 5, seed=3, restarts=1, progress=lambda *n: done.append(n))
    assert done == [(1, 2), (2, 2)] and len(found.best) == 1


@settings(deadline=None, max_examples=6)
@given(seeds, st.integers(1, 4), st.booleans(), st.booleans())
def test_as_many_models_agree_on_the_labels_as_are_asked_for_and_found(
    seed: int, consensus: int, pause: bool, sure: bool
) -> None:
    features, transcripts, truth = make_videos(seed % 50, videos=4)
    config = HmmConfig(
        iterations=3,
        generations=1,
        voters=consensus,
        pause=pause,
        first_videos=2,
        more_videos=3,
        agreement=ALWAYS if sure else NEVER,
    )
    found = align_with_hmm(features, transcripts, 5, seed=seed, restarts=4, config=config)
    assert len(found.best) == 2 if sure else 1 <= len(found.best) <= consensus  # half of the four, or as asked for
    assert [transcript_of(labels) for labels in found.labels] == transcripts
    assert [len(labels) for labels in found.labels] == [len(y) for y in truth]


@pytest.mark.parametrize("seed", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_children_find_what_one_restart_does_not(seed: int) -> None:
    features, transcripts, truth = make_cycles(seed)
    alone = accuracy(align_with_hmm(features, transcripts, 5, seed=seed, restarts=1).labels, truth)
    config = HmmConfig(agreement=NEVER)
    searched = accuracy(align_with_hmm(features, transcripts, 5, seed=seed, restarts=8, config=config).labels, truth)
    assert alone < 0.8 < 0.82 < searched  # the uniform split alone ends a step off, in places


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_easy_videos_a_search_is_no_worse_than_one_restart(seed: int) -> None:
    features, transcripts, truth = make_videos(seed, videos=6, noise=2.5)
    alone = accuracy(align_with_hmm(features, transcripts, 5, seed=seed, restarts=1).labels, truth)
    searched = accuracy(align_with_hmm(features, transcripts, 5, seed=seed, restarts=3).labels, truth)
    assert searched >= alone - 0.01 and searched > 0.9
