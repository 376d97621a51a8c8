"""`edge-hal label`, and the corrected labels in the next training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.bundles import AT_ONCE
from tests.helpers.processes import call, called_here, contents
from tests.helpers.small_data import CONFIG, RATE_HZ, write_alignment, write_small_data
from tests.helpers.small_models import random_model, small_spec

pytest.importorskip("torch")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task folder with one complete run of a random model."""
    from edge_hal.model.model_file import save_model

    root = write_small_data(tmp_path / "task", train=3, test=1)
    shutil.rmtree(root / "splits")
    shutil.rmtree(root / "groundTruth")
    (root / "task.yaml").write_text(f"test: [video3]\nrate_hz: {RATE_HZ:g}\n")
    run = root / "runs" / "1"
    run.mkdir(parents=True)
    save_model(run / "model.safetensors", *random_model(small_spec(size=6), 0), AT_ONCE, {"by": "tests"})
    shutil.copy(CONFIG, run / "config.yaml")
    write_alignment(run, root)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_suggestions_hold_the_alignment_and_the_least_certain_boundary_first(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(task)
    code, printed, errors = called_here(monkeypatch, capsys, "label", str(task))
    assert code == 0, errors
    made = {name for name in contents(task).keys() - before.keys() if not name.startswith(".cache")}
    assert made == {"suggestions", "suggestions/segments.csv", "suggestions/boundaries.csv"}
    alignment = json.loads((task / "runs" / "1" / "alignment.json").read_text())
    segments = rows(task / "suggestions" / "segments.csv")
    assert {row["video"] for row in segments} == {"video0", "video1", "video2"}  # not the test video
    for name in ("video0", "video1", "video2"):
        own = [row for row in segments if row["video"] == name]
        assert [[row["step"], round(float(row["begin_s"]) * RATE_HZ)] for row in own] == alignment[name]["segments"]
        assert [row["end_s"] for row in own[:-1]] == [row["begin_s"] for row in own[1:]]
        frames = np.load(task / "features" / f"{name}.npy").shape[1]
        assert round(float(own[-1]["end_s"]) * RATE_HZ) == frames
    boundaries = rows(task / "suggestions" / "boundaries.csv")
    confidences = [float(row["confidence"]) for row in boundaries]
    assert confidences == sorted(confidences) and 0 <= confidences[0] <= confidences[-1] <= 0.9  # the agreement
    assert len(boundaries) == sum(len(alignment[f"video{n}"]["segments"]) - 1 for n in range(3))
    first = boundaries[0]
    assert first["video"] in printed and f"{first['from']} -> {first['to']}" in printed
    assert {row["within_s"] for row in boundaries} == {"0.5"}


def test_corrections_are_never_overwritten_unasked_and_the_folders_of_the_user_are_refused(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = task.parent / "out"
    arguments = ("label", str(task), "--out", str(out), "--format", "eaf")
    assert called_here(monkeypatch, capsys, *arguments)[0] == 0
    first = (out / "video1.eaf").read_bytes()
    (out / "video1.eaf").write_text("corrected")
    before = contents(out)
    code, _, errors = called_here(monkeypatch, capsys, *arguments)
    assert code == 2 and "may hold corrections" in errors and contents(out) == before
    with monkeypatch.context() as patched:  # it is known before anything is computed, for each format
        patched.setattr("edge_hal.learning.suggestions.suggest_labels", lambda *_, **__: pytest.fail("computed"))
        for format, name in (("csv", "segments.csv"), ("frames", "video0.txt"), ("label-studio", "label-studio.xml")):
            (out / name).touch()
            code, _, errors = called_here(monkeypatch, capsys, *arguments[:-1], format)
            assert code == 2 and f"{name} is there" in errors
            (out / name).unlink()
    assert called_here(monkeypatch, capsys, *arguments, "--overwrite")[0] == 0
    assert (out / "video1.eaf").read_bytes() == first
    (task / "corrected").mkdir()
    for name, more in (("labels", ()), ("transcripts", ()), ("corrected", ("--labels", str(task / "corrected")))):
        before = contents(task)
        code, _, errors = called_here(monkeypatch, capsys, "label", str(task), "--out", str(task / name), *more)
        assert code == 2 and "holds what you wrote" in errors and contents(task) == before


def test_a_video_whose_labels_are_known_has_certain_boundaries(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = task / "runs" / "1" / "alignment.json"
    alignment: dict[str, Any] = json.loads(path.read_text())
    alignment["video1"]["labelled"] = True
    path.write_text(json.dumps(alignment))
    assert called_here(monkeypatch, capsys, "label", str(task))[0] == 0
    found = rows(task / "suggestions" / "boundaries.csv")
    assert {row["confidence"] for row in found if row["video"] == "video1"} == {"1.00"}


def test_a_video_that_was_renamed_since_the_training_is_named(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (task / "features" / "video1.npy").rename(task / "features" / "monday.npy")
    (task / "transcripts" / "video1.txt").rename(task / "transcripts" / "monday.txt")
    code, printed, errors = called_here(monkeypatch, capsys, "label", str(task))
    assert code == 0 and "2 videos" in printed and "note: 1 video (monday) left out" in errors
    assert {row["video"] for row in rows(task / "suggestions" / "segments.csv")} == {"video0", "video2"}


def test_a_run_of_other_videos_and_a_folder_without_place_are_refused(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (task / "task.yaml").rename(task / "task.txt")
    code, _, errors = called_here(monkeypatch, capsys, "label", str(task), "--ckpt", str(task / "runs" / "1"))
    assert code == 2 and "--out is missing" in errors
    (task / "task.txt").rename(task / "task.yaml")
    path = task / "runs" / "1" / "alignment.json"
    path.write_text(path.read_text().replace('"video', '"film'))
    code, _, errors = called_here(monkeypatch, capsys, "label", str(task))
    assert code == 1 and "knows none of the videos" in errors and not (task / "suggestions").exists()


def test_a_run_whose_videos_of_mistakes_are_gone_can_be_read(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mistakes` counts in a training only; later the videos may be renamed, and other data never had them."""
    config = task / "runs" / "1" / "config.yaml"
    config.write_text(config.read_text().replace("rate_hz: 20}", "rate_hz: 20, mistakes: [renamed]}"))
    (task / "labels").mkdir()
    frames = np.load(task / "features" / "video3.npy").shape[1]
    steps = (task / "mapping.txt").read_text().split()[1::2]
    (task / "labels" / "video3.txt").write_text(f"{steps[0]}\n" * frames)
    for command in ("label", "eval"):
        code, _, errors = called_here(monkeypatch, capsys, command, str(task))
        assert code == 0 and "renamed" not in errors, errors
    code, _, errors = called_here(monkeypatch, capsys, "eval", str(task), "--set", "data.mistakes=[video3]")
    assert code == 2 and "only a training looks at it" in errors


def test_check_names_broken_labels_and_takes_parts(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (task / "transcripts" / "video1.txt").read_text().split()[0]
    (task / "labels").mkdir()
    (task / "labels" / "some.csv").write_text(f"video,begin_s,end_s,step\nvideo1,0,1,{first}\n")
    code, printed, errors = called_here(monkeypatch, capsys, "check", str(task), "--config", str(CONFIG))
    assert code == 0, errors
    (task / "labels" / "video2.eaf").write_text("<ANNOTATION_DOCUMENT>")
    code, printed, errors = called_here(monkeypatch, capsys, "check", str(task), "--config", str(CONFIG))
    assert code == 1 and "video2.eaf" in errors and "save it again in ELAN" in errors
    assert "3 to train on" in printed


@pytest.mark.slow
def test_a_corrected_boundary_is_in_the_next_alignment_to_the_tick(tmp_path: Path) -> None:
    """Train, label, move one boundary in the table and give two stamps of another video, train again."""
    root = write_small_data(tmp_path / "task", train=5, test=1)
    shutil.rmtree(root / "splits")
    shutil.rmtree(root / "groundTruth")
    (root / "task.yaml").write_text(f"test: [video5]\nrate_hz: {RATE_HZ:g}\n")
    brief = [f"learning.{key}" for key in ("teacher.warm_epochs=1", "teacher.epochs=1", "student.epochs=1")]
    train = ["train", str(root), "--config", str(CONFIG), *(part for key in brief for part in ("--set", key))]
    code, _, errors = call(*train)
    assert code == 0, errors
    code, _, errors = call("label", str(root))
    assert code == 0, errors
    assert call(*train[:2], "--labels", str(root / "nothing"))[0] == 2
    table = rows(root / "suggestions" / "segments.csv")
    own = [row for row in table if row["video"] == "video1"]
    moved = float(own[1]["end_s"]) - 0.7
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    (corrected / "mine.csv").write_text(
        "video,begin_s,end_s,step\n"
        f"video1,{moved - 0.5},{moved},{own[1]['step']}\nvideo1,{moved},{moved + 1},{own[2]['step']}\n"
    )
    listed = (root / "transcripts" / "video2.txt").read_text().split()
    (corrected / "video2.txt").write_text(f"30 {listed[0]}\n")
    known = ("--alignment", str(root / "runs" / "1" / "alignment.json"))
    code, _, errors = call(*train, "--labels", str(corrected), *known)
    assert code == 0, errors
    assert "0 videos with labels of all frames, 2 with some" in errors
    found = json.loads((root / "runs" / "2" / "alignment.json").read_text())
    assert [name for name, entry in found.items() if entry["labelled"]] == ["video1", "video2"]
    frame = found["video1"]["segments"][2][1]
    assert 0 <= frame - round(moved * RATE_HZ) < 2
    assert [step for step, _ in found["video1"]["segments"]] == [row["step"] for row in own]
    assert found["video2"]["segments"][1][1] > 30
