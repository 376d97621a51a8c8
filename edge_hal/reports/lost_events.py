"""How many events no journal of a stream holds, where several journals may be copies of each other."""

from __future__ import annotations

from dataclasses import dataclass, field

Ranges = dict[str, list[tuple[int, int]]]
"""{session: numbers of events, first and last}"""


@dataclass
class LostEvents:
    """Numbers are given by a journal, so an event is known by its number and its session. Ranges are kept in place of
    numbers, because a damaged journal may lack any number of events."""

    held: Ranges = field(default_factory=dict)
    missing: Ranges = field(default_factory=dict)

    def hold(self, session: str, seq: int) -> None:
        ranges = self.held.setdefault(session, [])
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = ranges[-1][0], seq
        else:
            ranges.append((seq, seq))

    def miss(self, session: str, first: int, last: int) -> None:
        """Args:
        session: of the event before them; that of the next one may be another.
        """
        self.missing.setdefault(session, []).append((first, last))

    def count(self) -> int:
        """The events that a journal lacks and no other one holds."""
        return sum(_only(ranges, self.held.get(session, [])) for session, ranges in self.missing.items())


def _only(missing: list[tuple[int, int]], held: list[tuple[int, int]]) -> int:
    """How many numbers are in `missing` and not in `held`; ranges may overlap."""
    edges = [edge for first, last in missing for edge in ((first, 1, 0), (last + 1, -1, 0))]
    edges += [edge for first, last in held for edge in ((first, 0, 1), (last + 1, 0, -1))]
    count = lacking = holding = before = 0
    for at, lacks, holds in sorted(edges):
        count += at - before if lacking and not holding else 0
        lacking, holding, before = lacking + lacks, holding + holds, at
    return count
