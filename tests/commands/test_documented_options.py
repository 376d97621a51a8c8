"""The pages in docs/ name every option of every command, and the fields of what users edit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from typer.main import get_command

from edge_hal import cli
from edge_hal.procedure.rules import Step

ROOT = Path(__file__).resolve().parents[2]


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, each in command.commands.items():
        yield from commands(each, f"{name} {part}".strip())


def test_every_option_is_named_on_a_page() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    named = set(re.findall(r"--[a-z0-9-]*[a-z0-9]", text))
    options = {
        f"{name} {option}": option
        for name, command in commands(get_command(cli.app))
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert len(options) > 100
    assert [shown for shown, option in options.items() if option not in named] == []


def test_the_page_of_the_procedure_has_every_field_of_a_step() -> None:
    page = (ROOT / "docs" / "procedure.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("## Fields of a step")[2].partition("\n## ")[0], re.MULTILINE)
    named = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(field.name for field in fields(Step))
