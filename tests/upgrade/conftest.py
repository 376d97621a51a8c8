"""What version 0.1.0 wrote (`tests/data/0.1.0`), as a copy that a test may change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import REPOSITORY, Command, Done, called_here

VERSION = "0.1.0"


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(REPOSITORY / "tests" / "data" / VERSION, tmp_path / VERSION))
    for key in folder.rglob("*.key_secret"):
        key.chmod(0o600)  # git does not keep this mode
    return folder


@pytest.fixture
def command(frozen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`edge-hal ARGUMENTS` in this process, in that copy."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(frozen)
        return Done(*called_here(monkeypatch, capsys, *arguments))

    return run


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What version 0.1.0 itself made of its files."""
    data: dict[str, Any] = json.loads((REPOSITORY / "tests" / "data" / VERSION / "expected.json").read_text())
    return data
