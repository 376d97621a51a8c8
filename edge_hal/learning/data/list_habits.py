"""Habits of writing that make other steps out of a step list than its author meant: numbers, bullets, comments, tables.

Nothing is repaired here: a name may have such signs on purpose, and labels and models know steps by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .step_texts import count_of

BEFORE = re.compile(r"(?:\d+\s*[.):]|[-*•–])\s*")
"""The number or bullet of a line."""
COLUMNS = re.compile(r"[;\t|]|->|→|=>")
SHOWN = 5


def doubtful(lists: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """What is wrong, and what to do.

    Args:
        lists: the names of the steps of each video, in order.
    """
    names = sorted({name for steps in lists.values() for name in steps})
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain(name), []).append(name)
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
    twice = [video for video, steps in lists.items() if any(a == b for a, b in pairwise(steps))]
    if twice:
        what = f"the step lists of {count_of(twice, 'video')} name a step twice in a row: no boundary can be seen there"
        yield what, "name it once; a file with a step for each frame belongs in labels/"


def plain(name: str) -> str:
    """The name without what habits add to it. Names that have nothing else stay different."""
    bare = BEFORE.sub("", name, count=1) if BEFORE.match(name) else name
    bare = " ".join(re.split(r"[\s_-]+", bare.casefold().strip(" \t.,;:!\"'")))
    return bare or name
