"""The wheels that pip takes on an aarch64 machine, found from this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest needs tomli
    import tomli as tomllib

from tests.helpers.processes import REPOSITORY

GLIBC_MINOR = {"3.10": 35, "3.11": 36, "3.12": 39}
"""Ubuntu 22.04 (JetPack 6), Debian 12, Ubuntu 24.04 (JetPack 7): the newest glibc 2.x that a wheel may ask for."""
CONSTRAINTS_310 = REPOSITORY / "constraints-310.txt"


def requirements(*extras: str) -> list[str]:
    """What edge-hal and its extras need on aarch64, as pyproject.toml says it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    found = map(Requirement, texts)
    here = {"platform_machine": "aarch64"}
    return [str(one).partition(";")[0].strip() for one in found if one.marker is None or one.marker.evaluate(here)]


def pip_install(
    python: str, target: Path, packages: Sequence[str], constraints: Path | None = None, *more: str
) -> subprocess.CompletedProcess[str]:
    """`pip install --target` of wheels for aarch64 and this version of Python."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC_MINOR[python] + 1)]
    options = [option for name in (*platforms, "manylinux2014_aarch64") for option in ("--platform", name)]
    options += ["--python-version", python, "--only-binary=:all:", "--disable-pip-version-check", "-q"]
    options += ["-c", str(constraints)] if constraints else []
    command = [sys.executable, "-m", "pip", "install", "--target", str(target), *options, *more, *packages]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
