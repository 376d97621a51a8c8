"""The folders of edge-hal in the home of the user, by the XDG base directory specification
(https://specifications.freedesktop.org/basedir-spec/latest/). None of them is made here."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Journals, cursors and the tokens of pages."""
    return _folder("XDG_STATE_HOME", ".local/state")


def config_folder() -> Path:
    """Keys."""
    return _folder("XDG_CONFIG_HOME", ".config")


def cache_folder() -> Path:
    """What can be made again."""
    return _folder("XDG_CACHE_HOME", ".cache")


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default, "edge-hal")
