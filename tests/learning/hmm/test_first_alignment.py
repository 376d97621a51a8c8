"""The first alignment: what a bin averages, and what a run reports of its restarts."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_hal.commands.train_report import say_whether_to_trust
from edge_hal.config import load_config
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.learning.hmm import first_alignment
from edge_hal.learning.hmm.first_alignment import find_first_alignment
from edge_hal.learning.hmm.known_labels import worth_labelling
from edge_hal.learning.hmm.trust import Evidence
from edge_hal.learning.networks import teacher
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.teacher import learn_alignment
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import FrontEndSpec, LevelSpec, PyramidSpec

HZ, WINDOW, COUNT = 10.0, 5, 4
LEARNING = load_config("kinematics", ["learning.restarts=4"]).learning


def made(seed: int, videos: int = 8) -> tuple[list[np.ndarray], list[tuple[int, ...]], list[np.ndarray]]:
    """Vectors (T, 6) with a mean of their own for each of four steps, transcripts and labels (T,)."""
    rng = np.random.default_rng(seed)
    means = 3 * rng.normal(size=(COUNT, 6))
    vectors, transcripts, truth = [], [], []
    for _ in range(videos):
        order = rng.permutation(COUNT)
        labels = np.repeat(order, rng.integers(30, 90, COUNT))
        vectors.append((means[labels] + 0.3 * rng.normal(size=(len(labels), 6))).astype(np.float32))
        transcripts.append(tuple(int(a) for a in order))
        truth.append(labels)
    return vectors, transcripts, truth


def lateness_ticks(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Mean of boundary - true boundary; the orders agree, so the n-th belongs to the n-th."""
    late = [np.flatnonzero(np.diff(f)) - np.flatnonzero(np.diff(y)) for f, y in zip(found, truth, strict=True)]
    return float(np.concatenate(late).mean())


