"""A command as a child of the page's server ends, whatever it and its own children do."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_hal.web.correct import child as child_module
from edge_hal.web.correct.child import Child

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    os.write(1, b"worker\\n")  # one call: lines of two processes would mix
    time.sleep(600)
os.write(1, b"leader\\n")
"""


@pytest.mark.parametrize("leader", ["time.sleep(600)", "sys.exit(3)"])
def test_closing_ends_a_child_and_its_own_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leader: str
) -> None:
    """The worker holds the output open, so the reader ends only after it."""
    package = tmp_path / "edge_hal"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STUBBORN + leader)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child_module, "END_S", 0.2)
    monkeypatch.setattr(child_module, "TELL_HZ", 1e9)
    said = threading.Event()
    child = Child([], lambda: said.set() if len(child.progress.lines) == 2 else None)
    child.start()
    assert said.wait(60)
    assert child.running
    child.close()
    assert child.progress.state == "stopped" and set(child.progress.lines) == {"worker", "leader"}


def test_a_child_that_has_ended_is_not_stopping() -> None:
    ended = threading.Event()
    child = Child(["--version"], lambda: ended.set() if not child.running else None)
    child.start()
    assert ended.wait(60)
    child.stop()
    assert child.progress.state == "done"
