from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import Command, Done, called_here


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`edge-hal ARGUMENTS` in this process, in the folder of the test."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(tmp_path)
        return Done(*called_here(monkeypatch, capsys, *arguments))

    return run
