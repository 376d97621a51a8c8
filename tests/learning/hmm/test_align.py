"""The first alignment recovers a known model from transcripts; forward-backward agrees with the definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.hmm import problem
from edge_hal.learning.hmm.align import align_with_hmm, whitened
from edge_hal.learning.hmm.em import HmmConfig
from edge_hal.learning.hmm.sub_states import parts_that_fit
from edge_hal.learning.hmm.transcript_chain import Batch
from edge_hal.metrics import transcript_of, uniform_split
from tests.helpers.hmm_videos import accuracy, make_videos


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recovers_a_known_model_far_above_the_uniform_split(seed: int) -> None:
    features, transcripts, truth = make_videos(seed)
    floor = [uniform_split(t, len(y)) for t, y in zip(transcripts, truth, strict=True)]
    result = align_with_hmm(features, transcripts, 5, seed=seed, restarts=6)
    assert [transcript_of(labels) for labels in result.labels] == transcripts
    ours = accuracy(result.labels, truth)
    assert ours > 0.85 and ours > accuracy(floor, truth) + 0.2


def test_videos_shorter_than_their_sub_states_and_repeats() -> None:
    rng = np.random.default_rng(0)
    transcripts = [(0,), (0, 1, 2, 1, 0), (2, 2, 1), (1, 0)]
    features = [rng.normal(size=(n, 4)) for n in (1, 5, 11, 40)]
    got = align_with_hmm(features, transcripts, 3, seed=0, restarts=2).labels
    assert [labels.size for labels in got] == [1, 5, 11, 40]
    assert got[1].tolist() == [0, 1, 2, 1, 0]
    assert transcript_of(got[2]) == (2, 1)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(3, 7))
def test_expectations_equal_a_sum_over_all_paths(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(length, 3)), rng.normal(size=(length + 2, 3))]
    problem = Batch(features, [(1, 0), (0, 1, 0)], 2)
    emission = rng.normal(size=(length + 2, 2, 4)) * 3
    leave = np.asarray(rng.uniform(0.1, 0.9, problem.chain.shape))
    total, gamma = problem.forward_backward(emission, leave)
    for i, frames in enumerate((length, length + 2)):
        last = int(problem.last[i])
        likelihood, visits = 0.0, np.zeros((frames, last + 1))
        for steps in itertools.combinations(range(1, frames), last):
            path: Any = np.searchsorted(steps, np.arange(frames), side="right")
            log_p = emission[np.arange(frames), i, problem.chain[i, path]].sum()
            moved = np.diff(path) > 0
            chance = np.where(moved, leave[i, path[:-1]], 1 - leave[i, path[:-1]])
            weight = np.exp(log_p) * chance.prod()
            likelihood += weight
            visits[np.arange(frames), path] += weight
        assert total[i] == pytest.approx(np.log(likelihood), rel=1e-5, abs=1e-4)  # float32
        assert gamma[:frames, i, : last + 1] == pytest.approx(visits / likelihood, abs=1e-4)
        assert not gamma[frames:, i].any() and not gamma[:, i, last + 1 :].any()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_expectations_are_those_of_the_definition_with_known_segments_and_pauses(
    seed: int, pause: bool, labelled: bool
) -> None:
    """Forward and backward passes apart, in double precision, over videos of hundreds of frames and any length."""
    rng = np.random.default_rng(seed)
    transcripts = [tuple(rng.integers(0, 3, n).tolist()) for n in rng.integers(1, 8, 3)]
    lengths = [int(rng.integers(4 * len(t) if labelled else len(t), 200)) for t in transcripts]
    known_segments: list[Any] = [None, None, None]
    if labelled:
        for i in range(2):
            spare = rng.multinomial(lengths[i] - 4 * len(transcripts[i]), rng.dirichlet(np.ones(len(transcripts[i]))))
            known_segments[i] = np.repeat(np.arange(len(transcripts[i])), spare + 4)  # room for all sub-states
            for m in range(len(transcripts[i])):  # one frame of each segment is known at least
                inside = np.flatnonzero(known_segments[i] == m)
                known_segments[i][inside[rng.permutation(len(inside))[1 + int(rng.integers(len(inside))) :]]] = -1
    features = [rng.normal(size=(n, 3)) for n in lengths]
    problem = Batch(features, transcripts, 2, 6 if pause else None, known_segments if labelled else None)
    emission = rng.normal(size=(max(lengths), 3, 7)) * 2
    leave = np.asarray(rng.uniform(0.02, 0.9, problem.chain.shape))
    total, gamma = problem.forward_backward(emission, leave)
    for i, frames in enumerate(lengths):
        last = int(problem.last[i])
        seen = emission[:frames, i][:, problem.chain[i, : last + 1]]
        if known_segments[i] is not None:
            segment = problem.chains[i].segments
            seen = np.where((known_segments[i][:, None] >= 0) & (known_segments[i][:, None] != segment), -np.inf, seen)
        stay, move = np.log1p(-leave[i, : last + 1]), np.log(leave[i, : last + 1])
        forward, backward = np.full((2, frames, last + 1), -np.inf)
        forward[0, 0], backward[-1, last] = seen[0, 0], 0
        for t in range(1, frames):
            came = np.append(-np.inf, (forward[t - 1] + move)[:-1])
            forward[t] = seen[t] + np.logaddexp(forward[t - 1] + stay, came)
        for t in range(frames - 2, -1, -1):
            then = seen[t + 1] + backward[t + 1]
            backward[t] = np.logaddexp(stay + then, np.append((move[:-1] + then[1:]), -np.inf))
        expected = forward[-1, last]
        assert np.isfinite(expected), "the known_segments of this test can be met"
        assert total[i] == pytest.approx(expected, rel=1e-5, abs=3e-3)  # hundreds of sums in float32
        np.testing.assert_allclose(gamma[:frames, i, : last + 1], np.exp(forward + backward - expected), atol=4e-3)
        np.testing.assert_allclose(gamma[:frames, i].sum(axis=1), 1, atol=1e-5)
        assert not gamma[frames:, i].any()


@pytest.mark.parametrize(("sharp", "labelled"), [(0.1, False), (3.0, False), (30.0, False), (3.0, True)])
def test_posteriors_of_a_long_video_sum_to_one(sharp: float, labelled: bool) -> None:
    """5,000 bins and 700: the error of float32 grows with the length, and the posteriors must still sum to 1."""
    rng = np.random.default_rng(0)
    lengths, transcripts = (5000, 700), [tuple(rng.integers(0, 6, n).tolist()) for n in (60, 9)]
    near = [np.linspace(0, 3 * len(t) - 1, n).round().astype(int) for t, n in zip(transcripts, lengths, strict=True)]
    known_segments = None
    if labelled:
        known_segments = [near[0] // 3, None]
        known_segments[0][rng.random(5000) < 0.5] = -1
    problem = Batch([rng.normal(size=(n, 2)) for n in lengths], transcripts, 3, None, known_segments)
    emission = rng.normal(size=(5000, 2, 18))
    for i, frames in enumerate(lengths):  # features that say where it is, as those of a fitted model do
        emission[np.arange(frames), i, problem.chain[i, near[i]]] += 3
    emission *= sharp
    total, gamma = problem.forward_backward(emission, np.asarray(rng.uniform(0.01, 0.5, problem.chain.shape)))
    assert np.isfinite(total).all()
    for i, frames in enumerate(lengths):
        np.testing.assert_allclose(gamma[:frames, i].sum(axis=1), 1, atol=1e-5)
        assert (gamma >= 0).all() and not gamma[frames:, i].any()
        assert gamma[0, i, 0] == gamma[frames - 1, i, problem.last[i]] == 1
        # Forward only: the mean position never goes back.
        place = gamma[:frames, i].astype(np.float64) @ np.arange(gamma.shape[2])
        assert (np.diff(place) > -1e-3).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_free_model_sums_over_all_orders(seed: int, length: int) -> None:
    """Two labels of two states: enter at a first state, leave a last one to any first one."""
    rng = np.random.default_rng(seed)
    leave = rng.uniform(0.1, 0.9, 4)
    emission = rng.normal(size=(length + 3, 2, 4)) * 3
    step = np.diag(1 - leave)
    step[[0, 2], [1, 3]] += leave[[0, 2]]
    step[np.ix_([1, 3], [0, 2])] += leave[[1, 3], None] / 2
    features = [np.ones((n, 3)) for n in (length, length + 3)]
    got = Batch(features, [(0,), (1,)], 2).free_log_likelihood(emission, leave, 2)
    for i, frames in enumerate((length, length + 3)):
        now = np.array([0.5, 0, 0.5, 0]) * np.exp(emission[0, i])
        for t in range(1, frames):
            now = now @ step * np.exp(emission[t, i])
        assert got[i] == pytest.approx(np.log(now[[1, 3]].sum()))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_whitened_features_are_uncorrelated_and_of_unit_variance(seed: int, per_video: bool) -> None:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(6, 6))
    features = [rng.normal(size=(n, 6)) @ mix for n in (80, 120)]
    features = [np.c_[x, x[:, 0], np.ones(len(x))] for x in features]  # one twice, one constant
    got = np.concatenate(whitened(features, 12, per_video))
    assert got.shape[1] <= 6
    assert np.cov(got, rowvar=False) == pytest.approx(np.eye(got.shape[1]), abs=1e-6)


@pytest.mark.parametrize(
    ("lengths", "transcripts"),
    [((9,), [()]), ((9,), [(0, 3)]), ((2,), [(0, 1, 2)]), ((9, 9), [(0,)]), ((), [])],
)
def test_impossible_problems_are_refused(lengths: Any, transcripts: Any) -> None:
    with pytest.raises(EdgeHalError, match="cannot align"):
        align_with_hmm([np.ones((n, 2)) for n in lengths], transcripts, 3, seed=0)
    with pytest.raises(EdgeHalError, match="video 1"):
        align_with_hmm([np.ones((9, 2)), np.ones((9, 3))], [(0,), (0,)], 1, seed=0)
    with pytest.raises(EdgeHalError, match="restarts"):
        align_with_hmm([np.ones((9, 2))], [(0,)], 1, seed=0, restarts=0)


def test_features_that_say_nothing_still_give_an_alignment() -> None:
    got = align_with_hmm([np.ones((20, 3)), np.ones((9, 3))], [(0, 1), (1, 0)], 2, seed=0)
    assert [transcript_of(labels) for labels in got.labels] == [(0, 1), (1, 0)]


@pytest.mark.parametrize("seed", [0, 1])
def test_agreement_is_high_where_restarts_find_the_same_and_lower_on_noise(seed: int) -> None:
    features, transcripts, _ = make_videos(seed)
    rng = np.random.default_rng(seed)
    noise = [rng.normal(size=x.shape).astype(np.float32) for x in features]
    config = HmmConfig(generations=1)  # the agreement is that of the restarts before it
    clear = align_with_hmm(features, transcripts, 5, seed=seed, restarts=4, config=config)
    lost = align_with_hmm(noise, transcripts, 5, seed=seed, restarts=4, config=config)
    assert len(clear.evidence) == len(features)
    # Not lower: on noise all restarts stay near the uniform split, and the best of them are kept.
    agreed = [np.mean([each.agreement for each in found.evidence]) for found in (clear, lost)]
    assert agreed[0] > 0.98 > 0.93 > agreed[1]
    # With one restart there is nothing to disagree with.
    alone = align_with_hmm(noise, transcripts, 5, seed=seed, restarts=1)
    assert {each.agreement for each in alone.evidence} == {1.0}


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 40)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_groups_hold_every_video_once_and_stay_within_the_budget(sizes: list[tuple[int, int]]) -> None:
    lengths, counts = zip(*sorted(sizes), strict=True)
    videos = [np.zeros((n, 1)) for n in lengths]
    transcripts = [(0,) * m for m in counts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "BATCH_CELLS", 50_000)
        whole = problem.Problem(videos, transcripts, [None] * len(videos), 1, HmmConfig())
        groups = whole._groups(range(len(videos)))
    assert [i for group in groups for i in group] == list(range(len(videos)))
    for group in groups:
        cells = len(group) * max(lengths[i] for i in group) * 3 * max(counts[i] for i in group)
        assert len(group) == 1 or (len(group) <= problem.BATCH and cells <= 50_000)


def test_a_search_leaves_long_videos_out_unless_there_are_no_others() -> None:
    def short(*sizes: Any) -> Any:
        videos = [np.zeros((frames, 1)) for frames, _ in sizes]
        lists = [(0,) * steps for _, steps in sizes]
        return problem.Problem(videos, lists, [None] * len(sizes), 1, HmmConfig()).short()

    assert short((200, 20), (14_400, 360), (300, 30)) == [0, 2]
    assert short((14_400, 360), (20_000, 400), (14_400, 300)) == [0, 2]
    assert short((200, 20), (14_400, 360)) == [0, 1] and short((14_400, 360)) == [0]


def test_alone_or_together_a_video_is_aligned_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    features, transcripts, _ = make_videos(5, videos=5)
    together = align_with_hmm(features, transcripts, 5, seed=1, restarts=2)
    monkeypatch.setattr(problem, "BATCH_CELLS", 1)
    alone = align_with_hmm(features, transcripts, 5, seed=1, restarts=2)
    for a, b in zip(together.labels, alone.labels, strict=True):
        np.testing.assert_array_equal(a, b)


def chain_is_possible(parts: NDArray[np.int64], known: NDArray[np.int64]) -> bool:
    """By brute force over the begins of all segments."""
    count, length = len(parts), len(known)
    for inner in itertools.combinations(range(1, length), count - 1):
        begins = np.array([0, *inner, length])
        labels = np.repeat(np.arange(count), np.diff(begins))
        if (np.diff(begins) >= parts).all() and ((known < 0) | (known == labels)).all():
            return True
    return False


@given(st.integers(1, 4), st.integers(0, 8), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_sub_states_fit_between_known_segments(count: int, spare: int, most: int, seed: int) -> None:
    """Each chain is possible, no sub-state is given up without need, and there is one for each segment at least."""
    rng = np.random.default_rng(seed)
    begins = rng.permutation(np.arange(1, count + spare))[: count - 1]
    truth = np.repeat(np.arange(count), np.diff([0, *np.sort(begins), count + spare]))
    known = np.where(rng.random(len(truth)) < rng.random(), truth, -1)
    wanted = np.full(count, most)
    parts = parts_that_fit(wanted, known)
    assert parts.min() >= 1 and (parts <= wanted).all() and chain_is_possible(parts, known)
    if chain_is_possible(wanted, known):
        assert (parts == wanted).all()
    for m in np.flatnonzero(parts < wanted):
        assert not chain_is_possible(parts + (np.arange(count) == m), known)


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("stamps", [False, True])
@pytest.mark.parametrize("bins", [1, 2, 3])
def test_a_known_segment_shorter_than_its_sub_states_leaves_the_features_their_say(
    pause: bool, stamps: bool, bins: int
) -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(4, 8)) * 2

    def video(durations: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        labels = np.repeat([0, 1, 2, 3], durations)
        return mean[labels] + rng.normal(size=(len(labels), 8)) * 0.5, labels

    first, truth = video([10, bins, 14, 12])
    given = np.array([9, 10, 10 + bins]) if stamps else np.arange(11 + bins)
    known = np.full(len(truth), -1)
    known[given] = truth[given]
    others = [video(rng.integers(8, 20, 4).tolist())[0] for _ in range(5)]
    lists, config = [(0, 1, 2, 3)] * 6, HmmConfig(pause=pause)
    segments = [known, *[None] * 5]
    found = align_with_hmm([first, *others], lists, 4, seed=0, restarts=8, config=config, known_segments=segments)
    assert (found.labels[0] == truth).mean() >= 0.9
    assert all(abs(each.order) < 10 for each in found.evidence) and found.best[0].log_likelihood > -100
