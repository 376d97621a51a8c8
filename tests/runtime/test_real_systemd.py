"""The unit started by a real systemd, in a root of its own (`tests/helpers/systemd_root.sh`)."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.processes import REPOSITORY

SCRIPT = REPOSITORY / "tests" / "helpers" / "systemd_root.sh"
SYSTEMD = Path("/lib/systemd/systemd")
PROGRAMS = ("unshare", "nsenter", "pivot_root", "setpriv", "ip", "systemctl", "journalctl")
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net")
UNIT = "edge-hal@bench-1"
PATIENCE_S = 180.0


def obstacle() -> str | None:
    """Why systemd cannot be started here."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "only root can make a root of its own for systemd"
    if not SYSTEMD.exists() or missing:
        return f"not installed: {', '.join(missing) or 'systemd'}"
    if _unified() is None:
        return "no cgroup2 is mounted"
    probe = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    return f"no namespaces can be made: {probe.stderr.strip()}" if probe.returncode else None


def _unified() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


class Machine:
    """What systemd manages. `main` is the process that leads the namespaces."""

    def __init__(self, main: int) -> None:
        self._main = main

    def run(self, *command: str) -> str:
        enter = ["nsenter", "--target", str(self._main), "--mount", "--pid", "--uts", "--ipc", "--net"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, errors="replace", timeout=PATIENCE_S)
        return (done.stdout + done.stderr).strip()

    def shows(self, name: str) -> str:
        return self.run("systemctl", "show", UNIT, f"--property={name}", "--value")

    def until(self, name: str, value: str) -> None:
        self._until(lambda: self.shows(name) == value, f"{name}={value}")

    def until_logged(self, text: str) -> None:
        self._until(lambda: text in self.log(), text)

    def log(self) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat")

    def _until(self, condition, what: str) -> None:  # type: ignore[no-untyped-def]
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"never: {what}\n{self.run('systemctl', 'status', UNIT)}\n{self.log()}"


@contextmanager
def booted(folder: Path, files: Path) -> Iterator[Machine]:
    parent = _unified()
    assert parent is not None
    group = parent / f"edge-hal-test-{os.getpid()}"
    group.mkdir()
    scratch = folder / "scratch"
    scratch.mkdir()
    python = (sys.base_prefix, f"python{sys.version_info.major}.{sys.version_info.minor}", *site.getsitepackages())
    join = f'echo $$ > {group}/cgroup.procs; exec unshare {" ".join(NAMESPACES)} bash "$@"'
    command = ["bash", "-c", join, "bash", str(SCRIPT), str(scratch), str(files), *python]
    outside = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        end_s = time.monotonic() + PATIENCE_S
        main = 0
        while not main or os.path.basename(os.readlink(f"/proc/{main}/exe")) != "systemd":
            assert outside.poll() is None and time.monotonic() < end_s, outside.communicate()
            main = int((children.read_text().split() or ["0"])[0])
        yield Machine(main)
    finally:
        outside.kill()  # and with it all processes of the namespace
        outside.communicate()
        _remove(group)


def _remove(group: Path) -> None:
    """A cgroup can be removed when its last process is gone."""
    end_s = time.monotonic() + PATIENCE_S
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < end_s:
        pass
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)


@pytest.mark.slow
def test_systemd_starts_reloads_watches_and_stops_the_unit(tmp_path: Path) -> None:
    why = obstacle()
    if why is not None:
        pytest.skip(why)
    files = tmp_path / "files"
    known_bundle(files / "bundle", 20.0)
    np.save(files / "f.npy", vectors([0, 0, 0, 0, 1, 1, 1, 1] * 6000))
    for name in ("edge_hal", "runtime", "export", "calib", "configs"):
        shutil.copytree(REPOSITORY / name, files / "package" / name, symlinks=True)
    journal = "/var/lib/edge-hal/bench-1.journal"
    (files / "bench-1.env").write_text(f"CAMERA=features:/opt/edge-hal/f.npy@20\nOPTIONS=--journal {journal}\n")
    with booted(tmp_path, files) as machine:
        machine.until("ActiveState", "active")  # it has sent READY=1
        first = machine.shows("MainPID")
        assert machine.run("stat", "--format=%a %U", journal) == "600 edge-hal"
        status = machine.run("cat", f"/proc/{first}/status")  # the limits of the unit are in force
        assert all(
            f"{name}:\t{value}" in status for name, value in (("Seccomp", 2), ("NoNewPrivs", 1), ("Umask", "0077"))
        )
        assert re.search(r"CapEff:\t0+\n", status)
        machine.run("systemctl", "reload", UNIT)
        machine.until_logged("takes over")
        assert machine.shows("MainPID") == first and machine.shows("NRestarts") == "0"
        machine.run("kill", "-STOP", first)  # as good as a hang
        machine.until("NRestarts", "1")
        machine.until("ActiveState", "active")
        assert machine.shows("MainPID") != first
        assert "Traceback" not in machine.log()
        machine.run("systemctl", "stop", UNIT)
        assert machine.shows("ActiveState") == "inactive" and machine.shows("Result") == "success"
        text = machine.run("cat", journal, f"{journal}-wal")
        assert text.count('"type":"start"') == 2 and '"type":"end"' in text
    assert (files / "f.npy").exists()  # nothing of this machine was cleaned up
