"""What is wrong with the data of a procedure, with the place of each fault, so that a file can be corrected by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_hal.spec_limits import CONTROL, LARGEST_LABELS, LONGEST_LABEL

from .json_lines import Path, lines_of, parse_edited

NUMBERS = {
    "first": (0.0, 1.0),
    "share": (0.0, 1.0),
    "median_s": (1e-3, 1e5),
    "spread": (1.0, 1e3),
    "overdue_s": (1e-3, 1e6),
    "doubt_s": (1e-3, 1e6),
    "shortest_s": (0.0, 600.0),
    "least_confidence": (0.0, 1.0),
}
"""Each number of a step, and the limits that it must lie in."""
FLAGS = ("optional", "repeatable", "begins_cycle", "ends_cycle", "background")
CHANCES = ("then", "requires", "not_after")
NEEDED = ("first", "share", "median_s", "spread", "then")
"""What every step has. Files of 0.1 and 0.2 have nothing else."""


@dataclass(frozen=True)
class Problem:
    """One fault. `path`: the keys that lead to it, the name of the step first. `line`: in the file, if there is one."""

    path: Path
    why: str
    line: int | None = None

    @property
    def where(self) -> str:
        """The step it is in, or the whole."""
        return f"step '{str(self.path[0])[:LONGEST_LABEL]}'" if self.path else "the procedure"


def check_text(text: str, labels: Collection[str] | None = None) -> tuple[dict[str, Any], list[Problem]]:
    """The data of a text, and all faults with their lines, in the order of the lines.

    Args:
        labels: the names that the steps must have; by default any that a step list may hold.

    Raises:
        ValueError: it is no JSON; see `parse_edited`.
    """
    data = parse_edited(text)
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    lines, twice = lines_of(text)
    found = [Problem(path, f"'{path[-1]}' occurs twice", line) for path, line in twice]
    for problem in [*check_data(data, labels), *(_check_names(data) if labels is None else ())]:
        path = problem.path
        while path not in lines and path:
            path = path[:-1]
        found.append(Problem(problem.path, problem.why, lines.get(path)))
    return data, sorted(found, key=lambda problem: problem.line or 0)


def check_data(data: Mapping[str, Any], labels: Collection[str] | None = None) -> list[Problem]:
    """All faults of data as `Procedure.to_dict` gives them. Orders that contradict each other are looked for only if
    there is no other fault."""
    if not data:
        return [Problem((), "it has no step")]
    found = [problem for name, step in data.items() for problem in _check_step(name, step, data)]
    if labels is not None:
        found += [Problem((name,), f"'{name}' is no step of the model") for name in sorted(set(data) - set(labels))]
        found += [Problem((), f"the model's step '{name}' is missing") for name in sorted(set(labels) - set(data))]
    return found or list(_check_order(data))


def unused_fields(text: str, data: Mapping[str, Any]) -> list[Problem]:
    """What a procedure without fault says in vain. The background is no step, so no rule of steps holds for it."""
    lines, _ = lines_of(text)
    return [
        Problem((name, field), f"{field} has no effect on the background", lines.get((name, field)))
        for name, step in data.items()
        for field, says_nothing in (("overdue_s", None), ("optional", True), ("repeatable", True))
        if step.get("background", False) and step.get(field, says_nothing) != says_nothing
    ]


def _check_names(names: Collection[str]) -> Iterator[Problem]:
    """Names that no step list can have. The names of a model are not checked again: a file must have them."""
    if len(names) > LARGEST_LABELS:
        yield Problem((), f"it has {len(names)} steps, a model has at most {LARGEST_LABELS}")
    for name in names:
        odd = CONTROL.search(name)
        if not name.strip():
            yield Problem((name,), "the name of a step is empty")
        elif len(name) > LONGEST_LABEL:
            yield Problem((name,), f"its name has {len(name)} characters, at most {LONGEST_LABEL} are possible")
        elif odd is not None:
            yield Problem((name,), f"its name has the control character {odd[0]!r}")
        elif name.splitlines() != [name]:
            yield Problem((name,), "its name has more than one line")


def _check_step(name: str, step: Any, steps: Mapping[str, Any]) -> Iterator[Problem]:
    if not isinstance(step, Mapping):
        yield Problem((name,), f"a step of the procedure is an object, not {step!r:.40}")
        return
    known = (*NUMBERS, *FLAGS, *CHANCES)
    for field in NEEDED:
        if field not in step:
            yield Problem((name,), f"{field} is missing")
    for field, value in step.items():
        here = (name, field)
        if field not in known:
            yield Problem(here, f"'{field}' is no field of a step; known: {', '.join(known)}")
        elif field in FLAGS:
            if not isinstance(value, bool):
                yield Problem(here, f"{field} is {value!r:.40}, it must be true or false")
        elif field in NUMBERS:
            low, high = NUMBERS[field]
            if not (_number(value, low, high) or (field in ("overdue_s", "doubt_s") and value is None)):
                yield Problem(here, f"{field} is {_short(value)}, it must lie in {low:g}..{high:g}")
        elif not isinstance(value, Mapping):
            yield Problem(here, f"{field} of a step of the procedure is an object of names and chances")
        else:
            for to, chance in value.items():
                if to not in steps:
                    yield Problem((*here, to), f"{field}: '{to}' is no step of the procedure")
                elif not _number(chance, 0, 1):
                    yield Problem((*here, to), f"{field}: '{to}' has the chance {_short(chance)}, not one in 0..1")
                elif field != "then" and to == name:
                    yield Problem((*here, to), f"{field}: '{to}' names itself")


def _check_order(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Contradictions between steps whose fields are all well formed."""
    for name, step in data.items():
        needs, closed = step.get("requires", {}), step.get("not_after", {})
        if step.get("background", False):
            given = [field for field in ("requires", "not_after", "begins_cycle", "ends_cycle") if step.get(field)]
            if given:
                yield Problem((name, given[0]), f"the background cannot have '{given[0]}'")
        if step.get("begins_cycle", False) and any(not data[to].get("optional", True) for to in needs):
            yield Problem((name, "requires"), "requires: a step that begins a cycle has none before it")
        for field, others in (("requires", needs), ("not_after", closed)):
            for to in others:
                if data[to].get("background", False):
                    yield Problem((name, field, to), f"{field}: '{to}' is background, which has no order")
        for to in sorted(set(needs) & set(closed)):
            yield Problem((name, "not_after", to), f"not_after: '{to}' is also required before it")
    ring = find_ring({name: list(step.get("requires", {})) for name, step in data.items()})
    if ring:
        why = "requires: these steps must come before each other: " + " -> ".join(f"'{name}'" for name in ring)
        yield Problem((ring[0], "requires", ring[1]), why)


def find_ring(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Names that lead back to the first of them, which is also the last; empty if there is no such ring."""
    done: set[str] = set()
    for start in needs:
        path, stack = [start], [iter(needs[start])]
        while stack:
            to = next(stack[-1], None)
            if to is None:
                done.add(path.pop())
                stack.pop()
            elif to in path:
                return [*path[path.index(to) :], to]
            elif to not in done:
                path.append(to)
                stack.append(iter(needs[to]))
    return []


def _number(value: object, low: float, high: float) -> bool:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return known and low <= value <= high  # type: ignore[operator]


def _short(value: object) -> str:
    try:
        return f"{value!r:.40}"
    except ValueError:  # a whole number that Python refuses to print
        return "too large"
