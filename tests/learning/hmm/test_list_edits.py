"""The likeliest edit of a step list is the best of all edits; lists with errors are corrected."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.hmm.list_edits import EditCosts, align_with_edits
from edge_hal.metrics import transcript_of
from tests.helpers.hmm_videos import accuracy, make_videos


def cheapest(segments: Any, steps: Any, costs: Any) -> Any:
    """The best sum of costs that makes the list `steps` of the segments, by trying all."""

    @cache
    def rest(at: Any, behind: Any) -> Any:
        options = [costs.skip * (len(steps) - behind)] if at == len(segments) else []
        if at < len(segments):
            options.append(costs.insert + rest(at + 1, behind))
            for skipped in range(len(steps) - behind):
                first = behind + skipped
                if steps[first] == segments[at]:
                    options.append(costs.skip * skipped + rest(at + 1, first + 1))
                if steps[first : first + 2] == segments[at : at + 2][::-1] and len(segments) > at + 1:
                    options.append(costs.skip * skipped + costs.swap + rest(at + 2, first + 2))
        return max(options, default=-np.inf)

    return rest(0, 0)


def score_of(segments: Any, lengths: Any, emission: Any, leave: Any, states: Any) -> Any:
    """Log-likelihood of segments of these lengths, each through its states in the best way."""
    total, at = 0.0, 0
    for number, (label, length) in enumerate(zip(segments, lengths, strict=True)):
        chain = states[label]
        ways = []
        for cuts in itertools.combinations(range(1, length), len(chain) - 1):
            runs = np.diff([0, *cuts, length])
            where = np.repeat(chain, runs)
            stays = sum(np.log1p(-leave[s]) * (run - 1) for s, run in zip(chain, runs, strict=True))
            ways.append(emission[np.arange(at, at + length), where].sum() + stays + np.log(leave[chain[:-1]]).sum())
        total += max(ways) + (np.log(leave[chain[-1]]) if number < len(segments) - 1 else 0)
        at += length
    return total


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 2), st.integers(0, 3))
def test_the_path_is_the_best_of_all(seed: int, frames: int, depth: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    states = np.arange(2 * depth).reshape(2, depth)
    emission, leave = 3 * rng.normal(size=(frames, 2 * depth)), rng.uniform(0.05, 0.95, 2 * depth)
    steps = tuple(rng.integers(2, size=count).tolist())
    costs = EditCosts(*-rng.uniform(0.1, 8, 3))
    path = align_with_edits(emission, leave, steps, states, costs)
    best = -np.inf
    for segments_count in range(1, frames // depth + 1):
        for segments in itertools.product(range(2), repeat=segments_count):
            price = cheapest(segments, steps, costs)
            for ends in itertools.combinations(range(1, frames), segments_count - 1):
                lengths = np.diff([0, *ends, frames])
                if lengths.min() >= depth:
                    best = max(best, price + score_of(segments, lengths, emission, leave, states))
    if best == -np.inf:
        assert path is None
    else:
        assert path.score == pytest.approx(best)


def test_only_what_is_allowed_is_inserted_and_required_steps_occur() -> None:
    rng = np.random.default_rng(0)
    states, leave, never = np.arange(8).reshape(4, 2), np.full(8, 0.3), -1e6
    for _ in range(20):
        emission = 5 * rng.normal(size=(40, 8))
        path = align_with_edits(emission, leave, (2, 0), states, EditCosts(never, -1.0, never), allowed=(0, 1))
        found = transcript_of(path.labels)
        assert found.count(2) == 1 and 3 not in found and 0 in found[found.index(2) :]


@pytest.mark.parametrize(
    "kind", ["swapped", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("missing", "additional"))]
)
def test_errors_of_lists_are_corrected_where_the_steps_are_clear(kind: str) -> None:
    features, transcripts, truth = make_videos(3, videos=24, noise=0.7)
    rng = np.random.default_rng(1)
    lists: list[tuple[int, ...]] = []
    for steps in map(list, transcripts):
        at = int(rng.integers(1, len(steps) - 1))
        if kind == "swapped":
            steps[at], steps[at + 1] = steps[at + 1], steps[at]
        elif kind == "missing":
            del steps[at]
        else:
            steps.insert(at, int(rng.choice([k for k in range(5) if k not in steps[at - 1 : at + 1]])))
        # Half of the lists have an error.
        lists.append(tuple(steps if len(lists) % 2 else transcripts[len(lists)]))
    found = {
        mode: align_with_hmm(features, lists, 5, seed=0, restarts=4, lists=mode).labels for mode in ("exact", "noisy")
    }
    wrong = {mode: 1 - accuracy(labels, truth) for mode, labels in found.items()}
    assert wrong["noisy"] < 0.6 * wrong["exact"]
    right = sum(transcript_of(labels) == steps for labels, steps in zip(found["noisy"], transcripts, strict=True))
    assert right > sum(given == steps for given, steps in zip(lists, transcripts, strict=True)) + 3


def test_lists_that_are_right_stay_so() -> None:
    features, transcripts, _ = make_videos(3, videos=24, noise=0.7)
    kept = align_with_hmm(features, transcripts, 5, seed=0, restarts=4, lists="noisy").labels
    assert sum(transcript_of(labels) == steps for labels, steps in zip(kept, transcripts, strict=True)) >= 23
