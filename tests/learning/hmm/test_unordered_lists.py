"""Sets of steps without order: found where videos differ in what they hold, and told where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.learning.data.video_set import Video, VideoSet, without_order
from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.hmm.em import HmmConfig
from edge_hal.learning.hmm.unordered_lists import clustered, topics
from tests.helpers.hmm_videos import accuracy


def videos_of_sets(
    seed: int, videos: int = 30, actions: int = 10, members: int = 4, segments: int = 6, width: int = 8
) -> tuple[Any, Any, Any]:
    """Features, lists and true labels: every video holds steps of its own choice, some of them twice."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(actions, 2, width)) * 2
    typical = np.exp(rng.normal(np.log(12), 0.6, actions))
    features, lists, truth = [], [], []
    for _ in range(videos):
        chosen = rng.choice(actions, members, replace=False)
        order = rng.permutation(chosen).tolist()
        while len(order) < segments:
            order.append(int(rng.choice([k for k in chosen if k != order[-1]])))
        labels, rows = [], []
        for action in order:
            length = int(max(typical[action] * np.exp(rng.normal(0, 0.3)), 4))
            labels += [action] * length
            rows.append(means[action, np.arange(length) * 2 // length] + rng.normal(size=(length, width)))
        features.append(np.concatenate(rows).astype(np.float32))
        lists.append(tuple(order))
        truth.append(np.array(labels))
    return features, lists, truth


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_steps_are_found_without_their_order(seed: int) -> None:
    features, lists, truth = videos_of_sets(seed)
    sets = [tuple(sorted(set(steps))) for steps in lists]
    told = []
    found = align_with_hmm(
        features, sets, 10, seed=seed, restarts=4, lists="sets", progress=lambda *at: told.append(at)
    )
    assert accuracy(found.labels, truth) > 0.85 and np.mean([each.agreement for each in found.evidence]) > 0.6
    assert all(set(labels.tolist()) == set(steps) for labels, steps in zip(found.labels, sets, strict=True))
    assert told[-1] == (8, 8) and [done for done, _ in told] == list(range(1, 9))


def test_neither_the_order_of_a_set_nor_the_workers_change_the_labels() -> None:
    features, lists, _ = videos_of_sets(2, videos=10)
    sets = [tuple(sorted(set(steps))) for steps in lists]
    found = align_with_hmm(features, sets, 10, seed=2, restarts=2, lists="sets")
    turned = [steps[::-1] for steps in sets]
    again = align_with_hmm(features, turned, 10, seed=2, restarts=2, lists="sets", workers=2)
    for a, b in zip(found.labels, again.labels, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_labelled_video_keeps_its_order_and_begins_the_model() -> None:
    features, lists, truth = videos_of_sets(4, videos=12, actions=4)
    sets = [tuple(sorted(set(steps))) for steps in lists]
    lists = [lists[0], *sets[1:]]
    known_segments = [np.cumsum(np.diff(truth[0], prepend=truth[0][0]) != 0), *[None] * 11]
    found = align_with_hmm(features, lists, 4, seed=0, known_segments=known_segments, lists="sets")
    np.testing.assert_array_equal(found.labels[0], truth[0])
    assert accuracy(found.labels, truth) > 0.9


def test_videos_too_short_for_their_set() -> None:
    rng = np.random.default_rng(0)
    sets = [(0, 1, 2), (0, 2), (1,), (0, 1, 2)]
    features = [rng.normal(size=(n, 4)) for n in (3, 2, 1, 40)]
    found = align_with_hmm(features, sets, 3, seed=0, restarts=2, lists="sets", config=HmmConfig(pause=True))
    assert [set(labels.tolist()) for labels in found.labels] == [set(each) for each in sets]


def test_topics_of_documents_that_tell_them_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    spread = rng.dirichlet(np.full(30, 0.2), 6)
    member = rng.random((80, 6)) < 0.4
    member[:, 0] |= ~member.any(axis=1)
    occurs = np.array([rng.multinomial(400, spread[each].mean(axis=0)) for each in member], float)
    share, found = topics(occurs, member, rng)
    assert (share[~member] == 0).all()
    np.testing.assert_allclose(share.sum(axis=1), 1)
    assert np.abs(found - spread).sum(axis=1).max() < 0.3


def test_clusters_of_far_points_are_theirs() -> None:
    rng = np.random.default_rng(0)
    centres = 100 * rng.normal(size=(5, 3))
    member = rng.integers(5, size=200)
    found = clustered(centres[member] + rng.normal(size=(200, 3)), 5, rng)
    assert len(set(zip(member.tolist(), found.tolist(), strict=True))) == 5
    # Fewer points than clusters, all of them the same.
    assert len(clustered(np.ones((3, 2)), 3, rng)) == 3


def test_lists_become_sets_and_what_cannot_be_told_apart_is_said(tmp_path: Path) -> None:
    def video(name: Any, steps: Any, labels: Any = None) -> Video:
        return Video(name, tmp_path / name, "features", steps, 10, 10.0, labels)

    videos = VideoSet(("a", "b", "c"), (video("x", (2, 0, 2, 1)), video("y", (1, 0, 1))), 10.0)
    found = without_order(videos)
    assert [each.transcript for each in found.videos] == [(0, 1, 2), (0, 1)]
    assert "a, b" in found.notes[-1] and "c" not in found.notes[-1].split(":")[-1]
    # A labelled video says which is which, and in what order.
    labelled = video("z", (1, 0), np.array([1, 0]))
    found = without_order(VideoSet(("a", "b", "c"), (*videos.videos, labelled), 10.0))
    assert found.videos[-1].transcript == (1, 0) and not found.notes
