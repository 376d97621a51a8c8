"""What the step lists and the alignment say of the procedure: which step follows which, and how long each lasts.

`procedure.json` in a bundle; people may edit it, as they may `decoder.json`: forbid an order, stretch a step.
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

Array = NDArray[np.float64]

UNSEEN = 0.01
"""Chance that a step is followed by any other at random: people do what no step list has shown."""
BROAD = 0.1
"""Share of a distribution of durations twice as wide, and wider: a few examples do not bound them."""
LONGEST_SPREADS = 3.0
MAX_TICKS = 2048
LOWEST_SPREAD = 1.2
LEAST_SHARE = 0.25
"""Of an equal share of time: evidence is divided by shares, and a step that was never seen must not gain by it."""
MANY = 1e9


@dataclass(frozen=True)
class Step:
    """One step. `first`: chance that a recording begins with it; `share` of all time; `median_s` of its durations
    and `spread`, the factor of one standard deviation of their logarithms; `then`: chance of each step after it."""

    first: float
    share: float
    median_s: float
    spread: float
    then: Mapping[str, float]

    def __post_init__(self) -> None:
        # 1 and 1.0 decide alike: one fingerprint for both. What is no number, `Procedure` refuses.
        for name in ("first", "share", "median_s", "spread"):
            if isinstance(value := getattr(self, name), int) and not isinstance(value, bool) and abs(value) < MANY:
                object.__setattr__(self, name, float(value))
        if isinstance(self.then, Mapping):
            whole = {to: float(p) for to, p in self.then.items() if type(p) is int and abs(p) < MANY}
            object.__setattr__(self, "then", {**self.then, **whole})


@dataclass(frozen=True)
class Tables:
    """Logarithms for K labels and durations of 1 .. D ticks: `duration` and `survival` (K, D), `follows` and `first`
    (K, K) and (K,), `share` (K,)."""

    duration: Array
    survival: Array
    follows: Array
    first: Array
    share: Array


@dataclass(frozen=True)
class Procedure:
    """The steps by name, in the order of the model's labels.

    Raises:
        EdgeHalError: a number is out of range, or `then` names a step that is none.
    """

    steps: Mapping[str, Step]

    def __post_init__(self) -> None:
        def number(value: object, low: float, high: float) -> bool:
            known = isinstance(value, (int, float)) and not isinstance(value, bool)
            return known and low <= value <= high  # type: ignore[operator]

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
        """For a filter at `model_hz` ticks a second. Durations are lognormal with a broad tail."""
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
            np.fill_diagonal(follows, -np.inf)  # a step does not give way to itself
            first = np.log((1 - UNSEEN) * _shares(np.array([s.first for s in steps])) + UNSEEN / len(names))
        share = np.log(_shares(np.maximum(_shares(np.array([s.share for s in steps])), LEAST_SHARE / len(steps))))
        return Tables(np.log(duration), np.log(survival), follows, first, share)

    def to_dict(self) -> dict[str, Any]:
        return {name: {**asdict(step), "then": dict(step.then)} for name, step in self.steps.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Procedure:
        """Raises EdgeHalError (exit code 2) for what `to_dict` did not make."""
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
        """The steps must be those of `labels`; in their order whatever the order of the file."""
        todo = f"correct {path.name}, delete it to decide without it, or export the checkpoint again"
        try:
            procedure = cls.from_dict(json.loads(path.read_text()))
            odd = sorted(procedure.steps.keys() ^ set(labels))
            if odd:
                raise ValueError(f"'{odd[0]}' is in one of the model's labels and its steps, not in both")
        except (OSError, ValueError, EdgeHalError) as error:
            why = f"{error.what}: {error.why}" if isinstance(error, EdgeHalError) else str(error)
            raise EdgeHalError(f"cannot use {path}", why, todo) from error
        return cls({label: procedure.steps[label] for label in labels})


def _shares(weights: Array) -> Array:
    """Weights (..., K) to sum 1; all alike where there are none."""
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / weights.shape[-1]))
