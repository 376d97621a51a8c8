"""Rules that lists of steps keep, and what lists with a mistake say of them.

A list with one mistake breaks the rules of that mistake: those of one step, or of steps that share a rule. If it breaks
other rules too, which have no step in common with these, one of both is no rule: it held in the other lists by chance.
If it breaks one rule only, or only rules of the same two steps, these are the mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, order=True)
class Candidate:
    """A rule that may be stored, strict with probability `chance`.

    Attributes:
        breaks: how often right work of the same amount would break it, by expectation.
        field: where `Rules` stores it, for `step`. `other`: the second step of `requires` and `not_after`.
    """

    breaks: float
    chance: float
    field: Literal["optional", "repeatable", "requires", "not_after"]
    step: int
    other: int = -1

    @property
    def steps(self) -> frozenset[int]:
        return frozenset({self.step} if self.other < 0 else {self.step, self.other})

    def broken_by(self, cycle: Sequence[int]) -> bool:
        """Whether the steps of one cycle break it."""
        if self.field == "optional":
            return self.step not in cycle
        if self.field == "repeatable":
            return cycle.count(self.step) > 1
        if not self.steps.issubset(cycle):
            return False
        if self.field == "requires":
            return cycle.index(self.step) < cycle.index(self.other)
        last = len(cycle) - 1 - cycle[::-1].index(self.step)
        return last > cycle.index(self.other)


def judged_by_mistakes(rules: Sequence[Candidate], mistakes: Sequence[Sequence[int]]) -> list[Candidate]:
    """The rules without those that probably hold by chance. `breaks` is 0 for a rule that a mistake breaks alone, or
    only with others of the same steps: right work does not break it.

    Of rules that a cycle breaks and that have no step in common, the surest are taken for its mistake: those that some
    cycle breaks alone, then those that are broken least often, by expectation. The others are left out.

    Args:
        mistakes: the steps of cycles with one mistake each.
    """
    broken = [[rule for rule in rules if rule.broken_by(cycle)] for cycle in mistakes]
    alone = {rule for found in broken if len({rule.steps for rule in found}) == 1 for rule in found}
    doubted = set[Candidate]()
    for found in broken:
        groups = _connected(found)
        mistake = min(groups, key=lambda group: min((rule not in alone, rule) for rule in group), default=[])
        doubted.update(rule for group in groups if group is not mistake for rule in group)
    return [
        replace(rule, breaks=0.0) if rule in alone else rule for rule in rules if rule in alone or rule not in doubted
    ]


def _connected(rules: Sequence[Candidate]) -> list[list[Candidate]]:
    """The rules in groups. Rules that have a step in common are in one group."""
    groups: list[list[Candidate]] = []
    for rule in rules:
        touching = [group for group in groups if any(rule.steps & other.steps for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([rule, *(other for group in touching for other in group)])
    return groups
