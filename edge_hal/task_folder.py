"""A task folder: the videos of a user, their step lists, and what was learned from them.

videos/<video>.mp4        transcripts/<video>.txt   labels/<video>.txt (optional)
suggestions/              what nobody has accepted yet; it counts for nothing
current                   optional: a link to the bundle in use, see `model_folder.py`
harvested.json            which stretches of recordings were taken, see `learning/data/harvested.py`
task.yaml                 see `task_file.py`; a folder with this file is a task folder
runs/1, runs/2, ...       run directories, each with its bundle in `bundle/`
.cache/                   what was extracted from the videos
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.model_folder import CURRENT, MANIFEST, current_model, is_model_folder, models_in

TASK_FILE = "task.yaml"
RUNS = "runs"
SUGGESTIONS = "suggestions"
HARVESTED = "harvested.json"
BUNDLE = "bundle"
MODEL_FILE = "model.safetensors"
"""A run that holds it is complete."""


def is_task(root: Path) -> bool:
    """Also if the file cannot be read: whoever reads it says why."""
    return os.path.lexists(root / TASK_FILE)


def runs(root: Path) -> list[Path]:
    """The run directories of a task folder, the newest last."""
    found = (root / RUNS).iterdir() if (root / RUNS).is_dir() else iter(())
    return sorted((run for run in found if run.is_dir() and run.name.isdecimal()), key=lambda run: int(run.name))


def next_run(root: Path) -> Path:
    """A run directory with the next free number."""
    return root / RUNS / str(int(runs(root)[-1].name) + 1 if runs(root) else 1)


def newest(root: Path, holding: str) -> Path | None:
    """The newest run that has the file `holding`."""
    return next((run for run in reversed(runs(root)) if (run / holding).is_file()), None)


def newest_run(path: Path) -> Path:
    """`path`, or if it is a task folder, its newest complete run.

    Raises:
        EdgeHalError: no run is complete.
    """
    if not is_task(path):
        return path
    run = newest(path, MODEL_FILE)
    if run is None:
        why = f"{runs(path)[-1]} is not finished" if runs(path) else "nothing was trained"
        raise EdgeHalError(f"{path} has no complete run", why, f"edge-hal train {shlex.quote(str(path))}")
    return run


def newest_bundle(path: Path) -> Path:
    """`path`; if it has the link `current` of `model_folder.py`, this link; if it is a task folder, the bundle of its
    newest run that has one; if it holds one bundle, as a run does, this one.

    Raises:
        EdgeHalError: no run has one, the link leads nowhere, or there are bundles in `path` and no link to one.
    """
    if is_model_folder(path):
        current_model(path)  # raises
        return path / CURRENT
    if not is_task(path):
        found = models_in(path) if path.is_dir() and not (path / MANIFEST).exists() else []
        if len(found) > 1:
            todo = f"edge-hal models use {shlex.quote(str(path))} NAME"
            raise EdgeHalError(f"{path} has several bundles", f"none is in use: there is no link {CURRENT}", todo)
        return found[0].path if found else path
    run = newest(path, f"{BUNDLE}/manifest.json")
    if run is None:
        todo = f"edge-hal export {shlex.quote(str(path))}" if runs(path) else f"edge-hal train {shlex.quote(str(path))}"
        raise EdgeHalError(f"{path} has no bundle yet", "", todo)
    return run / BUNDLE
