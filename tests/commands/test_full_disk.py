"""A disk that fills: the usual error, nothing half-written, and the same command goes on. Real small file systems."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.files import replacing
from tests.helpers.bundles import vectors
from tests.helpers.processes import call
from tests.helpers.small_data import CONFIG, write_small_data


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_recording_that_fills_the_disk_replays_up_to_there(disk: Path, tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "f.npy", vectors(np.repeat(np.arange(300) % 3, 8).tolist()))
    run = ("run", "--bundle", str(bundle), "--camera", f"features:{tmp_path}/f.npy@10", "--pace", "asap")
    code, _, err = call(*run, "--pub", "tcp://127.0.0.1:*", "--record", str(disk / "recording"))
    assert code == 0, err
    assert "the recording ends here, the run goes on: No space left on device" in err
    code, out, err = call("replay", str(disk / "recording"), "--bundle", str(bundle))
    assert code == 0, err
    assert "events, all as recorded" in err and " -> " in out


@pytest.mark.slow
def test_a_training_that_fills_the_disk_goes_on_with_the_same_command(disk: Path, tmp_path: Path) -> None:
    write_small_data(tmp_path / "data")
    train = ("train", str(tmp_path / "data"), "--config", str(CONFIG), "--out")
    assert call(*train, str(tmp_path / "run"))[0] == 0
    code, _, err = call(*train, str(disk / "run"))
    assert code == 1 and "Traceback" not in err
    assert "the disk is full" in err and "run the same command again" in err
    assert not [path for path in disk.rglob("*") if "partial" in path.name]
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    code, _, err = call(*train, str(disk / "run"))
    assert code == 0, err
    model = (disk / "run" / "model.safetensors").read_bytes()
    assert model == (tmp_path / "run" / "model.safetensors").read_bytes()
    used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
    subprocess.run(["mount", "-o", f"remount,size={used // 1024 + 80}k", str(disk)], check=True)
    code, _, err = call("export", "--ckpt", str(disk / "run"), "--out", str(disk / "bundle"))
    assert code == 1 and "Traceback" not in err and "the disk is full" in err
    assert [path.name for path in disk.iterdir()] == ["run"]


@pytest.mark.parametrize("limit", [0, 1, 200, 30_000, 80_000])
def test_an_array_that_finds_no_room_leaves_the_old_file(tmp_path: Path, limit: int) -> None:
    """RLIMIT_FSIZE fails a write at a chosen byte, in a process of its own."""
    old = tmp_path / "x.npz"
    np.savez(old, x=np.zeros(3))
    before = old.read_bytes()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with replacing(old, todo="again") as beside:
                np.savez(beside, x=np.arange(10_000.0), y=np.arange(50.0))
            os.write(writing, b"written")
        except EdgeHalError as error:
            os.write(writing, str(error).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(child, 0)
    assert text == f"cannot write {old}: the largest file size is reached\n  -> make room; again"
    assert old.read_bytes() == before and list(tmp_path.iterdir()) == [old]
