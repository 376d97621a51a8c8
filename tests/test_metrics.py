"""Scores against slow references written from the definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal import metrics
from edge_hal.errors import EdgeHalError
from edge_hal.metrics import TransitionPoint

labelings = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=12).map(
    lambda runs: [label for label, length in runs for _ in range(length)]
)


@st.composite
def videos(draw: Any) -> tuple[list[Any], list[Any]]:
    """One to three videos: (predicted, truth), the same length, often alike."""
    out = []
    for _ in range(draw(st.integers(1, 3))):
        truth = draw(labelings)
        shift = draw(st.integers(-4, 4))
        other = draw(labelings)
        base = truth if draw(st.booleans()) else other
        predicted = [base[(i + shift) % len(base)] for i in range(len(truth))]
        out.append((np.array(predicted), np.array(truth)))
    return [p for p, _ in out], [t for _, t in out]


# References, one frame or one segment at a time ------------------------------------------------


def naive_segments(labels: Any) -> Any:
    out: list[list[Any]] = []
    for t, label in enumerate(labels):
        if t == 0 or labels[t - 1] != label:
            out.append([int(label), {t}])
        else:
            out[-1][1].add(t)
    return out


def naive_levenshtein(a: Any, b: Any) -> Any:
    if not a or not b:
        return len(a) + len(b)
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
    return table[len(a), len(b)]


def naive_edit(predicted: Any, truth: Any, ignore: Any) -> Any:
    scores = []
    for p, t in zip(predicted, truth, strict=True):
        a = [k for k, _ in naive_segments(p) if k not in ignore]
        b = [k for k, _ in naive_segments(t) if k not in ignore]
        scores.append(1 - naive_levenshtein(a, b) / max(len(a), len(b)) if a or b else 1)
    return 100 * sum(scores) / len(scores)


def naive_f1(overlap: Any, predicted: Any, truth: Any, ignore: Any) -> Any:
    tp = fp = fn = 0
    for p, t in zip(predicted, truth, strict=True):
        mine = [s for s in naive_segments(p) if s[0] not in ignore]
        theirs = [s for s in naive_segments(t) if s[0] not in ignore]
        taken = [False] * len(theirs)
        for label, frames in mine:
            ious = [len(frames & other) / len(frames | other) if kind == label else 0.0 for kind, other in theirs]
            best = max(range(len(ious)), key=ious.__getitem__, default=None)
            if best is not None and ious[best] >= overlap and not taken[best]:
                tp, taken[best] = tp + 1, True
            else:
                fp += 1
        fn += taken.count(False)
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return 100 * 2 * precision * recall / (precision + recall) if tp else 0.0


def naive_isba(predicted: Any, truth: Any, ignore: Any, over: Any) -> Any:
    per_video = []
    for p, t in zip(predicted, truth, strict=True):
        best = []
        for label, frames in naive_segments(t):
            if label in ignore:
                continue
            candidates = [other for kind, other in naive_segments(p) if kind == label]
            best.append(max([len(frames & o) / over(frames, o) for o in candidates], default=0.0))
        if best:
            per_video.append(sum(best) / len(best))
    return 100 * sum(per_video) / len(per_video) if per_video else 0.0


def naive_tasl(predicted: Any, truth: Any, ignore: Any, over: Any) -> Any:
    per_video = []
    for p, t in zip(predicted, truth, strict=True):
        per_class = []
        for label in sorted(set(t.tolist()) - set(ignore)):
            mine = {i for i in range(len(p)) if p[i] == label}
            theirs = {i for i in range(len(t)) if t[i] == label}
            per_class.append(len(mine & theirs) / over(theirs, mine) if mine else 0.0)
        if per_class:
            per_video.append(sum(per_class) / len(per_class))
    return 100 * sum(per_video) / len(per_video) if per_video else 0.0


def union(truth: Any, predicted: Any) -> int:
    return len(truth | predicted)


def detection(truth: Any, predicted: Any) -> int:
    return len(predicted)


@settings(deadline=None, max_examples=150)
@given(videos(), st.sampled_from([None, 0, 3]), st.booleans())
def test_scores_equal_the_definitions(data: Any, background: int | None, count_background: bool) -> None:
    predicted, truth = data
    ignore = () if background is None or count_background else (background,)
    got = metrics.score_videos(predicted, truth, background=background, count_background=count_background).as_dict()
    frames = list(zip(np.concatenate(predicted), np.concatenate(truth), strict=True))
    counted = [(a, b) for a, b in frames if b != background]
    expected = {
        "mof": 100 * sum(a == b for a, b in frames) / len(frames),
        "mof_bg": 100 * sum(a == b for a, b in counted) / len(counted) if counted else 0.0,
        "edit": naive_edit(predicted, truth, ignore),
        "f1_10": naive_f1(0.10, predicted, truth, ignore),
        "f1_25": naive_f1(0.25, predicted, truth, ignore),
        "f1_50": naive_f1(0.50, predicted, truth, ignore),
        "iou_isba": naive_isba(predicted, truth, ignore, union),
        "iod_isba": naive_isba(predicted, truth, ignore, detection),
        "iou_tasl": naive_tasl(predicted, truth, ignore, union),
        "iod_tasl": naive_tasl(predicted, truth, ignore, detection),
    }
    assert got == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(labelings)
def test_segments_rebuild_the_labels_and_never_repeat(labels: Any) -> None:
    segments = metrics.segments_of(np.array(labels))
    assert [s.label for s in segments for _ in range(s.start, s.stop)] == labels
    assert all(a.label != b.label and a.stop == b.start for a, b in itertools.pairwise(segments))
    assert metrics.transcript_of(np.array(labels)) == tuple(s.label for s in segments)


def test_a_perfect_prediction_scores_100_everywhere() -> None:
    truth = [np.array([0, 0, 1, 1, 1, 0, 2])]
    assert set(metrics.score_videos(truth, truth, background=0).as_dict().values()) == {100.0}


def test_f1_greedy_takes_a_true_segment_once() -> None:
    truth = [np.array([1] * 10)]
    predicted = [np.array([1] * 4 + [0] + [1] * 5)]
    # Two predictions of label 1 overlap the one true segment with IoU 0.4 and 0.5: one hit at 25 %.
    assert metrics.f1_at(0.25, predicted, truth) == pytest.approx(100 * 2 * 1 / (3 + 1))


@pytest.mark.parametrize("predicted", [[], [np.array([1, 2])], [np.array([[1, 2, 3]])]])
def test_unequal_lengths_are_refused(predicted: list[Any]) -> None:
    with pytest.raises(EdgeHalError):
        metrics.score_videos(predicted, [np.array([1, 2, 3])], background=None)


@given(st.integers(1, 9), st.integers(0, 60))
def test_uniform_split_is_even_and_ordered(count: int, length: int) -> None:
    got = metrics.uniform_split(range(count), length)
    sizes = np.bincount(got, minlength=count)
    assert got.shape == (length,) and (np.diff(got) >= 0).all() and np.ptp(sizes) <= 1


# Events ----------------------------------------------------------------------------------------

points = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12).map(lambda n: n / 4)), max_size=6).map(
    lambda xs: [TransitionPoint(k, t, t + 0.5) for k, t in sorted(xs, key=lambda x: x[1])]
)


def brute_force_matching(predicted: Any, truth: Any, tolerance_s: Any) -> Any:
    """(pairs, -total error) of the best matching whose pairs keep the order on both sides."""
    best = (0, 0.0)
    for size in range(1, min(len(predicted), len(truth)) + 1):
        for mine in itertools.combinations(predicted, size):
            for theirs in itertools.combinations(truth, size):
                both = list(zip(mine, theirs, strict=True))
                errors = [abs(a.boundary_s - b.boundary_s) for a, b in both]
                if all(a.label == b.label for a, b in both) and all(e <= tolerance_s for e in errors):
                    best = max(best, (size, -sum(errors)))
    return best


@settings(deadline=None, max_examples=200)
@given(points, points, st.sampled_from([0.0, 0.25, 1.0]))
def test_matching_is_the_largest_monotone_one(predicted: Any, truth: Any, tolerance_s: float) -> None:
    pairs = metrics.match_transitions(predicted, truth, tolerance_s)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert all(predicted[i].label == truth[j].label for i, j in pairs)
    total = sum(abs(predicted[i].boundary_s - truth[j].boundary_s) for i, j in pairs)
    size, negative_error = brute_force_matching(predicted, truth, tolerance_s)
    assert len(pairs) == size
    assert total == pytest.approx(-negative_error, abs=1e-9)


def test_event_scores_by_hand() -> None:
    truth = [[TransitionPoint(1, 10.0, 10.0), TransitionPoint(2, 20.0, 20.0)], []]
    predicted = [
        [
            TransitionPoint(1, 10.5, 11.0),
            TransitionPoint(1, 15.0, 15.5),
            TransitionPoint(2, 21.5, 22.0),
        ],
        [TransitionPoint(0, 3.0, 3.0)],
    ]
    got = metrics.score_transitions(predicted, truth, [60.0, 120.0], tolerance_s=1.0)
    assert got.transition_f1 == pytest.approx(2 * 1 / (4 + 2))
    assert got.delay_s_median == got.delay_s_p90 == pytest.approx(1.0)
    assert got.boundary_error_s_median == pytest.approx(0.5)
    assert got.false_per_min == pytest.approx(3 / 3)


def test_unordered_events_and_no_events() -> None:
    truth = [TransitionPoint(k, float(k), float(k)) for k in range(5)]
    assert metrics.match_transitions(truth[::-1], truth, 0.1) == [(4 - k, k) for k in range(5)]
    empty = metrics.score_transitions([[]], [[]], [10.0])
    assert empty.transition_f1 == 1.0 and empty.delay_s_median is None
    with pytest.raises(EdgeHalError):
        metrics.score_transitions([[]], [[]], [])


def test_transitions_of_labels_leave_the_first_out() -> None:
    got = metrics.transitions_of(np.array([5, 5, 1, 1, 1, 5]), 2.0)
    assert [(x.label, x.boundary_s) for x in got] == [(1, 1.0), (5, 2.5)]
