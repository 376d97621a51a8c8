"""The pages in docs/ name the fields of what users edit."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from edge_hal.procedure.rules import Step

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_the_procedure_has_every_field_of_a_step() -> None:
    page = (ROOT / "docs" / "procedure.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("## Fields of a step")[2].partition("\n## ")[0], re.MULTILINE)
    named = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(field.name for field in fields(Step))
