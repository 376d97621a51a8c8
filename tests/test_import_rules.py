"""Imports between packages follow the table in docs/architecture.md, and the packages form no cycle."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.processes import REPOSITORY

LEAVES = {"jetson", "stop", "threads"}
BASE = {"observer", "options"}
"""Modules of runtime/ that its packages use; leaves import no package. The others (session, runner, ...) use the
packages."""
SHARED = {"bundle", "config", "events", "files", "metrics", "parallel", "pictures"}
"""Folders of edge_hal/ that belong to the modules that all packages share."""

MAY_IMPORT: dict[str, set[str]] = {
    "edge_hal": {
        "media",
        "procedure",
        "decoding",
        "commands",
        "runtime",
        "runtime leaves",
        "runtime/delivery",
    },  # cli.py, __main__.py and the lazy names of __init__.py
    "media": {"edge_hal"},
    "procedure": {"edge_hal"},
    "decoding": {"edge_hal", "procedure"},
    "reports": {"edge_hal"},
    "workbench": {"edge_hal"},
    "model": {"edge_hal", "decoding"},
    "learning/data": {"edge_hal", "media"},
    "learning/hmm": {"edge_hal", "model", "learning/data"},
    "learning/networks": {"edge_hal", "model", "learning/data", "learning/hmm"},
    "learning/encoders": {"edge_hal", "model", "learning/data", "learning/networks", "export"},
    "learning": {
        *("edge_hal", "decoding", "model", "learning/data", "learning/hmm", "learning/networks", "learning/encoders"),
        *("calib", "export"),
    },
    "runtime/sources": {"edge_hal", "media", "runtime leaves"},
    "runtime leaves": {"edge_hal"},
    "runtime/engines": {"edge_hal", "runtime leaves"},
    "runtime/stream": {"edge_hal", "procedure", "decoding", "runtime/sources", "runtime/engines"},
    "runtime/network": {"edge_hal", "runtime leaves"},
    "runtime/delivery": {"edge_hal", "runtime leaves", "runtime/stream", "runtime/network"},
    "runtime/bridges": {"edge_hal", "runtime leaves", "runtime/network", "runtime/delivery"},
    "runtime base": {"edge_hal", "runtime/sources", "runtime/network", "runtime/delivery", "runtime/stream"},
    "runtime/recording": {
        *("edge_hal", "decoding", "media", "runtime leaves", "runtime base", "runtime/sources", "runtime/stream"),
        "runtime/delivery",
    },
    "runtime/checks": {
        *("edge_hal", "runtime leaves", "runtime base"),
        *("runtime/stream", "runtime/engines", "runtime/network", "runtime/delivery"),
    },
    "runtime": {
        *("edge_hal", "decoding", "media", "runtime leaves", "runtime base", "runtime/sources", "runtime/stream"),
        *("runtime/engines", "runtime/recording", "runtime/network", "runtime/delivery", "runtime/checks"),
    },
    "web": {
        *("edge_hal", "procedure", "media", "learning/data", "learning/hmm"),
        *("runtime leaves", "runtime/network", "runtime/delivery", "runtime/recording"),
    },
    "runtime/station": {
        *("edge_hal", "decoding", "runtime", "runtime leaves", "runtime base", "runtime/network"),
        *("runtime/delivery", "runtime/sources", "runtime/stream", "runtime/engines"),
    },
    "calib": {"edge_hal", "procedure", "decoding", "runtime/engines", "runtime/stream"},
    "export": {"edge_hal", "decoding", "model", "calib", "runtime/engines", "runtime/stream"},
}
"""`commands`, `evaluation` and what comes above them may import everything."""


def module_of(path: Path) -> list[str]:
    parts = [part for part in path.with_suffix("").parts if part != "__init__"]
    return ["edge_hal", *parts] if parts[0] in ("runtime", "export", "calib") else parts


def package_of(module: list[str]) -> str:
    inside = module[1:]
    if len(inside) >= 2 and inside[0] in ("runtime", "learning"):
        if (REPOSITORY / "edge_hal" / inside[0] / inside[1]).is_dir():
            return "/".join(inside[:2])
        if inside[0] == "runtime" and inside[1] in LEAVES | BASE:
            return "runtime leaves" if inside[1] in LEAVES else "runtime base"
        return inside[0]
    if not inside or inside[0] in SHARED or not (REPOSITORY / "edge_hal" / inside[0]).is_dir():
        return "edge_hal"
    return inside[0]


def imports_of(path: Path) -> Iterator[list[str]]:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            found = start + (node.module.split(".") if node.module else [])
            # `from edge_hal.runtime import jetson` imports a module.
            yield from ([*found, name.name] for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".") for name in node.names)


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "edge_hal/*.py", "runtime/*.py", "export/*.py", "calib/*.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if (REPOSITORY / line).is_file()]


def test_imports_between_rooms_are_those_of_the_table() -> None:
    wrong = []
    for path in sources():
        package = package_of(module_of(path))
        for imported in imports_of(path):
            if imported[0] != "edge_hal" or package not in MAY_IMPORT:
                continue
            other = package_of(imported)
            if other != package and other not in MAY_IMPORT[package]:
                wrong.append(f"{path} ({package}) imports {'.'.join(imported)} ({other})")
    assert wrong == []


def test_nothing_imports_the_web_room_but_its_commands() -> None:
    found = [
        str(path)
        for path in sources()
        for imported in imports_of(path)
        if imported[:2] == ["edge_hal", "web"] and package_of(module_of(path)) != "web"
    ]
    assert set(found) <= {f"edge_hal/commands/{name}.py" for name in ("correct", "options/page", "view")}


def test_the_runtime_and_the_numpy_rooms_name_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "onnxscript", "matplotlib", "safetensors"}
    light = re.compile(r"runtime|procedure|decoding|media|reports|edge_hal$")
    found = [
        f"{path} imports {'.'.join(imported)}"
        for path in sources()
        for imported in imports_of(path)
        if imported[0] in heavy and light.match(package_of(module_of(path))) and path.name != "plotting.py"
    ]
    assert found == []


def test_the_table_of_rooms_has_no_cycle_below_the_package() -> None:
    order: list[str] = []
    packages = {package: others - {"edge_hal"} for package, others in MAY_IMPORT.items() if package != "edge_hal"}
    while packages:
        free = sorted(package for package, others in packages.items() if not others & packages.keys() - {package})
        assert free, f"a cycle among {sorted(packages)}"
        order += free
        for package in free:
            del packages[package]
