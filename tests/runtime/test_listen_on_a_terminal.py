"""`edge-hal listen` on a terminal: reports are one line that is written again in place, all others stay."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from edge_hal.commands.listen import describe
from edge_hal.events import decode
from edge_hal.runtime.runner import RunOptions, run
from tests.helpers.deliveries import ENVIRONMENT, kept
from tests.helpers.loops import features
from tests.helpers.processes import read_terminal
from tests.helpers.toy_procedure import HZ, procedure_bundle, steps

COLUMNS = 60


def on_screen(written: str) -> list[str]:
    """The lines that a terminal shows after a text with carriage returns."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown: list[str] = []
        for number, part in enumerate(line.split("\r")):
            shown = list(part) + shown[len(part) :] if number else list(part)
        lines.append("".join(shown).rstrip())
    return lines


def test_reports_leave_nothing_behind(tmp_path: Path) -> None:
    procedure_bundle(tmp_path / "bundle")
    endpoint = f"ipc://{tmp_path}/s"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_hal", "listen", "--connect", endpoint, "--until-end"]
    environment = {**ENVIRONMENT, "COLUMNS": str(COLUMNS), "LINES": "24"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as listener:
        os.close(theirs)
        source, journal = features(tmp_path, steps(12), HZ), tmp_path / "j"
        run(RunOptions(tmp_path / "bundle", source, endpoint, pace="asap", journal=journal, wait_subscribers=1))
        text = read_terminal(ours)
        assert listener.wait(timeout=60) == 0
    assert text.startswith("waiting for events of any stream at ")  # a wrong address would show nothing else
    durable = [describe(decode(body)) for body in kept(tmp_path / "j")]
    shown = [line for line in on_screen(text) if line and "] heartbeat: " not in line]  # of a slow machine
    assert shown == [line.rstrip() for line in durable]
    reports = [part for part in text.replace("\n", "\r").split("\r") if part.strip() and part not in durable]
    assert len(reports) > 20 and max(map(len, reports)) < COLUMNS


def test_wide_characters_stay_on_one_line_and_leave_nothing_behind() -> None:
    """Each of these takes two cells of a terminal, the accent none."""
    ours, theirs = pty.openpty()
    told = "e\u0301" + "組" * COLUMNS
    code = f"from edge_hal.commands.listen import StatusLine; line = StatusLine(); line.show({told!a}); line.clear()"
    environment = {**ENVIRONMENT, "COLUMNS": str(COLUMNS), "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=environment) as child:
        os.close(theirs)
        text = read_terminal(ours)
        assert child.wait(timeout=60) == 0
    wide = (COLUMNS - 1 - 1) // 2
    assert re.fullmatch(f"e\u0301組{{{wide}}}\r {{{1 + 2 * wide}}}\r", text)
