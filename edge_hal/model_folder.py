"""A folder of bundles, one of which is in use: the one that the link `current` points to.

A folder of models has a bundle in each subfolder. A task folder is one too, with the bundles of its runs. There is no
database: the date of a bundle is that of its manifest, and everything else is in its files.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_writable, file_error

CURRENT = "current"
MANIFEST = "manifest.json"
CHECK_S = 1.0
"""Time between two looks of a run at the link."""


@dataclass(frozen=True)
class KeptModel:
    """A bundle in a folder of models. `name`: of its subfolder, as the link holds it. `made_s`: Unix time of its
    manifest."""

    name: str
    path: Path
    made_s: float


def models_in(folder: Path, notes: list[str] | None = None) -> list[KeptModel]:
    """The bundles, the oldest first.

    Args:
        notes: what is said of each bundle that cannot be read; it is left out. None: it is an error.

    Raises:
        EdgeHalError: the folder cannot be read, or a bundle without `notes`.
    """
    runs = folder / "runs"
    try:
        paths = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."]
        paths += [run / "bundle" for run in runs.iterdir() if run.is_dir()] if runs.is_dir() else []
    except OSError as error:
        raise file_error(f"cannot read {folder}", error, path=folder) from error
    found = []
    for path in sorted(paths):
        try:
            found.append(KeptModel(str(path.relative_to(folder)), path, (path / MANIFEST).stat().st_mtime))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            unread = file_error(f"cannot read {path / MANIFEST}", error, path=path / MANIFEST)
            if notes is None:
                raise unread from error
            notes.append(f"{unread.what}: {unread.why}")
    return sorted(found, key=lambda model: (model.made_s, model.name))


def is_model_folder(folder: Path) -> bool:
    """Whether a link says which bundle is in use."""
    return (folder / CURRENT).is_symlink()


def current_model(folder: Path) -> KeptModel | None:
    """The bundle in use; None if there is no link. Raises EdgeHalError if the link leads to no bundle of the folder."""
    if not is_model_folder(folder):
        return None
    target = Path(os.path.realpath(folder / CURRENT))
    for model in models_in(folder, []):  # another bundle that cannot be read does no harm
        if os.path.realpath(model.path) == str(target):
            return model
    todo = f"edge-hal models list {folder}, then: edge-hal models use {folder} NAME"
    raise EdgeHalError(f"{folder / CURRENT} leads to no bundle of the folder", f"it points to {target}", todo)


def use_model(folder: Path, model: KeptModel) -> None:
    """Let the link point to `model`. At each moment it points to the old one or to the new one.

    Raises:
        EdgeHalError: the link cannot be written, or something else has its name.
    """
    link, beside = folder / CURRENT, folder / f".{CURRENT}.{os.getpid()}"
    check_writable(folder, f"cannot write {link}")
    if link.exists() and not link.is_symlink():
        raise EdgeHalError(f"{link} is no link", "it would be overwritten", "rename it")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(model.name)
        os.replace(beside, link)
    except OSError as error:
        raise file_error(f"cannot write {link}", error, path=link) from error


class LinkWatch:
    """Says when a link points to another place. A path that is no link never does.

    Args:
        path: it is looked at once a second at most.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_s = 0.0
        self.target: Path | None = None

    def moved(self) -> bool:
        """Whether it points to another place than at the last call. `target` is that place."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + CHECK_S
        try:
            target = self._path.parent / os.readlink(self._path)
        except OSError:  # no link, or it was removed
            return False
        before, self.target = self.target, target
        return target != before
