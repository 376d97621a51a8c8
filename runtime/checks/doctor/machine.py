"""Power mode, temperature, disk, clock and ports."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

from edge_hal.runtime.checks import readings
from edge_hal.runtime.checks.finding import NOTHING, Finding, State

FASTEST_CLOCKS = "sudo nvpmodel -m N (N: MAXN in /etc/nvpmodel.conf) && sudo jetson_clocks"
"""The number of a mode differs between modules."""
HOT_C, POSSIBLE_C = 85.0, (-40.0, 150.0)
"""A Jetson throttles from about 99 Celsius; a sensor that is off reports an impossible value."""
FULL_MB, TIGHT_MB = 100, 2000
"""The journal keeps up to 1 GB unless told otherwise."""
UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""
BUILT_S = 1735689600
"""2025-01-01: a clock before that was never set. A Jetson without a battery starts in 1970."""


def check_power() -> Iterator[Finding]:
    tool = shutil.which("nvpmodel")
    if tool is not None:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=20, errors="replace")
        modes = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if "Power Mode" in line]
        if not modes:
            found = f"nvpmodel reports no mode: {(done.stderr or done.stdout).strip()[:200] or 'it printed nothing'}"
            yield Finding("power mode", "warn", found, "sudo nvpmodel -q")
        elif modes[0].upper().startswith("MAXN"):
            yield Finding("power mode", "ok", modes[0])
        else:
            todo = f"if a deadline is missed: {FASTEST_CLOCKS}"
            yield Finding("power mode", "ok", f"{modes[0]}: not the fastest", todo)
        return
    governor = readings.text_of(readings.CPUS / "cpu0" / "cpufreq" / "scaling_governor")
    if governor == "powersave":
        todo = "if a deadline is missed: sudo cpupower frequency-set -g performance"
        yield Finding("power mode", "ok", "CPU governor powersave", todo)
    else:
        yield Finding("power mode", "ok", f"CPU governor {governor}" if governor else "none that could be chosen")


def check_temperature() -> Iterator[Finding]:
    low, high = POSSIBLE_C
    found = {name[:-2]: value for name, value in readings.readings().items() if name.endswith("_c")}
    possible = {name: value for name, value in found.items() if low < value < high}
    if not possible:
        yield Finding("temperature", "ok", "no sensor reports it")
        return
    name = max(possible, key=lambda key: possible[key])
    text = f"{possible[name]:.0f} Celsius at the hottest, {name}"
    if possible[name] < HOT_C:
        yield Finding("temperature", "ok", text)
    else:
        yield Finding("temperature", "warn", f"{text}: clocks will fall", "cool it: a fan, air, a lower power mode")


def check_disk() -> Iterator[Finding]:
    from edge_hal.runtime.delivery.journal import default_path
    from edge_hal.runtime.engines.tensorrt_plans import default_cache

    for check, folder, option in (
        ("disk for the journal", default_path("default").parent, "--journal FILE elsewhere"),
        ("disk for TensorRT plans", default_cache(), "EDGE_HAL_CACHE=FOLDER elsewhere"),
    ):
        # `os.path.exists`: `Path.exists` raises an error for what lies in a folder that this user may not enter.
        there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            todo = f"sudo chown $USER {there}, or {option}"
            yield Finding(check, "fail", f"{folder}: cannot be written ({there})", todo)
            continue
        free_mb = shutil.disk_usage(there).free / 1e6
        state: State = "fail" if free_mb < FULL_MB else "warn" if free_mb < TIGHT_MB else "ok"
        todo = NOTHING if state == "ok" else f"free some: du -xh {there} | sort -h | tail; or {option}"
        yield Finding(check, state, f"{folder}: {free_mb / 1000:.1f} GB free", todo)


def check_clock() -> Iterator[Finding]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < BUILT_S:
        yield Finding("clock", "fail", f"{now}: it was never set", "sudo timedatectl set-ntp true, or set it by hand")
        return
    # Larger than `struct timex` anywhere; zero asks and changes nothing.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(1024))
    if state < 0:
        why = os.strerror(ctypes.get_errno())
        yield Finding("clock", "warn", f"{now}, not known whether it is synchronised: {why}", "timedatectl status")
    elif state == UNSYNCHRONISED:
        todo = "sudo timedatectl set-ntp true; times in events are wrong by as much as this clock is"
        yield Finding("clock", "warn", f"{now}, not synchronised", todo)
    else:
        yield Finding("clock", "ok", f"{now}, synchronised")


def check_ports() -> Iterator[Finding]:
    from edge_hal.runtime.network.endpoint import DEFAULT_ENDPOINT, default_replay

    for what, endpoint in (("events", DEFAULT_ENDPOINT), ("replay", default_replay(DEFAULT_ENDPOINT))):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        check = f"port {port} for {what}"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                todo = f"does another run use it? see: ss -ltnp 'sport = :{port}'; another one needs --pub tcp://{host}:PORT"
                yield Finding(check, "warn", f"taken: {error.strerror}", todo)
            else:
                yield Finding(check, "ok", "free")
