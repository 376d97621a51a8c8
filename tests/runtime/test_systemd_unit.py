"""The unit file as it is shipped: its command runs, says what systemd waits for, reloads and stops."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.processes import REPOSITORY

UNIT = REPOSITORY / "configs" / "edge-hal@.service"
DROP_IN = REPOSITORY / "configs" / "edge-hal-jetson.conf"
TIMEOUT_S = 60.0


def setting(name: str) -> str:
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]
    return line.removeprefix(f"{name}=")


def test_the_command_of_the_unit_under_a_manager(tmp_path: Path) -> None:
    bundle = known_bundle(tmp_path / "bundle", 20.0).path
    np.save(tmp_path / "f.npy", vectors([0, 0, 0, 0, 1, 1, 1, 1] * 600))
    values = {"${CAMERA}": f"features:{tmp_path}/f.npy@20", "%i": "bench-1"}
    options = f"--pub ipc://{tmp_path}/s --journal {tmp_path}/j"
    words: list[str] = []
    for word in shlex.split(setting("ExecStart").replace("/opt/edge-hal/bundle", str(bundle))):
        words += shlex.split(options) if word == "$OPTIONS" else [values.get(word, word)]
    assert words[0].endswith("/bin/edge-hal") and words[1] == "run"
    [_, hangup, main] = shlex.split(setting("ExecReload"))
    assert (hangup, main) == ("-HUP", "$MAINPID") and float(setting("WatchdogSec")) > 5
    environment = dict(pair.split("=") for pair in shlex.split(setting("Environment")))
    environment |= {name: str(tmp_path) for name in environment if name.startswith("XDG")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT_S)
        environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": str(UNIT.parent.parent)}
        command = [sys.executable, "-m", "edge_hal", *words[1:]]
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env={**os.environ, **environment}, text=True, **how) as process:  # type: ignore[call-overload]
            assert manager.recv(100) == b"READY=1\nWATCHDOG=1"
            process.send_signal(signal.SIGHUP)
            while "takes over" not in process.stderr.readline():
                assert process.poll() is None
            assert manager.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGSTOP)  # as good as a hang: the manager would kill it now
            manager.setblocking(False)
            try:
                while manager.recv(100):
                    pass
            except BlockingIOError:
                pass
            process.send_signal(signal.SIGCONT)
            manager.settimeout(TIMEOUT_S)
            assert manager.recv(100) == b"WATCHDOG=1"
            process.terminate()
            while (last := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1"
            process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0 and (tmp_path / "j").exists()


@pytest.mark.parametrize("jetson", [False, True])
def test_systemd_understands_the_unit(tmp_path: Path, jetson: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/edge-hal/bin/edge-hal", sys.executable))
    if jetson:
        (tmp_path / f"{UNIT.name}.d").mkdir()
        shutil.copy(DROP_IN, tmp_path / f"{UNIT.name}.d" / "jetson.conf")
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0 and UNIT.name not in done.stderr, done.stderr


def test_the_unit_exposes_little() -> None:
    """systemd scores it from 0 (safe) to 10; the program reads the file only and starts nothing."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=29", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout
    assert int(setting("UMask"), 8) == 0o077 and int(setting("LimitNOFILE")) >= 4096 and setting("TasksMax")
