"""pip finds a wheel of everything that a Jetson needs; only pycuda is built there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.portability.wheels import CONSTRAINTS_310, pip_install, requirements

UNREACHABLE = ("NewConnectionError", "Temporary failure in name resolution", "Read timed out", "ProxyError")


def resolved(python: str, folder: Path, packages: list[str], constraints: Path | None) -> dict[str, str]:
    """Name and version of each wheel that pip would install. Nothing is installed."""
    report = folder / "report.json"
    more = ("--dry-run", "--ignore-installed", "--report", str(report))
    done = pip_install(python, folder / "unused", packages, constraints, *more)
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    chosen = json.loads(report.read_text())["install"]
    assert all(one["download_info"]["url"].endswith(".whl") for one in chosen)
    return {one["metadata"]["name"].lower().replace("_", "-"): one["metadata"]["version"] for one in chosen}


@pytest.mark.slow
@pytest.mark.parametrize(("python", "constraints"), [("3.10", CONSTRAINTS_310), ("3.10", None), ("3.12", None)])
def test_base_camera_and_metrics_resolve_for_aarch64(tmp_path: Path, python: str, constraints: Path | None) -> None:
    packages = requirements("camera", "metrics")
    found = resolved(python, tmp_path, packages, constraints)
    assert {Requirement(text).name.lower() for text in packages} <= {*found, "pyyaml"}
    if constraints is not None:
        assert found["numpy"].startswith("1.26.") and found["opencv-python-headless"].startswith("4.8.")


@pytest.mark.slow
@pytest.mark.parametrize(("python", "constraints"), [("3.10", CONSTRAINTS_310), ("3.12", None)])
def test_the_tensorrt_extra_resolves_for_aarch64_but_for_pycuda(
    tmp_path: Path, python: str, constraints: Path | None
) -> None:
    packages = [text for text in requirements("tensorrt") if not text.startswith("pycuda")]
    assert not any(text.startswith("tensorrt") for text in packages)  # JetPack's own is used
    assert "cuda-bindings" in resolved(python, tmp_path, packages, constraints)
    pycuda = pip_install(python, tmp_path / "unused", ["pycuda"], None, "--dry-run")
    assert "No matching distribution found for pycuda" in pycuda.stderr


def test_versions_for_python_310_cover_what_a_jetson_installs() -> None:
    """A package that pyproject.toml names has its version in the file, except those that JetPack brings or builds."""
    pinned = {Requirement(line).name.lower() for line in CONSTRAINTS_310.read_text().splitlines() if line[0] != "#"}
    needed = {Requirement(text).name.lower() for text in requirements("camera", "metrics", "tensorrt")}
    assert needed - pinned <= {"pycuda"}
