"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
NOTHING = "nothing"


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    `check`: what was looked at. `state`: `ok`; `warn` where something works less well or only a part works; `fail`
    where a run would not work. `todo`: what to do next, `nothing` where all is well.
    """

    check: str
    state: State
    found: str
    todo: str = NOTHING
