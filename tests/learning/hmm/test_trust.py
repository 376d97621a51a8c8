"""What tells without labels whether an alignment is right: against enumeration, and on sets where restarts agree."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.hmm.em import Candidate, HmmConfig
from edge_hal.learning.hmm.problem import Problem
from edge_hal.learning.hmm.transcript_chain import Counts
from edge_hal.learning.hmm.trust import Evidence, Trust, evidence_of
from tests.helpers.hmm_videos import accuracy, make_videos
from tests.helpers.processes import REPOSITORY

ONE = HmmConfig(sub_states=1)


@pytest.fixture(scope="module")
def sets() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        return importlib.import_module("caution_sets")


def model_of(rng: np.random.Generator, count: int, width: int) -> Candidate:
    mass = rng.uniform(5, 20, (count, 1))
    first = mass * rng.normal(size=(count, width))
    frames = rng.uniform(5, 20, count)
    return Candidate(Counts(mass, first, mass + first**2 / mass, frames / rng.uniform(2, 5, count), frames), 0.0, 0.0)


@given(st.integers(0, 2**32 - 1), st.integers(4, 8))
@settings(deadline=None, max_examples=30)
def test_chance_and_order_equal_enumeration(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    count, steps = 3, (0, 2)
    model, video = model_of(rng, count, 2), rng.normal(size=(length, 2))
    label = np.repeat(steps, [length - 2, 2])
    (found,) = evidence_of(Problem([video], [steps], [None], count, ONE), model, [label], [])
    leave, emission = model.counts.leave(), model.counts.gaussians().log_likelihood(video, ONE.last_power)
    # The first step ends before frame t. Without features, only the durations weigh the ends.
    ends = np.arange(1, length)
    prior = np.log1p(-leave[0]) * (ends - 1) + np.log(leave[0]) + np.log1p(-leave[2]) * (length - ends - 1)
    weight = np.exp(prior) / np.exp(prior).sum()
    same = [(np.repeat(steps, [end, length - end]) == label).mean() for end in ends]
    assert found.chance == pytest.approx(weight @ same, abs=1e-4)
    # Any order: a step may be followed by every step, itself included, so each frame may begin a new one.
    free = np.full(count, -np.log(count)) + emission[0]
    for t in range(1, length):
        enter = np.logaddexp.reduce(free + np.log(leave)) - np.log(count)
        free = np.logaddexp(free + np.log1p(-leave), enter) + emission[t]
    chained = np.logaddexp.reduce(
        [p + emission[:end, 0].sum() + emission[end:, 2].sum() for p, end in zip(prior, ends, strict=True)]
    )
    assert found.order == pytest.approx((chained - np.logaddexp.reduce(free)) / (2 * np.log(count)), abs=1e-3)
    assert found.agreement == 1 and found.order <= 1


def test_agreement_and_short_ends_of_each_video() -> None:
    rng = np.random.default_rng(0)
    labels = [np.repeat([0, 1, 0], [1, 5, 6]), np.repeat([1, 0], [1, 1]), np.repeat([0, 1], [4, 4])]
    steps = [(0, 1, 0), (1, 0), (0, 1)]
    problem = Problem([rng.normal(size=(len(x), 2)) for x in labels], steps, [None] * 3, 2, ONE)
    others = [[labels[0], labels[1], labels[2]], [1 - labels[0], labels[1], np.zeros(8, int)]]
    found = evidence_of(problem, model_of(rng, 2, 2), labels, others)
    assert [each.short_ends for each in found] == [0.5, 1, 0]
    assert [each.agreement for each in found] == [0.5, 1, 0.75]


def test_one_step_needs_no_evidence() -> None:
    found = align_with_hmm([np.ones((9, 2))] * 2, [(0,)] * 2, 1, seed=0, restarts=2)
    assert not Trust.of(found.evidence).doubtful


def test_agreement_counts_beyond_chance() -> None:
    assert Trust.of([Evidence(0.8, 0.6), Evidence(1.0, 0.6)]).agreement == pytest.approx(0.75)
    assert Trust.of([Evidence(0.5, 0.7)]).doubtful and not Trust.of([Evidence(0.8, 0.2)]).doubtful


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_each_measure_lowers_the_score_and_is_named(agreement: float, order: float, ends: float, less: float) -> None:
    trust = Trust(agreement, order, ends)
    for worse in (Trust(agreement - less, order, ends), Trust(agreement, order - less, ends)):
        assert worse.score <= trust.score
    assert Trust(agreement, order, ends + less).score <= trust.score
    assert trust.weak
    assert Trust(0.87, 0.8, 0.9).weak == ("short_ends",) and Trust(0.1, 0.8, 0.0).weak == ("agreement",)
    assert Trust(0.5, 0.1, 0.0).weak == ("agreement", "order")


def test_a_right_alignment_is_trusted_and_one_of_noise_is_not() -> None:
    features, transcripts, truth = make_videos(0)
    rng = np.random.default_rng(0)
    right = align_with_hmm(features, transcripts, 5, seed=0, restarts=8)
    assert accuracy(right.labels, truth) > 0.9 and not Trust.of(right.evidence).doubtful
    noise = [rng.normal(size=x.shape) for x in features]
    lost = align_with_hmm(noise, transcripts, 5, seed=0, restarts=8, config=HmmConfig(generations=1))
    assert Trust.of(lost.evidence).doubtful


@pytest.mark.parametrize(
    "name, reason",
    [
        ("idle, one list, alike, short", "short_ends"),
        pytest.param("idle, nearly one list, alike, short", "order", marks=pytest.mark.slow),
    ],
)
def test_restarts_that_agree_on_an_error_are_not_trusted(sets: ModuleType, name: str, reason: str) -> None:
    kind = sets.KINDS[name]
    made = sets.draw(name, kind, 0)
    found = align_with_hmm(made.features, made.lists, kind.labels, seed=0)
    assert accuracy(found.labels, made.truth) < 0.5
    assert np.mean([each.agreement for each in found.evidence]) > 0.85
    trust = Trust.of(found.evidence)
    assert trust.doubtful and reason in trust.weak and "agreement" not in trust.weak


def test_a_video_of_one_bin_does_not_decide_whether_the_others_are_trusted() -> None:
    """It is shorter than the states of one action, so its list cannot be compared with any other order."""
    features, transcripts, _ = make_videos(0)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=x.shape) for x in features]
    alone = align_with_hmm(noise, transcripts, 5, seed=0, restarts=8, config=HmmConfig(generations=1))
    with_one = [*noise, rng.normal(size=(1, noise[0].shape[1]))]
    found = align_with_hmm(with_one, [*transcripts, (0,)], 5, seed=0, restarts=8, config=HmmConfig(generations=1))
    assert Trust.of(alone.evidence).doubtful and Trust.of(found.evidence).doubtful
    assert all(each.order <= 1 for each in found.evidence) and abs(found.best[0].margin) < 100
