"""Labels are matched by name: the order of `mapping.txt` does not matter, and what is missing is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.calib.confidence import Evidence, collect
from edge_hal.commands.options.calibration_inputs import labelled_posteriors
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.checkpoint_scores import checkpoint_scores
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.data.video_set import VideoSet, with_labels_of
from edge_hal.learning.hmm.alignment_file import first_alignment_from
from edge_hal.model.model_file import load_checkpoint
from edge_hal.progress import no_progress
from tests.helpers.small_data import ACTIONS, CONFIG, RATE_HZ, SIZE, write_small_data
from tests.helpers.small_models import save_run, small_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a run that knows its actions, in the order of `ACTIONS`."""
    root = write_small_data(tmp_path_factory.mktemp("names") / "data", test=3)
    (root / "splits" / "valid.split1.bundle").write_text((root / "splits" / "test.split1.bundle").read_text())
    run = save_run(root / "run", small_spec(size=SIZE), seed=3)
    (run / "config.yaml").write_text(CONFIG.read_text())
    return root


def mapped(root: Path, names: list[str]) -> None:
    (root / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names)))


def load(root: Path) -> VideoSet:
    return load_dataset(root, split=1, part="test", with_labels=True, rate_hz=RATE_HZ, layout="DT", background="turn")


def evidence_of(root: Path) -> list[Evidence]:
    checkpoint = load_checkpoint(root / "run")
    _, posteriors, labels = labelled_posteriors(root, checkpoint, 1, "valid", no_progress)
    return collect(posteriors, labels, checkpoint.decoder, checkpoint.spec)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_mapping_changes_no_score(root: Path, seed: int) -> None:
    mapped(root, list(ACTIONS))
    videos = load(root)
    expected = checkpoint_scores(root / "run", videos)
    evidence = evidence_of(root)
    mapped(root, [list(ACTIONS[::-1]), ["grasp", "turn", "reach", "place"], ["place", "reach", "grasp", "turn"]][seed])
    other = load(root)
    matched = with_labels_of(other, ACTIONS, "the run")
    assert matched.labels == ACTIONS and not matched.notes and matched.background == videos.background
    assert [v.transcript for v in matched.videos] == [v.transcript for v in videos.videos]
    assert checkpoint_scores(root / "run", matched) == expected
    with pytest.raises(EdgeHalError, match="other labels"):
        checkpoint_scores(root / "run", other)
    found = evidence_of(root)
    assert [(e.label, e.right) for e in found] == [(e.label, e.right) for e in evidence] and found


def test_actions_that_only_one_side_has_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapped(root, ["dance", "place", "turn", "grasp", "reach"])
    found = with_labels_of(load(root), ("reach", "sing", "grasp", "turn"), "the run")
    assert found.labels == ("reach", "sing", "grasp", "turn", "dance", "place")
    first, second = found.notes
    assert "does not know 2 steps (dance, place)" in first and "wrong" in first
    assert "do not have 1 step (sing)" in second
    truth = [[ACTIONS[k] for k in video.labels] for video in with_labels_of(load(root), ACTIONS, "it").videos]
    assert [[found.labels[k] for k in video.labels] for video in found.videos] == truth
    labelled_posteriors(root, load_checkpoint(root / "run"), 1, "valid", no_progress)
    assert "dance" in capsys.readouterr().err


def test_frames_without_a_label_stay_without(root: Path) -> None:
    mapped(root, list(ACTIONS[::-1]))
    (root / "timestamps").mkdir(exist_ok=True)
    for video in load(root).videos:
        (root / "timestamps" / f"{video.name}.txt").write_text("3 turn\n9 reach\n")
    stamped = load_dataset(root, split=1, part="test", with_labels=True, timestamps=True, layout="DT")
    for video in with_labels_of(stamped, ACTIONS, "the run").videos:
        assert video.labels is not None
        last = video.labels
    assert last[[3, 9]].tolist() == [2, 0] and (np.delete(last, [3, 9]) == -1).all()


def test_no_common_name_is_an_error(root: Path) -> None:
    mapped(root, list(ACTIONS))
    with pytest.raises(EdgeHalError, match="other steps"):
        with_labels_of(load(root), ("a", "b"), "the run")


def test_an_alignment_is_read_by_name_and_an_unknown_step_is_named(root: Path) -> None:
    for names in (list(ACTIONS), list(ACTIONS[::-1])):
        mapped(root, names)
        recordings = read_recordings(load(root), 10.0, None)
        stored: dict[str, Any] = {
            r.name: {"frames": int(r.frames[-1]) + 1, "segments": [["turn", 0], ["reach", 40]]} for r in recordings
        }
        labels = first_alignment_from(json.loads(json.dumps(stored)), recordings, names).labels
        assert [[names[k] for k in y[[0, 19, 20, -1]]] for y in labels] == [["turn", "turn", "reach", "reach"]] * 3
    stored[recordings[1].name]["segments"][1][0] = "reaches"
    with pytest.raises(EdgeHalError, match=r"unknown step 'reaches'.*'reach'"):
        first_alignment_from(stored, recordings, names)
