"""The procedure: what may follow what, what must come before what, and the distributions of the durations.

It is estimated from the aligned training videos (`calib/learn_procedure.py`) and stored as `procedure.json` in a
bundle. Users may edit the file, for example to forbid an order or to make a step longer. `first`, `share`, `median_s`,
`spread` and `then` lead the decoder; the other fields say what is reported as a deviation (`conformance.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular

from .check import CHANCES, NEEDED, NUMBERS, check_data, check_text

Array = NDArray[np.float64]

UNSEEN = 0.01
"""Probability that the next step is any step at random, because people do things in orders that no step list shows."""
BROAD = 0.1
"""Weight of a second distribution of durations that is more than twice as wide. A few examples do not bound
durations."""
LONGEST_SPREADS = 3.0
MAX_TICKS = 2048
LOWEST_SPREAD = 1.2
LEAST_SHARE = 0.25
"""Lower limit of the share of time of a step, relative to equal shares. Likelihoods are posteriors divided by shares,
so a step that never occurred would otherwise get a very large likelihood."""
LARGEST_INT = 1e9


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        first: probability that a recording begins with it.
        share: its share of the total time.
        median_s: median of its durations.
        spread: exp of the standard deviation of the log durations.
        then: probability of each step to be the next.
        requires: the steps that must come before the first occurrence of it in a cycle, and how sure that is. A step
            that comes after one that requires it is out of order. If it is missing there, it was skipped, unless it is
            optional.
        not_after: the steps after which it does not occur in a cycle, not even again, and how sure that is.
        optional: a cycle may be without it.
        repeatable: it may occur more than once in a cycle.
        begins_cycle, ends_cycle: a cycle begins, or ends, with it.
        background: no step, but what lies between steps. It breaks no order and belongs to no cycle.
        overdue_s: it is overdue when it has lasted so long; None for no limit.
        shortest_s, least_confidence: a shorter or less certain segment of it is taken for a wrong recognition and
            says nothing about the procedure.
        doubt_s: it is not called skipped if it was believed for so long in the cycle, in sum; None for no limit.
    """

    first: float
    share: float
    median_s: float
    spread: float
    then: Mapping[str, float]
    requires: Mapping[str, float] = field(default_factory=dict)
    not_after: Mapping[str, float] = field(default_factory=dict)
    optional: bool = True
    repeatable: bool = True
    begins_cycle: bool = False
    ends_cycle: bool = False
    background: bool = False
    overdue_s: float | None = None
    shortest_s: float = 0.0
    least_confidence: float = 0.0
    doubt_s: float | None = None

    def __post_init__(self) -> None:
        # 1 and 1.0 give the same decisions, so they must give the same fingerprint. `Procedure` refuses what is not a
        # number.
        for name in NUMBERS:
            if (
                isinstance(value := getattr(self, name), int)
                and not isinstance(value, bool)
                and abs(value) < LARGEST_INT
            ):
                object.__setattr__(self, name, float(value))
        for name in CHANCES:
            if isinstance(chances := getattr(self, name), Mapping):
                whole = {to: float(p) for to, p in chances.items() if type(p) is int and abs(p) < LARGEST_INT}
                object.__setattr__(self, name, {**chances, **whole})

    def to_dict(self) -> dict[str, Any]:
        """Without the fields that have their default and that files of 0.1 do not have, so that the fingerprint of
        such a file stays the same."""
        full = {**asdict(self), **{name: dict(getattr(self, name)) for name in CHANCES}}
        return {name: value for name, value in full.items() if name in NEEDED or value != DEFAULTS[name]}


DEFAULTS: dict[str, Any] = {
    each.name: {} if each.name in CHANCES else each.default for each in fields(Step) if each.name not in NEEDED
}


@dataclass(frozen=True)
class Tables:
    """Log probabilities of K labels, with durations of 1 .. D ticks.

    Attributes:
        duration, survival: (K, D) a segment lasts exactly d ticks, at least d ticks, if it lasts at most D.
        open_duration: (K, D) probability that a segment lasts exactly d ticks. The rest is that it lasts longer than D.
        follows: (K, K) label j comes after label i.
        first, share: (K,) as in `Step`.
    """

    duration: Array
    survival: Array
    open_duration: Array
    follows: Array
    first: Array
    share: Array


