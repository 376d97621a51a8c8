"""The procedure: the order of the steps and the distributions of their durations.

It is estimated from the aligned training videos (`calib/learn_procedure.py`) and stored as `procedure.json` in a
bundle. Users may edit the file, for example to forbid an order or to make a step longer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.untrusted import read_json

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
    """

    first: float
    share: float
    median_s: float
    spread: float
    then: Mapping[str, float]

    def __post_init__(self) -> None:
        # 1 and 1.0 give the same decisions, so they must give the same fingerprint. `Procedure` refuses what is not a
        # number.
        for name in ("first", "share", "median_s", "spread"):
            if (
                isinstance(value := getattr(self, name), int)
                and not isinstance(value, bool)
                and abs(value) < LARGEST_INT
            ):
                object.__setattr__(self, name, float(value))
        if isinstance(self.then, Mapping):
            whole = {to: float(p) for to, p in self.then.items() if type(p) is int and abs(p) < LARGEST_INT}
            object.__setattr__(self, "then", {**self.then, **whole})


@dataclass(frozen=True)
class Tables:
    """Log probabilities of K labels, with durations of 1 .. D ticks.

    Attributes:
        duration, survival: (K, D) a segment lasts exactly d ticks, at least d ticks.
        follows: (K, K) label j comes after label i.
        first, share: (K,) as in `Step`.
    """

    duration: Array
    survival: Array
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
        def number(value: object, low: float, high: float) -> bool:
            known = isinstance(value, (int, float)) and not isinstance(value, bool)
            return known and low <= value <= high  # type: ignore[operator]

        if not self.steps:
            raise EdgeHalError("the procedure cannot be used", "it has no step", exit_code=2)
        for name, step in self.steps.items():
            where = f"the procedure's step '{name}'"
            for field, low, high in (
                ("first", 0, 1),
                ("share", 0, 1),
                ("median_s", 1e-3, 1e5),
                ("spread", 1, 1e3),
            ):
                if not number(getattr(step, field), low, high):
                    why = f"{field} is {getattr(step, field)!r}, it must lie in {low:g}..{high:g}"
                    raise EdgeHalError(f"{where} cannot be used", why, exit_code=2)
            odd = [to for to, p in step.then.items() if to not in self.steps or not number(p, 0, 1)]
            if odd:
                why = f"then: '{odd[0]}' is no step, or its chance lies outside 0..1"
                raise EdgeHalError(f"{where} cannot be used", why, exit_code=2)

    def tables(self, model_hz: float) -> Tables:
        """The tables of a filter at `model_hz` ticks per second. Durations are log-normal with a broad tail."""
        steps, names = list(self.steps.values()), list(self.steps)
        median = np.array([step.median_s for step in steps])
        spread = np.maximum([step.spread for step in steps], LOWEST_SPREAD)
        longest_s = float((median * spread**LONGEST_SPREADS).max())
        ticks = min(MAX_TICKS, max(4, math.ceil(longest_s * model_hz)))
        log_s = np.log(np.arange(1, ticks + 1) / model_hz)

        def lognormal(width: Array) -> Array:
            density = np.exp(-0.5 * ((log_s - np.log(median)[:, None]) / width[:, None]) ** 2 - log_s) + 1e-12
            return np.asarray(density / density.sum(axis=1, keepdims=True))

        width = np.log(spread)
        duration = (1 - BROAD) * lognormal(width) + BROAD * lognormal(2 * width + 0.5)
        survival = duration[:, ::-1].cumsum(axis=1)[:, ::-1]
        follows = np.array([[step.then.get(name, 0.0) for name in names] for step in steps])
        follows = (1 - UNSEEN) * _shares(follows) + UNSEEN / len(names)
        with np.errstate(divide="ignore"):
            follows = np.log(follows)
            np.fill_diagonal(follows, -np.inf)  # no step follows itself
            first = np.log((1 - UNSEEN) * _shares(np.array([s.first for s in steps])) + UNSEEN / len(names))
        share = np.log(_shares(np.maximum(_shares(np.array([s.share for s in steps])), LEAST_SHARE / len(steps))))
        return Tables(np.log(duration), np.log(survival), follows, first, share)

    def to_dict(self) -> dict[str, Any]:
        return {name: {**asdict(step), "then": dict(step.then)} for name, step in self.steps.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Procedure:
        """Inverse of `to_dict`. Raises EdgeHalError (exit code 2) for other data."""
        try:
            return cls({str(name): Step(**{**step, "then": dict(step["then"])}) for name, step in data.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EdgeHalError(
                "the procedure cannot be read", f"{type(error).__name__}: {error}", exit_code=2
            ) from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_file(cls, path: Path, labels: tuple[str, ...]) -> Procedure:
        """Read `procedure.json`. Its steps must be `labels`; the result is in the order of `labels`.

        Raises:
            EdgeHalError: the file cannot be read, or has other steps or bad values.
        """
        todo = f"correct {path.name}, delete it to decide without it, or export the checkpoint again"
        try:
            procedure = cls.from_dict(read_json(path))
            odd = sorted(procedure.steps.keys() ^ set(labels))
            if odd:
                raise ValueError(f"'{odd[0]}' is in one of the model's labels and its steps, not in both")
        except (OSError, ValueError, EdgeHalError) as error:
            why = f"{error.what}: {error.why}" if isinstance(error, EdgeHalError) else str(error)
            raise EdgeHalError(f"cannot use {path}", why, todo) from error
        return cls({label: procedure.steps[label] for label in labels})


def _shares(weights: Array) -> Array:
    """Weights (..., K) normalised to sum 1; equal shares if the sum is 0."""
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / weights.shape[-1]))
