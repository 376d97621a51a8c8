"""Habits of writing that make other steps out of a step list than its author meant: numbers, bullets, comments, tables.

Nothing is repaired here: a name may have such signs on purpose, and labels and models know steps by their names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from .step_texts import count_of

BEFORE = re.compile(r"(?:[(\[]?\d+\s*[.):\]]|[-*+•–☐☑☒✓✔]\s*(?:\[[ xX]?\])?)\s*")
"""The number, bullet or box of a line."""
NUMBER = re.compile(r"(?:step\s*)?[(\[]?(\d+)[.):\]_-]*\s*", re.IGNORECASE)
"""The number of a line in a list whose lines are counted."""
COLUMNS = re.compile(r"[;\t|]|->|→|=>|(?:,\s*[\d.:]+){2}|^\d+:\d\d")
"""What separates the columns of a table, or a time."""
SIGNS = " \t.,;:!\"'`“”„‘’‚«»"
"""Signs before and after a name that do not count."""
SHOWN = 5


def doubtful(lists: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do.

    Args:
        lists: the names of the steps of each video, in order.
    """
    names = sorted({name for steps in lists.values() for name in steps})
    groups: dict[str, list[str]] = {}
    counted = {name: bare for steps in lists.values() for name, bare in _without_count(steps).items()}
    for name in names:
        groups.setdefault(plain(counted.get(name, name)), []).append(name)
    alike = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if alike:
        more = f"; and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
        what = f"names that differ only in how they are written count as different steps: {'; '.join(alike[:SHOWN])}"
        yield what + more, "write a step alike in every list, without a number, a bullet or a sign around its name"
    comments = [repr(name) for name in names if name.startswith(("#", "//"))]
    if comments:
        yield f"{count_of(comments, 'line')} of step lists count as steps: lists have no comments", "remove them"
    tables = [repr(name) for name in names if COLUMNS.search(name)]
    tables += [repr(steps[0]) for steps in lists.values() if len(steps) == 1 and "," in steps[0].rstrip(",")]
    if tables:
        what = f"{count_of(tables, 'line')} of step lists may hold several steps or columns, and count as one step each"
        yield what, "write one step a line, and nothing else; times belong in labels/ (docs/labels.md)"


def _without_count(steps: Sequence[str]) -> dict[str, str]:
    """The names without their numbers, if the lines of this list are counted, from 0 or 1; else nothing. In another
    list a number is a part of the name: 2 screws."""
    found = [NUMBER.match(step) for step in steps]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) < max(2, len(steps)) or numbers not in (list(range(len(steps))), list(range(1, len(steps) + 1))):
        return {}
    return {step: step[match.end() :] or step for step, match in zip(steps, found, strict=True) if match}


def plain(name: str) -> str:
    """The name without what habits and editors add to it. Names that have nothing else stay different."""
    seen = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    bare = BEFORE.sub("", seen, count=1) if BEFORE.match(seen) else seen
    bare = " ".join(re.split(r"[\s_\-‐-―]+", bare.casefold().strip(SIGNS)))
    return bare or name