@dataclass(frozen=True)
class Procedure:
    """The steps by name, in the order of the model's labels.

    Raises:
        EdgeHalError: a number is out of range, or `then` names an unknown step.
    """

    steps: Mapping[str, Step]

    def __post_init__(self) -> None:
        problems = check_data({name: step.to_dict() for name, step in self.steps.items()})
        if problems:
            first = problems[0]
            what = f"the procedure's {first.where} cannot be used" if first.path else "the procedure cannot be used"
            raise EdgeHalError(what, first.why, exit_code=2)

    def tables(self, model_hz: float) -> Tables:
        """The tables of a filter at `model_hz` ticks per second. Durations are log-normal with a broad tail."""
        steps, names = list(self.steps.values()), list(self.steps)
        median = np.array([step.median_s for step in steps])
        spread = np.maximum([step.spread for step in steps], LOWEST_SPREAD)
        longest_s = float((median * spread**LONGEST_SPREADS).max())
        ticks = min(MAX_TICKS, max(4, math.ceil(longest_s * model_hz)))
        log_s = np.log(np.arange(1, ticks + 1) / model_hz)

        def lognormal(width: Array) -> tuple[Array, Array]:
            """(K, D) within the table, and (K, 1) the probability of all of these durations together."""
            density = np.exp(-0.5 * ((log_s - np.log(median)[:, None]) / width[:, None]) ** 2 - log_s) + 1e-12
            inside = density.sum(axis=1, keepdims=True)
            beyond = [math.erfc(x / math.sqrt(2)) / 2 for x in (log_s[-1] - np.log(median)) / width]
            seconds = inside / model_hz / (width[:, None] * math.sqrt(2 * math.pi))
            return density / inside, seconds / (seconds + np.array(beyond)[:, None])

        width = np.log(spread)
        (usual, known), (broad, known_of_broad) = lognormal(width), lognormal(2 * width + 0.5)
        duration = (1 - BROAD) * usual + BROAD * broad
        open_duration = (1 - BROAD) * known * usual + BROAD * known_of_broad * broad
        survival = duration[:, ::-1].cumsum(axis=1)[:, ::-1]
        follows = np.array([[step.then.get(name, 0.0) for name in names] for step in steps])
        follows = (1 - UNSEEN) * _shares(follows) + UNSEEN / len(names)
        with np.errstate(divide="ignore"):
            follows = np.log(follows)
            np.fill_diagonal(follows, -np.inf)  # no step follows itself
            first = np.log((1 - UNSEEN) * _shares(np.array([s.first for s in steps])) + UNSEEN / len(names))
        share = np.log(_shares(np.maximum(_shares(np.array([s.share for s in steps])), LEAST_SHARE / len(steps))))
        return Tables(np.log(duration), np.log(survival), open_duration, follows, first, share)

    def to_dict(self) -> dict[str, Any]:
        return {name: step.to_dict() for name, step in self.steps.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Procedure:
        """Inverse of `to_dict`. Raises EdgeHalError (exit code 2) for other data."""
        problems = check_data(data) if isinstance(data, Mapping) else []
        if problems or not isinstance(data, Mapping):
            why = f"{problems[0].where}: {problems[0].why}" if problems else "it is no object"
            raise EdgeHalError("the procedure cannot be read", why, exit_code=2)
        return cls({str(name): Step(**step) for name, step in data.items()})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_file(cls, path: Path, labels: tuple[str, ...]) -> Procedure:
        """Read `procedure.json`. Its steps must be `labels`; the result is in the order of `labels`.

        Raises:
            EdgeHalError: the file cannot be read, or has other steps or bad values. It names the line of the first
                fault.
        """
        todo = f"correct {path.name}, delete it to decide without it, or export the checkpoint again"
        try:
            data, problems = check_text(read_regular(path).decode("utf-8-sig"), labels)  # some editors write a BOM
        except (OSError, ValueError) as error:
            raise file_error(f"cannot use {path}", error, todo, path=path) from error
        if problems:
            first, more = problems[0], len(problems) - 1
            line = "" if first.line is None else f", line {first.line}"
            why = f"{first.where}: {first.why}" + (f" (and {more} more fault{'s' * (more > 1)})" if more else "")
            raise EdgeHalError(f"cannot use {path}{line}", why, todo)
        procedure = cls.from_dict(data)
        return cls({label: procedure.steps[label] for label in labels})


def _shares(weights: Array) -> Array:
    """Weights (..., K) normalised to sum 1; equal shares if the sum is 0."""
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / weights.shape[-1]))
