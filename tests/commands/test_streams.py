"""Standard output and standard error that are closed, full, without a reader or not read: nothing stops."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.commands.streams import Output
from tests.helpers.bundles import LABELS, vectors
from tests.helpers.kept_posteriors import keep
from tests.helpers.processes import REPOSITORY
from tests.helpers.small_data import CONFIG, write_small_data

EDGE_HAL = f"{shlex.quote(sys.executable)} -m edge_hal"
pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> tuple[Path, str]:
    """A folder, and the command of a run there with 300 transitions."""
    folder = tmp_path_factory.mktemp("streams")
    np.save(folder / "f.npy", vectors(np.repeat(np.arange(300) % len(LABELS), 8).tolist()))
    source = "--camera features:f.npy@10 --pace asap --pub tcp://127.0.0.1:*"
    return folder, f"{EDGE_HAL} run --bundle {shlex.quote(str(bundle))} {source} --journal j"


def ends(folder: Path) -> list[str | None]:
    """The reasons of all `end` events in the journal, which is deleted."""
    with sqlite3.connect(folder / "j") as journal:
        events = [json.loads(body) for (body,) in journal.execute("SELECT body FROM event ORDER BY seq")]
    for file in folder.glob("j*"):
        file.unlink()
    assert sum(event["type"] == "transition" for event in events) == 300
    assert events[-1]["type"] == "end"
    return [event["reason"] for event in events if event["type"] == "end"]


def slow(streams: str) -> Any:
    """All of them together take half a minute."""
    return pytest.param(streams, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "streams",
    [
        *(">/dev/full", ">&- 2>&- <&-"),
        *map(slow, (">&-", "2>&- >out", "2>/dev/full >out", ">/dev/full 2>&1", ">&- 2>&-")),
    ],
)
def test_a_run_ends_well_whatever_its_streams_are(run: tuple[Path, str], streams: str) -> None:
    folder, command = run
    done = shell(f"{command} {streams}", folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ends(folder) == ["eof"]
    if streams.endswith(">out"):
        lines = (folder / "out").read_text().splitlines()
        assert sum(" -> " in line for line in lines) == 300


@pytest.mark.parametrize(
    "reader",
    ["head -1", "true", "sh -c 'exec <&-; wait-for-nothing 2>/dev/null; exit 0'"],
)
def test_a_run_goes_on_when_its_reader_leaves(run: tuple[Path, str], reader: str) -> None:
    folder, command = run
    done = shell(f"( {command}; echo code $? >&2 ) | {reader}", folder)
    assert "code 0" in done.stderr.splitlines()
    assert ends(folder) == ["eof"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_does_not_wait_for_a_reader_that_does_not_read(run: tuple[Path, str], number: int) -> None:
    """Both ends of the pipe stay open, and it is full before the run begins."""
    folder, command = run
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    streams: dict[int, dict[str, Any]] = {
        1: {"stdout": writing, "stderr": subprocess.PIPE},
        2: {"stdout": subprocess.PIPE, "stderr": writing},
    }
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(shlex.split(command), cwd=folder, env=environment, text=True, **streams[number])
    # After recognition a command waits for its reader, as any other does: read from when `end` is in the journal.
    while process.poll() is None and not _has_end(folder / "j"):
        pass
    while len(os.read(reading, 65536)) == 65536 and process.poll() is None:
        pass
    os.close(writing)
    with os.fdopen(reading, "rb") as rest:
        rest.read()
    out, err = process.communicate()
    assert process.returncode == 0
    assert ends(folder) == ["eof"]
    if number == 1:
        assert "its reader does not read; recognition goes on" in err
    else:
        assert sum(" -> " in line for line in out.splitlines()) == 300


def _has_end(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as journal:
            last = journal.execute("SELECT body FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        return False
    return last is not None and json.loads(last[0])["type"] == "end"


@pytest.mark.parametrize(("streams", "code"), [(">/dev/full", 1), (">&-", 1), ("2>&- >out", 0), ("| true", None)])
def test_a_summary_that_cannot_be_printed_is_an_error(run: tuple[Path, str], streams: str, code: int | None) -> None:
    folder, command = run
    done = shell(f"{command} --json {streams}", folder)
    assert ends(folder) == ["eof"]
    if code is not None:
        assert done.returncode == code
    if code == 1:
        assert "the result could not be printed to standard output" in done.stderr
    elif streams.endswith("out"):
        assert json.loads((folder / "out").read_text())["reason"] == "eof"
    else:
        assert "could not" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("models list .", "models list . --json", "procedure show a", "procedure check a", "doctor", "doctor --json"),
        *("cameras", "cameras --json", "fuse left=l right=r", "fuse left=l right=r --json"),
    ],
)
@pytest.mark.parametrize("streams", [">/dev/full", slow(">&-")])
def test_a_command_whose_only_result_is_lost_fails(tmp_path: Path, bundle: Path, command: str, streams: str) -> None:
    shutil.copytree(bundle, tmp_path / "a")
    procedure = learn_procedure([np.repeat([0, 1, 2], 20)] * 8, LABELS, 10.0)
    (tmp_path / "a" / "procedure.json").write_text(json.dumps(procedure.to_dict()))
    keep(tmp_path / "l", 1, 1.5)
    keep(tmp_path / "r", 2, 0.5)
    done = shell(f"{EDGE_HAL} {command} {streams}", tmp_path)
    assert done.returncode == 1
    assert "the result could not be printed to standard output" in " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def recording(run: tuple[Path, str]) -> str:
    folder, command = run
    shell(f"{command} --record recording >/dev/null 2>&1", folder)
    assert ends(folder) == ["eof"]
    return "recording"


@pytest.mark.parametrize("streams", [">/dev/full", *map(slow, (">&-", "2>&-", "2>/dev/full", "| true"))])
def test_a_replay_compares_all_events(run: tuple[Path, str], recording: str, streams: str) -> None:
    folder, command = run
    bundle = command.split("--bundle ")[1].split()[0]
    done = shell(f"( {EDGE_HAL} replay {recording} --bundle {bundle}; echo code $? >code ) {streams}", folder)
    assert (folder / "code").read_text() == "code 0\n"
    if "2>" not in streams:
        assert "events, all as recorded" in done.stderr


@pytest.mark.parametrize(("streams", "code"), [(">/dev/full", 1), (">&-", 1), ("| head -1", 0)])
def test_listen_ends_when_its_output_cannot_be_written_and_keeps_its_place(
    run: tuple[Path, str], streams: str, code: int, tmp_path: Path
) -> None:
    """An event that was not written is not acknowledged: the next call prints it."""
    folder, command = run
    address = f"ipc://{tmp_path}/s"
    publish = f"{command.replace('tcp://127.0.0.1:*', address)} --wait-subscribers 1 >/dev/null 2>&1"
    listen = f"{EDGE_HAL} listen --connect {address} --cursor {tmp_path}/place"
    done = shell(f"{publish} & ( {listen}; echo code $? >{tmp_path}/code ) {streams}; wait", folder)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "code").read_text() == f"code {code}\n"
    seen = len(done.stdout.splitlines())
    assert seen == ("head" in streams)
    place = tmp_path / "place"
    if "head" not in streams:
        assert not place.exists()  # nothing was printed
        assert "standard output" in done.stderr
    assert ends(folder) == ["eof"]


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", ">/dev/full 2>&1"])
def test_training_and_export_go_on_without_their_streams(tmp_path: Path, streams: str) -> None:
    write_small_data(tmp_path / "data")
    for command in (
        f"train data --out run --config {CONFIG}",
        "export --ckpt run --out bundle",
        "eval data --ckpt run 2>&1 >scores" if ">&- 2" in streams else "export --ckpt run --out again",
    ):
        done = shell(f"{EDGE_HAL} {command} {streams}", tmp_path)
        assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "bundle" / "certificate.json").exists()


def test_a_stream_that_has_no_such_character_escapes_it(run: tuple[Path, str], tmp_path: Path) -> None:
    folder, command = run
    done = shell(f"PYTHONIOENCODING=ascii {command} --stream k\u00fcche >{tmp_path}/out", folder)
    assert done.returncode == 0, done.stderr
    assert ends(folder) == ["eof"]
    assert "[k\\xfcche]" in (tmp_path / "out").read_text()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 30_000)), min_size=1, max_size=40))
def test_what_a_slow_reader_gets_is_whole_lines_in_order(steps: list[tuple[int, int]]) -> None:
    """A line is written whole or left out, whatever is read in between."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    output = Output(writing)
    output.waits = False
    received = b""
    try:
        for number, (size, read) in enumerate(steps):
            line = f"{number} ".encode().ljust(size + 8, b".") + b"\n"
            assert output.write(line) == len(line)
            if read:
                with contextlib.suppress(BlockingIOError):
                    received += os.read(reading, read)
        while True:
            output.write(b"")  # the rest of a line that has begun
            try:
                received += os.read(reading, 1 << 20)
            except BlockingIOError:
                break
    finally:
        os.close(reading)
    lines = received.split(b"\n")
    assert lines.pop() == b""
    numbers = []
    for line in lines:
        number = int(line.split()[0])
        assert len(line) == max(steps[number][0] + 8, len(f"{number} "))
        numbers.append(number)
    assert numbers == sorted(set(numbers))
    # A failure is also noted if the rest of a line had to wait, and was written later.
    assert len(numbers) == len(steps) or output.failure is not None
    output.write(b"nobody reads this")
    os.close(writing)
