"""What runs beside the page of `edge-hal correct`."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="needs PyAV")

from edge_hal.learning.data.dataset import load_dataset
from edge_hal.web.correct import work as work_module
from edge_hal.web.correct.child import Child
from edge_hal.web.correct.found import read_found
from edge_hal.web.correct.videos import TaskVideos
from edge_hal.web.correct.work import Work
from tests.helpers.correction_task import STEPS, write_task


@pytest.mark.parametrize("run", ["1", "2"])
def test_confidences_are_joined_to_the_run_that_was_scored_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    """`run`: the newest one when the confidences of the first have been read."""
    root = write_task(tmp_path / "task", ["one"])
    found = read_found(root / "runs" / "1", STEPS)
    videos = TaskVideos(root, load_dataset(root, split=None, part="train"), found, "csv")
    known = {("one", (30, "open", "fill")): 0.5}

    def read_while_a_training_ends(path: Path, rates: Any) -> dict[Any, float]:
        videos.found = replace(videos.found, run=run)
        return known

    monkeypatch.setattr(work_module, "read_confidences", read_while_a_training_ends)
    work = Work(videos, lambda message: None)
    ended = threading.Event()
    child = Child(["--version"], lambda: None if child.running else ended.set())
    child.start()
    assert ended.wait(60)
    work._scoring = child
    work._scored(child, tmp_path / "1")
    assert videos.found.run == run and videos.found.confidences == (known if run == "1" else None)
    work.close()
