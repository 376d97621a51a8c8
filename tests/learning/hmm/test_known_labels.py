"""Mixed supervision: frame labels of some videos, or one labelled frame a step."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import SampledRecording, read_recordings
from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.hmm.em import HmmConfig, initialise
from edge_hal.learning.hmm.known_labels import (
    align_between,
    bin_segments,
    choose_labelled,
    known_segments_of,
    with_known,
)
from edge_hal.learning.hmm.problem import Problem
from edge_hal.learning.hmm.transcript_chain import Batch, Counts
from edge_hal.metrics import transcript_of
from tests.helpers.hmm_videos import accuracy, make_videos
from tests.helpers.processes import call
from tests.helpers.small_data import ACTIONS, CONFIG, write_small_data

seeds = st.integers(0, 2**32 - 1)


def segments_of(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(np.append(0, np.diff(labels) != 0))


def recording(labels: NDArray[np.int64], transcript: tuple[int, ...]) -> SampledRecording:
    return SampledRecording("v", transcript, np.zeros((len(labels), 2), np.float32), np.arange(len(labels)), labels)


def one_stamp_each(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    segment, known = segments_of(labels), np.full(len(labels), -1)
    for m in range(segment[-1] + 1):
        tick = rng.choice(np.flatnonzero(segment == m))
        known[tick] = labels[tick]
    return known


def random_labels(rng: np.random.Generator, longest: int = 12) -> NDArray[np.int64]:
    order = [int(rng.integers(4))]
    for _ in range(int(rng.integers(0, 6))):
        order.append(int(rng.choice([k for k in range(4) if k != order[-1]])))
    return np.repeat(order, rng.integers(1, longest, len(order)))


@given(seeds, st.booleans())
@settings(deadline=None, max_examples=100)
def test_known_segments_give_the_step_and_bins_keep_every_step_in_order(seed: int, stamps: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = random_labels(rng)
    given_labels = one_stamp_each(labels, rng) if stamps else labels
    known_segments = known_segments_of(recording(given_labels, transcript_of(labels)))
    assert known_segments is not None
    known = given_labels >= 0
    np.testing.assert_array_equal(known_segments[known], segments_of(labels)[known])
    assert (known_segments[~known] == -1).all()
    period = int(rng.integers(1, 1 + len(labels) // (known_segments.max() + 1)))
    if -(-len(labels) // period) <= known_segments.max():
        return
    bins = bin_segments(known_segments, period)
    told = bins[bins >= 0]
    assert len(bins) == -(-len(labels) // period)
    np.testing.assert_array_equal(np.unique(told), np.arange(known_segments.max() + 1))
    assert (np.diff(told) >= 0).all()
    if not stamps:
        assert (bins >= 0).all()
        if np.bincount(known_segments).min() >= 2 * period:  # no short step to make room for
            clear = [b for b in range(len(bins)) if len(set(known_segments[b * period : (b + 1) * period])) == 1]
            np.testing.assert_array_equal(bins[clear], known_segments[np.array(clear) * period])


@given(seeds)
@settings(deadline=None, max_examples=60)
def test_between_known_segments_the_boundary_is_the_best_and_known_labels_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, longest=5)
    known = one_stamp_each(labels, rng)
    transcript = transcript_of(labels)
    known_segments = known_segments_of(recording(known, transcript))
    assert known_segments is not None
    log_p = np.log(rng.dirichlet(np.ones(4), len(labels)))
    found = align_between(log_p, transcript, known_segments)
    assert transcript_of(found) == transcript
    np.testing.assert_array_equal(found[known >= 0], known[known >= 0])
    at = [int(np.flatnonzero(known_segments == m)[0]) for m in range(len(transcript))]
    choices = [range(a + 1, b + 1) for a, b in itertools.pairwise(at)]
    best = max(
        log_p[np.arange(len(labels)), np.repeat(transcript, np.diff([0, *cuts, len(labels)]))].sum()
        for cuts in itertools.product(*choices)
    )
    assert log_p[np.arange(len(labels)), found].sum() == pytest.approx(best)


def test_labels_that_do_not_follow_the_step_list_are_refused() -> None:
    with pytest.raises(EdgeHalError, match="do not follow its step list"):
        known_segments_of(recording(np.array([0, 0, 1, 1]), (0, 1, 2)))
    with pytest.raises(EdgeHalError, match="frame 3 has no place in it"):
        known_segments_of(recording(np.array([-1, 0, -1, 1]), (1, 0)))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 1000))
def test_more_labelled_videos_include_the_fewer(a: int, b: int, seed: int) -> None:
    names = [f"v{i}" for i in range(12)]
    few, many = sorted((a, b))
    assert choose_labelled(names, few, seed) <= choose_labelled(names[::-1], many, seed)
    assert len(choose_labelled(names, many, seed)) == many


def test_unknown_or_too_many_labelled_videos_are_refused() -> None:
    with pytest.raises(EdgeHalError, match="'w' is not in the training part: known videos are"):
        choose_labelled(["v"], ["v", "w"], 0)
    with pytest.raises(EdgeHalError, match="there are 1"):
        choose_labelled(["v"], 2, 0)


@pytest.mark.parametrize("stamps", [False, True])
def test_one_known_video_leads_the_others(stamps: bool) -> None:
    """No EM, no restarts: the model of the one video aligns the rest, and its own known_segments hold."""
    features, transcripts, truth = make_videos(11)
    rng = np.random.default_rng(0)
    know = max(range(len(truth)), key=lambda i: len(set(transcripts[i])))
    labels = one_stamp_each(truth[know], rng) if stamps else truth[know]
    known_segments: list[Any] = [None] * len(truth)
    known_segments[know] = known_segments_of(recording(labels, transcripts[know]))
    result = align_with_hmm(
        features, transcripts, 5, seed=0, restarts=1, config=HmmConfig(iterations=0), known_segments=known_segments
    )
    np.testing.assert_array_equal(result.labels[know][labels >= 0], labels[labels >= 0])
    others = [i for i in range(len(truth)) if i != know]
    ours = accuracy([result.labels[i] for i in others], [truth[i] for i in others])
    assert ours > (0.75 if stamps else 0.85)


def test_known_labels_stay_whatever_the_features_are() -> None:
    _, transcripts, truth = make_videos(3)
    rng = np.random.default_rng(3)
    noise = [rng.normal(size=(len(y), 4)) for y in truth]
    stamps = [one_stamp_each(y, rng) for y in truth]
    known_segments = [known_segments_of(recording(known, t)) for known, t in zip(stamps, transcripts, strict=True)]
    found = align_with_hmm(
        noise, transcripts, 5, seed=0, restarts=1, config=HmmConfig(iterations=2), known_segments=known_segments
    )
    for labels, known in zip(found.labels, stamps, strict=True):
        np.testing.assert_array_equal(labels[known >= 0], known[known >= 0])


def test_the_first_model_is_made_of_labelled_videos_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, transcripts, truth = make_videos(4)
    weights: list[NDArray[np.float64]] = []
    count = Batch.expected_counts

    def spied(self: Batch, gamma: NDArray[np.float64], weight: NDArray[np.float64], states: int) -> Counts:
        weights.append(np.broadcast_to(weight, self.chain.shape)[~self.labelled])
        return count(self, gamma, weight, states)

    monkeypatch.setattr(Batch, "expected_counts", spied)
    known_segments: list[Any] = [None] * len(truth)
    known_segments[2] = known_segments_of(recording(truth[2], transcripts[2]))
    align_with_hmm(
        features, transcripts, 5, seed=0, restarts=1, config=HmmConfig(iterations=0), known_segments=known_segments
    )
    assert weights and all((weight == 0).all() for weight in weights)


def test_only_the_labelled_videos_show_labels(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data")
    for path in (root / "groundTruth").iterdir():
        if path.stem != "video1":
            path.unlink()
    videos = load_dataset(root, split=1, part="train", with_labels=["video1"], rate_hz=20)
    assert {video.name for video in videos.videos if video.labels is not None} == {"video1"}


def test_a_step_shorter_than_a_tick_is_no_contradiction(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data")
    path = root / "groundTruth" / "video1.txt"
    labels = path.read_text().split()
    brief = next(name for name in ACTIONS if name not in labels[20:23])
    labels[21] = brief  # one frame of 50 ms between ticks of 100 ms
    path.write_text("".join(f"{name}\n" for name in labels))
    (root / "transcripts" / "video1.txt").unlink()
    videos = load_dataset(root, split=1, part="train", with_labels=["video1"], rate_hz=20)
    (one,) = [one for one in read_recordings(videos, 10.0, None) if one.name == "video1"]
    known_segments = known_segments_of(one)
    assert known_segments is not None and (known_segments >= 0).all()
    assert one.transcript == transcript_of(np.zeros(0, np.int64) if one.labels is None else one.labels)


def test_a_stamp_survives_the_change_of_rate(tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "data")
    (root / "timestamps").mkdir()
    rng = np.random.default_rng(1)
    truth = {v.name: v for v in load_dataset(root, split=1, part="train", with_labels=True, rate_hz=20).videos}
    for name, video in truth.items():
        assert video.labels is not None
        known = one_stamp_each(video.labels.astype(np.int64), rng)
        lines = [f"{frame} {ACTIONS[known[frame]]}\n" for frame in np.flatnonzero(known >= 0)]
        (root / "timestamps" / f"{name}.txt").write_text("".join(lines))
    stamped = load_dataset(root, split=1, part="train", with_labels=True, timestamps=True, rate_hz=20)
    for one in read_recordings(stamped, 10.0, None):
        known_segments = known_segments_of(one)
        assert known_segments is not None
        np.testing.assert_array_equal(known_segments[known_segments >= 0], np.arange(len(one.transcript)))


@pytest.mark.parametrize("line", ["x reach", "3 nothing", "99999 reach", "reach"])
def test_a_bad_stamp_is_named(tmp_path: Path, line: str) -> None:
    root = write_small_data(tmp_path / "data")
    (root / "timestamps").mkdir()
    for number in range(6):
        (root / "timestamps" / f"video{number}.txt").write_text(f"{line}\n")
    with pytest.raises(EdgeHalError, match="is no stamp"):
        load_dataset(root, split=1, part="train", with_labels=True, timestamps=True, rate_hz=20)


@pytest.mark.slow
def test_train_with_one_labelled_video_on_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    root = write_small_data(tmp_path / "data")
    for path in (root / "groundTruth").iterdir():
        if path.stem != "video2":
            path.unlink()
    brief = [f"learning.{key}" for key in ("teacher.warm_epochs=1", "teacher.epochs=1", "student.epochs=1")]
    sets = [part for key in brief for part in ("--set", key)]
    arguments = ("train", str(root), "--split", "1", "--config", str(CONFIG), "--out", str(tmp_path / "run"))
    code, _, errors = call(*arguments, "--labelled", "video2", *sets)
    assert code == 0, errors
    found = json.loads((tmp_path / "run" / "alignment.json").read_text())
    assert [name for name, one in found.items() if one["labelled"]] == ["video2"]
    labels = (root / "groundTruth" / "video2.txt").read_text().split()
    starts = [i for i in range(len(labels)) if i == 0 or labels[i] != labels[i - 1]]
    # Exactly as labelled, to the tick of 2 frames.
    for (step, frame), start in zip(found["video2"]["segments"], starts, strict=True):
        assert step == labels[start] and 0 <= frame - start < 2
    code, _, errors = call(*arguments[:-1], str(tmp_path / "other"), "--labelled", "video9")
    assert code == 2 and "video9" in errors and not (tmp_path / "other").exists()


@given(seeds)
@settings(deadline=None, max_examples=60)
def test_labels_of_some_steps_hold_and_the_rest_keeps_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, longest=9)
    transcript, known = transcript_of(labels), np.where(rng.random(len(labels)) < 0.3, labels, -1)
    known_segments = known_segments_of(recording(known, transcript))
    assert known_segments is not None
    at = known >= 0
    np.testing.assert_array_equal(np.array(transcript)[known_segments[at]], known[at])
    bins = bin_segments(known_segments, 1)
    np.testing.assert_array_equal(bins, known_segments)
    other = np.repeat(
        transcript, np.diff([0, *np.sort(rng.choice(range(1, len(labels)), len(transcript) - 1, False)), len(labels)])
    )
    moved = with_known(other, transcript, known_segments)
    aligned = align_between(np.log(rng.dirichlet(np.ones(4), len(labels))), transcript, known_segments)
    for found in (moved, aligned):
        assert transcript_of(found) == transcript
        np.testing.assert_array_equal(found[at], known[at])
    np.testing.assert_array_equal(with_known(moved, transcript, known_segments), moved)
    nothing = np.full(len(labels), -1)
    np.testing.assert_array_equal(with_known(other, transcript, nothing), other)


def test_an_alignment_of_another_list_is_refused() -> None:
    with pytest.raises(EdgeHalError, match="other steps than the step list"):
        with_known(np.array([0, 0, 1]), (0, 1, 0), np.array([0, -1, -1]))


def test_one_corrected_segment_limits_the_search_and_does_not_replace_it() -> None:
    """The video with a label of one step alone does not become the only one that the model is trained on."""
    rng = np.random.default_rng(3)
    truth = [np.repeat(rng.permutation(4), rng.integers(8, 20, 4)) for _ in range(10)]
    features = [np.eye(4)[labels] * 3 + rng.normal(size=(len(labels), 4)) for labels in truth]
    transcripts = [transcript_of(labels) for labels in truth]
    known: list[Any] = [None] * len(truth)
    begin = int(np.flatnonzero(np.diff(truth[0]))[0]) + 1
    told = np.full(len(truth[0]), -1)
    told[begin + 4 : begin + 7] = truth[0][begin]  # wrong on purpose: the label of the second step comes late
    told[begin : begin + 4] = truth[0][0]
    known[0] = known_segments_of(recording(told, transcripts[0]))
    found = align_with_hmm(features, transcripts, 4, seed=0, restarts=4, known_segments=known)
    assert np.mean([(a == b).mean() for a, b in zip(found.labels[1:], truth[1:], strict=True)]) > 0.9
    np.testing.assert_array_equal(found.labels[0][told >= 0], told[told >= 0])


def test_durations_begin_with_those_of_the_labelled_videos() -> None:
    made, transcripts, truth = make_videos(0)
    features = [x.astype(np.float64) for x in made]
    known = segments_of(truth[0])
    alone = Problem(features[:1], transcripts[:1], [known], 5, HmmConfig())
    among = Problem(features, transcripts, [known, *[None] * (len(features) - 1)], 5, HmmConfig())
    one, many = (initialise(each.batches(), 5, each.config, np.ones(5))[0] for each in (alone, among))
    for field in ("mass", "visits", "frames"):
        np.testing.assert_allclose(getattr(many, field), getattr(one, field))
