"""Which events of a journal, or pieces of a recording, are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_hal.errors import EdgeHalError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
UNITS_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Retention:
    """Which events are kept: those younger than `age_s`, while the journal is smaller than `size_bytes`. The newest
    event is always kept."""

    age_s: float = 30 * 86400.0
    size_bytes: int = 10**9

    @classmethod
    def parse(cls, text: str, option: str = "--retention") -> Retention:
        """`30d`, `500MB` or `30d,500MB`. Raises EdgeHalError (exit code 2) for anything else."""
        found = cls(float("inf"), 2**63)
        for part in text.split(","):
            match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([a-zA-Z]{1,2})", part.strip())
            if match and float(match[1]) > 0 and match[2] in UNITS_S:
                found = cls(float(match[1]) * UNITS_S[match[2]], found.size_bytes)
            elif match and float(match[1]) > 0 and match[2] in UNITS_BYTES:
                found = cls(found.age_s, round(float(match[1]) * UNITS_BYTES[match[2]]))
            else:
                units = ", ".join([*UNITS_S, *UNITS_BYTES])
                why = f"'{part}' is neither an age nor a size (units: {units})"
                raise EdgeHalError(f"{option} {text}", why, f"write {option} 30d,1GB", exit_code=2)
        return found
