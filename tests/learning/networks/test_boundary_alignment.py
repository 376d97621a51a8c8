"""Alignment against slow references and brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.learning.hmm.viterbi import viterbi_align
from edge_hal.learning.networks import boundary_alignment
from edge_hal.learning.networks.boundary_alignment import AlignmentConfig, align
from edge_hal.metrics import transcript_of

seeds = st.integers(0, 2**32 - 1)


def random_posteriors(rng: np.random.Generator, length: Any, actions: Any, sharpness: float = 3.0) -> Any:
    logits = rng.normal(size=(length, actions)) * sharpness
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def js(p: Any, q: Any) -> Any:
    m = (p + q) / 2
    out = 0.0
    for x in (p, q):
        out += 0.5 * sum(a * np.log(a / b) for a, b in zip(x, m, strict=True) if a > 0)
    return out


def naive_boundary_score(p: Any, window: Any) -> Any:
    half = window // 2
    out = []
    for t in range(len(p)):
        rows = [p[i] if 0 <= i < len(p) else np.zeros(p.shape[1]) for i in range(t - half, t + half + 1)]
        total = 0.0
        for i, j in itertools.product(range(window), repeat=2):
            if i == j == half:
                continue
            sign = 1 if (i < half) == (j < half) else -1
            total += sign * (1 - 2 * js(rows[i], rows[j]) / np.log(2))
        out.append(total / window**2)
    return np.array(out)


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(1, 14), st.sampled_from([3, 5, 7]))
def test_boundary_score_equals_the_definition(seed: Any, length: int, window: int) -> None:
    p = random_posteriors(np.random.default_rng(seed), length, 4)
    p[p < 0.01] = 0.0  # posteriors that underflow
    p /= p.sum(axis=1, keepdims=True)
    got = boundary_alignment.boundary_score(p, window)
    assert got == pytest.approx(naive_boundary_score(p, window), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(3, 60), st.sampled_from([3, 11, 31]))
def test_transition_scores_equal_the_definition(seed: Any, length: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    p = random_posteriors(rng, length, 4)
    transcript = rng.integers(0, 4, 5).tolist()
    candidates = np.sort(rng.choice(np.arange(1, length), min(4, length - 1), replace=False))
    got = boundary_alignment.transition_scores(p, transcript, candidates, window)
    for m, (n, b) in itertools.product(range(4), enumerate(candidates)):
        total = 0.0
        for t in range(b - window // 2, b + window // 2 + 1):
            if 0 <= t < length:
                change = p[t, transcript[m]] - p[t, transcript[m + 1]]
                total += change if t < b else -change
        assert got[m, n] == pytest.approx(total / (2 * window), abs=1e-12)


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.integers(0, 12), st.integers(0, 6))
def test_candidates_are_the_greedy_peaks(seed: Any, length: int, count: int, radius: int) -> None:
    score = np.random.default_rng(seed).normal(size=length)
    expected: list[int] = []
    for t in sorted(range(1, length), key=lambda t: -score[t]):
        if len(expected) < count and all(abs(t - peak) > radius for peak in expected):
            expected.append(t)
    assert boundary_alignment.boundary_candidates(score, count, radius).tolist() == sorted(expected)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 4), st.integers(4, 8))
def test_boundaries_are_the_best_increasing_choice(seed: Any, rows: int, columns: int) -> None:
    gain = np.random.default_rng(seed).normal(size=(rows, columns))
    chosen = boundary_alignment._increasing(gain)
    assert (np.diff(chosen) > 0).all()
    best = max(sum(gain[m, n] for m, n in enumerate(c)) for c in itertools.combinations(range(columns), rows))
    assert gain[np.arange(rows), chosen].sum() == pytest.approx(best)


@settings(deadline=None, max_examples=80)
@given(seeds, st.integers(1, 12), st.integers(0, 60), st.floats(0, 1))
def test_every_alignment_follows_its_transcript(seed: Any, count: int, extra: int, radius: float) -> None:
    """Any length from one frame an action up, repeats included, few candidates included."""
    rng = np.random.default_rng(seed)
    transcript = tuple(int(a) for a in rng.integers(0, 3, count))
    length = count + extra
    p = random_posteriors(rng, length, 3)
    config = AlignmentConfig(candidates_per_transition=1, radius_fraction=radius)
    got = align(p, transcript, config)
    assert got.labels.shape == (length,) and got.boundaries.shape == (count - 1,)
    edges = [0, *got.boundaries, length]
    assert all(a < b for a, b in itertools.pairwise(edges))
    pieces = zip(itertools.pairwise(edges), transcript, strict=True)
    assert all((got.labels[a:b] == action).all() for (a, b), action in pieces)


def test_clear_posteriors_are_aligned_exactly_in_spite_of_noise() -> None:
    rng = np.random.default_rng(5)
    exact = []
    for _ in range(20):
        transcript = [0]
        while len(transcript) < 9:
            transcript.append(int(rng.choice([k for k in range(5) if k != transcript[-1]])))
        truth = np.repeat(transcript, rng.integers(15, 40, 9))
        p = 0.8 * np.eye(5)[truth] + 0.2 * random_posteriors(rng, truth.size, 5)
        got = align(p, transcript).labels
        assert transcript_of(got) == tuple(transcript)
        exact.append((got == truth).mean())
    assert np.mean(exact) > 0.97


@pytest.mark.parametrize("aligner", [align, viterbi_align])
@pytest.mark.parametrize(("length", "transcript"), [(2, (0, 1, 0)), (5, ()), (5, (0, 3)), (5, (-1, 0)), (0, (0,))])
def test_impossible_alignments_are_refused(aligner: Any, length: int, transcript: Any) -> None:
    with pytest.raises(EdgeHalError, match="cannot align"):
        aligner(np.full((length, 3), 1 / 3), transcript)


def test_nan_posteriors_are_refused() -> None:
    p = np.full((9, 2), 0.5)
    p[4] = np.nan
    with pytest.raises(EdgeHalError, match="nan"):
        align(p, (0, 1))


@pytest.mark.parametrize("window", [0, 1, 6])
def test_windows_need_a_centre(window: int) -> None:
    with pytest.raises(EdgeHalError, match="window"):
        align(np.full((9, 2), 0.5), (0, 1), AlignmentConfig(boundary_window=window))


# Viterbi ---------------------------------------------------------------------------------------


def brute_force(log_p: Any, transcript: Any) -> Any:
    length, count = len(log_p), len(transcript)
    best = -np.inf
    for cuts in itertools.combinations(range(1, length), count - 1):
        parts = zip(itertools.pairwise([0, *cuts, length]), transcript, strict=True)
        best = max(best, sum(log_p[a:b, action].sum() for (a, b), action in parts))
    return best


@settings(deadline=None, max_examples=120)
@given(seeds, st.integers(1, 4), st.integers(1, 9))
def test_viterbi_is_optimal(seed: Any, count: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    log_p = rng.normal(size=(length, 3))
    transcript = tuple(int(a) for a in rng.integers(0, 3, count))
    best = brute_force(log_p, transcript)
    if best == -np.inf:
        with pytest.raises(EdgeHalError, match="cannot align"):
            viterbi_align(log_p, transcript)
        return
    got = viterbi_align(log_p, transcript)
    edges = [0, *(int(b) for b in got.boundaries), length]
    for (a, b), action in zip(itertools.pairwise(edges), transcript, strict=True):
        assert b > a and (got.labels[a:b] == action).all()
    assert log_p[np.arange(length), got.labels].sum() == pytest.approx(best)


def test_viterbi_survives_impossible_frames() -> None:
    log_p = np.log(np.eye(2)[[0, 0, 1, 0, 1, 1]] + 0.0 + np.finfo(float).tiny)
    log_p[log_p < -100] = -np.inf
    got = viterbi_align(log_p, (0, 1))
    assert got.labels.tolist() in ([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1])