@pytest.mark.slow
def test_looking_ahead_moves_boundaries_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Median of five sets: eight videos in bins of five ticks say little each."""
    sets = [made(seed) for seed in range(5)]

    def late(windows: float) -> float:
        monkeypatch.setattr(first_alignment, "LOOK_AHEAD_WINDOWS", windows)
        every = []
        for vectors, transcripts, truth in sets:
            plain = FrontEnd(FrontEndSpec(vectors[0].shape[1], WINDOW))
            found = find_first_alignment(vectors, transcripts, COUNT, HZ, plain, LEARNING, 0, lambda *told: None)
            every.append(lateness_ticks(found.labels, truth))
        return float(np.median(every))

    none, half, whole = late(0.0), late(0.5), late(1.0)
    assert none > half > whole
    assert WINDOW / 2 < none - whole < 1.5 * WINDOW


def test_a_teacher_of_long_videos_sees_crops_and_keeps_the_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vectors, transcripts, truth = made(1)
    monkeypatch.setattr(teacher, "LONGEST_CROP", 30)
    widths: list[int] = []
    forward = Pyramid.forward

    def spied(self: Pyramid, x: torch.Tensor, *more: torch.Tensor) -> object:
        if self.training:
            widths.append(x.shape[1])
        return forward(self, x, *more)

    monkeypatch.setattr(Pyramid, "forward", spied)
    spec = PyramidSpec(
        model_hz=HZ,
        labels=("a", "b", "c", "d"),
        front_end=FrontEndSpec(6, WINDOW),
        levels=(LevelSpec(1, 4, 8, 2, 1), LevelSpec(4, 3, 8, 2, 1)),
    )
    front_end = FrontEnd(spec.front_end)
    features = [front_end(torch.from_numpy(x)) for x in vectors]
    brief = LEARNING.model_copy(update={"teacher": LEARNING.teacher.model_copy(update={"warm_epochs": 1, "epochs": 2})})
    found = learn_alignment(features, transcripts, truth, spec, brief, Stage("t", tmp_path, 0, lambda *told: None))
    assert widths and max(widths) == 30  # whole videos have more tokens than that
    assert min(len(x) for x in features) // found.period > 30
    for labels, given, log_p in zip(found.labels, truth, found.log_posteriors, strict=True):
        assert len(labels) == len(log_p) == len(given)
        assert (labels == given).mean() > 0.9


def listed(name: str, steps: tuple[int, ...], seconds: float, rate_hz: float = 10.0) -> Video:
    return Video(name, Path(name), "features", steps, round(seconds * rate_hz), rate_hz)


SURE = Evidence(agreement=0.95, chance=0.5, order=0.8, short_ends=0.1)
REASONS = {
    "agree on 55% of the frames; the step lists and durations alone give 50%": {"agreement": 0.55},
    "tell 0% of the order": {"order": -0.5},
    "90% of the first and last steps": {"short_ends": 0.9, "agreement": 0.87},
}


def advised(run: Path, evidence: Evidence, labels: list[int] | None = None, task: Path | None = None) -> None:
    """`labels`: those of one of the videos, of all its steps or of some."""
    videos = [listed(f"v{i}", (0, 1) if i else (1, 0), 10 + i) for i in range(5)]
    videos[3] = replace(videos[3], labels=None if labels is None else np.array(labels))
    found = {video.name: {**asdict(evidence), "labelled": video.labels is not None, "segments": []} for video in videos}
    (run / "alignment.json").write_text(json.dumps(found))
    say_whether_to_trust(run, VideoSet(("a", "b"), tuple(videos)), task=task)


@pytest.mark.parametrize("reason", REASONS)
def test_a_run_that_may_be_wrong_says_why_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    advised(tmp_path, replace(SURE, **REASONS[reason]))
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("CAUTION")
    assert [other for other in REASONS if other in told.err] == [reason]
    assert "these first: v4 and v3; then train with --labelled v4,v3" in told.err
    assert "the 5 videos have 2 different lists" in told.err
    advised(tmp_path, replace(SURE, **REASONS[reason]), task=Path("my task"))
    told = capsys.readouterr()  # in a task folder labels need no option, and there is a page for them
    assert "edge-hal correct 'my task', then train again" in told.err and "--labelled" not in told.err


def test_a_run_that_is_trusted_or_has_labels_gives_no_caution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advised(tmp_path, SURE)
    told = capsys.readouterr()
    assert told.err == "" and "agree on 95%" in told.out
    advised(tmp_path, Evidence(0.1, 0.5, 0.0, 1.0), labels=[0, 0, 1, -1])
    assert capsys.readouterr() == ("", "")
    advised(tmp_path, Evidence(0.1, 0.5, 0.0, 1.0), labels=[0, 0, -1, -1])
    assert capsys.readouterr().err.startswith("CAUTION")  # the label of one step leads no alignment


def test_a_list_that_repeats_a_step_is_complete_only_with_a_label_of_each_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search has restarts as long as a place of the list is not known."""
    wrong = replace(SURE, agreement=0.55)
    for labels, cautioned in (([0, -1, -1, 1, -1, -1], True), ([0, -1, -1, 1, -1, 0], False)):
        videos = [listed(f"v{i}", (0, 1), 10) for i in range(4)]
        videos.append(replace(listed("w", (0, 1, 0), 0.6), labels=np.array(labels)))
        found = {video.name: {**asdict(wrong), "segments": []} for video in videos}
        (tmp_path / "alignment.json").write_text(json.dumps(found))
        assert say_whether_to_trust(tmp_path, VideoSet(("a", "b"), tuple(videos))) == cautioned
        assert capsys.readouterr().err.startswith("CAUTION") == cautioned


def test_an_alignment_that_was_compared_with_none_is_not_called_agreed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = VideoSet(("a", "b"), (listed("v", (0, 1), 10),))
    (tmp_path / "alignment.json").write_text(json.dumps({"v": {**asdict(SURE), "segments": []}}))
    assert not say_whether_to_trust(tmp_path, videos, compared=False)
    told = capsys.readouterr().out
    assert "was not compared with others" in told and "agree" not in told


def test_videos_worth_labelling_hold_all_steps_and_are_long() -> None:
    few, short = listed("few", (0, 1, 0, 1), 500), listed("short", (0, 1, 2), 20)
    fast, other = listed("fast", (0, 1, 2), 30, rate_hz=60), listed("other", (3,), 5)
    assert worth_labelling([few, short, other, fast], 9) == ["fast", "other", "few", "short"]
    assert worth_labelling([few, short], 1) == ["short"] and worth_labelling([], 2) == []
