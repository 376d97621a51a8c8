"""What pip installs: every module once, the configs and the type marker, and nothing of the repository around them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.processes import REPOSITORY

PAPERS = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
FOLDERS = ("edge_hal", "runtime", "export", "calib", "configs", "tests")
MADE_BY_SETUPTOOLS = ("PKG-INFO", "setup.cfg", "edge_hal.egg-info/")

BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""
IMPORT = """
import pkgutil, sys
for name in ("torch", "onnx", "edge_hal.learning", "edge_hal.model", "edge_hal.export"):
    sys.modules[name] = None
import edge_hal, edge_hal.runtime
from edge_hal.config import load_config
names = [module.name for module in pkgutil.walk_packages(edge_hal.runtime.__path__, "edge_hal.runtime.")]
for name in names:
    __import__(name)
load_config("tiny")
print(edge_hal.__file__, *names, sep="\\n")
"""


@dataclass(frozen=True)
class Built:
    """The two archives, and the wheel that the unpacked sdist makes."""

    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


def build(kind: str, source: Path, out: Path) -> Path:
    """Without pip, hence without a network: the setuptools of this Python builds."""
    subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(out)], cwd=source, check=True, capture_output=True
    )
    [archive] = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("built")
    source = root / "source"
    source.mkdir()
    for name in PAPERS:
        shutil.copy(REPOSITORY / name, source)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
    sdist = build("sdist", source, root / "sdist")
    with tarfile.open(sdist) as packed:
        packed.extractall(root / "unpacked")
    [unpacked] = (root / "unpacked").iterdir()
    return Built(sdist, build("wheel", source, root / "wheel"), build("wheel", unpacked, root / "again"))


def package_files() -> list[str]:
    """Modules, the type marker and configs, each under the one name that it is imported by."""
    found = []
    for folder, folders, names in os.walk(REPOSITORY / "edge_hal", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [(Path(folder) / name).relative_to(REPOSITORY).as_posix() for name in names]
    return sorted(found)


def wheel_files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as packed:
        return sorted(name for name in packed.namelist() if ".dist-info/" not in name)


def test_a_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    expected = package_files()
    assert {"edge_hal/py.typed", "edge_hal/configs/tiny.yaml", "edge_hal/runtime/runner.py"} <= {*expected}
    assert wheel_files(built.wheel) == expected
    with zipfile.ZipFile(built.wheel) as packed:
        links = [entry.filename for entry in packed.infolist() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
        same = all(packed.read(name) == (REPOSITORY / name).read_bytes() for name in expected)
    assert links == [] and same


def test_an_sdist_holds_what_a_wheel_is_made_of_and_nothing_else(built: Built) -> None:
    with tarfile.open(built.sdist) as packed:
        members = packed.getmembers()
    names = [member.name.partition("/")[2] for member in members if not member.isdir()]
    assert all(member.isdir() or member.isfile() for member in members)  # a link would point outside the archive
    assert len(names) == len({*names})
    assert sorted(n for n in names if not n.startswith(MADE_BY_SETUPTOOLS)) == sorted([*PAPERS, *package_files()])
    assert wheel_files(built.wheel_of_sdist) == wheel_files(built.wheel)


def test_an_installed_wheel_runs_without_torch(built: Built, tmp_path: Path) -> None:
    """In a venv of its own; what it depends on is borrowed from here, behind what is installed there."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(built.wheel)], check=True, cwd=tmp_path)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    ran = subprocess.run([python, "-I", "-c", IMPORT], cwd=tmp_path, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    where, *imported = ran.stdout.split()
    assert Path(where).is_relative_to(site)
    assert {"edge_hal.runtime.runner", "edge_hal.runtime.delivery.client"} <= {*imported}
    help_text = subprocess.run([python, "-I", python.parent / "edge-hal", "--help"], text=True, capture_output=True)
    assert help_text.returncode == 0 and "listen" in help_text.stdout, help_text.stderr
