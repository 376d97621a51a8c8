"""The places of labelled frames in a step list, against all segmentations that there are."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.learning.data.labels.order import labels_at_ticks, order_differs, places_in_list
from edge_hal.metrics import transcript_of

FRAMES = 7
labels_of_frames = st.lists(st.integers(-1, 2), min_size=FRAMES, max_size=FRAMES).map(np.array)
lists = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(lambda order: transcript_of(np.array(order)))


@given(labels_of_frames, lists)
@settings(deadline=None, max_examples=200)
def test_places_are_those_of_a_segmentation_or_there_is_none(labels: np.ndarray, transcript: tuple[int, ...]) -> None:
    known, steps = labels >= 0, np.array(transcript)
    cuts = itertools.combinations(range(1, FRAMES), len(steps) - 1)
    segments = [np.repeat(np.arange(len(steps)), np.diff([0, *cut, FRAMES])) for cut in cuts]
    fitting = [each for each in segments if (steps[each][known] == labels[known]).all()]
    found = places_in_list(labels, transcript)
    if isinstance(found, int):
        # A part with one label may pass no boundary, though two segments of one step could share it only if the list
        # repeated the step, which it does not.
        assert fitting == [] and labels[found] >= 0
    else:
        assert (found[~known] == -1).all()
        assert any((each[known] == found[known]).all() for each in fitting)


@given(lists, st.randoms(use_true_random=False), st.integers(1, 5), st.floats(0, 1))
@settings(deadline=None, max_examples=300)
def test_labels_that_follow_the_list_follow_it_at_ticks(
    transcript: tuple[int, ...], random: Random, period: int, share: float
) -> None:
    """However short a step is. Labels of steps that last for some ticks are kept."""
    lengths = [random.choice((1, 2, period, 4 * period)) for _ in transcript]
    truth = np.repeat(transcript, lengths)
    labels = np.where([random.random() < share for _ in truth], truth, -1)
    frames = np.arange(0, len(truth), period)
    if len(frames) < len(transcript):
        return  # the video holds too many steps for this rate
    ticks = labels_at_ticks(labels, frames, transcript)
    places = places_in_list(ticks, transcript)
    assert not isinstance(places, int)
    before = places_in_list(labels, transcript)
    assert not isinstance(before, int)
    if min(lengths) >= 4 * period:
        assert len(set(ticks[ticks >= 0])) == len(set(labels[labels >= 0]))  # no step is left out
        for step in set(labels[labels >= 0]):  # and no label is further away than two ticks
            away = np.abs(np.flatnonzero(ticks == step)[:, None] * period - np.flatnonzero(labels == step))
            assert away.min(axis=1).max() < 2 * period
    elif period == 1:
        np.testing.assert_array_equal(ticks, labels)


def test_two_labels_within_a_tick_keep_their_order() -> None:
    labels = np.full(30, -1)
    labels[[10, 11, 12]] = [0, 1, 2]
    assert labels_at_ticks(labels, np.arange(0, 30, 3), (0, 1, 2)).tolist() == [-1] * 4 + [0, 1, -1, -1, -1, -1]
    labels[11] = -1  # between the two must be a tick of step 1
    assert labels_at_ticks(labels, np.arange(0, 30, 3), (0, 1, 2)).tolist() == [-1] * 4 + [0] + [-1] * 5


@given(st.integers(1, 5), st.integers(6, 40), st.integers(0, 20), st.integers(6, 40))
def test_a_boundary_between_two_parts_stays_at_its_tick(period: int, one: int, gap: int, other: int) -> None:
    """The first tick that shows a frame of the second part is the first one with its label."""
    labels = np.concatenate([np.full(gap, -1), np.zeros(one, np.int64), np.ones(other, np.int64), np.full(9, -1)])
    frames = np.arange(0, len(labels), period)
    ticks = labels_at_ticks(labels, frames, (0, 1))
    np.testing.assert_array_equal(ticks, labels[frames])


def test_of_equal_steps_the_nearest_in_time_is_taken() -> None:
    labels = np.full(40, -1)
    labels[33:36] = 0
    places = places_in_list(labels, (0, 1, 0, 1))
    assert not isinstance(places, int) and set(places[33:36].tolist()) == {2}
    labels[[2, 3]] = 0
    places = places_in_list(labels, (0, 1, 0, 1))
    assert not isinstance(places, int) and (places[2], places[34]) == (0, 2)


@given(lists, lists)
def test_a_difference_of_lists_is_at_the_first_frame_of_the_step(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    labels = np.repeat(one, 3)
    found = order_differs(labels, two)
    if found is None:
        assert one == two
    else:
        frame, at = found
        assert one[:at] == two[:at] and one[at : at + 1] != two[at : at + 1] and frame == 3 * at
