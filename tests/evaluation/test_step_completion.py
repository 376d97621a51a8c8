"""Procedure step recognition: distances against a search over edits, and completions by hand."""

from __future__ import annotations

import itertools
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.evaluation.step_completion import (
    Completion,
    edit_distance,
    order_similarity,
    score_completions,
)

words = st.text("abc", max_size=5)


def cheapest(a: str, b: str) -> float:
    """Dijkstra over all strings that single edits reach; swapped neighbours cost 1, a substitution 2."""
    costs, queue, done = {a: 0.0}, {a}, set[str]()
    longest = max(len(a), len(b)) + 1
    while queue:
        word = min(queue, key=lambda w: costs[w])
        queue.discard(word)
        done.add(word)
        if word == b:
            return costs[word]
        edits = [(word[:i] + word[i + 1 :], 1.0) for i in range(len(word))]
        edits += [(word[:i] + c + word[i:], 1.0) for i, c in itertools.product(range(len(word) + 1), "abc")]
        edits += [(word[:i] + c + word[i + 1 :], 2.0) for i, c in itertools.product(range(len(word)), "abc")]
        edits += [(word[:i] + word[i + 1] + word[i] + word[i + 2 :], 1.0) for i in range(len(word) - 1)]
        for other, cost in edits:
            if len(other) <= longest and other not in done and costs[word] + cost < costs.get(other, 99):
                costs[other] = costs[word] + cost
                queue.add(other)
    raise AssertionError


@lru_cache
def known(a: str, b: str) -> float:
    return cheapest(a, b)


@settings(max_examples=60, deadline=None)
@given(words, words)
def test_the_distance_is_that_of_the_cheapest_edits(a: str, b: str) -> None:
    assert edit_distance(a, b) == known(a, b)


@settings(max_examples=60, deadline=None)
@given(words, words)
def test_similarity_is_1_for_the_same_order_and_never_below_0(a: str, b: str) -> None:
    assert order_similarity(a, a) == 1.0
    assert 0.0 <= order_similarity(a, b) <= 1.0


@pytest.mark.parametrize(
    ("found", "similarity"), [("abcd", 1.0), ("acbd", 0.75), ("abd", 0.75), ("axcd", 0.5), ("", 0.0), ("dcbaabcd", 0.0)]
)
def test_an_order_is_scored_by_its_edits(found: str, similarity: float) -> None:
    assert order_similarity(found, "abcd") == pytest.approx(similarity)


def test_what_is_said_before_it_is_done_is_false() -> None:
    true = [Completion(0, 5.0), Completion(1, 9.0), Completion(0, 15.0)]
    found = [Completion(0, 5.5), Completion(1, 8.0), Completion(0, 16.5), Completion(2, 20.0)]
    scores = score_completions([found], [true])
    assert scores.f1 == pytest.approx(2 * 2 / 7) and scores.delay_s == pytest.approx(1.0)
    assert scores.pos == pytest.approx(1 - 1 / 3)


def test_no_step_and_no_recognition_is_right() -> None:
    assert score_completions([[]], [[]]).f1 == 1.0 and score_completions([[]], [[]]).delay_s is None
