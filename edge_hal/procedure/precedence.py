"""Which step comes before which, counted in lists of steps, and how sure a rule is that the lists never break.

Only the first occurrence of a step in a list counts. A list may have a weight, for example less if it is of another
product.

Three lists that all have a before b may be chance. Whether they are follows from how strict the other steps are: in
identical lists every pair keeps its order, in lists of an open activity few pairs do. So a rule is strict or open. A
strict one is broken with probability `ERRORS`, by errors of the lists. An open one holds at some rate between 0 and 1,
and rates near 0 and 1 are a little more likely, because many orders are usual but not needed.
The share of strict rules is estimated from all of them (EM), and gives the probability that one of them is strict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ERRORS = 0.003
OPEN = 0.75
"""Both parameters of the beta distribution of the rate of an open rule."""
NO_PRIOR = 1e-3
ROUNDS = 100
"""Iterations of EM; it converges in fewer."""


def strictness(kept: Array, count: Array, *, directions: int = 1, prior: float = 1.0) -> Array:
    """The probability that each of n rules is strict: (n,).

    Args:
        kept, count: (n,) in how many of the cases where it applies a rule was kept.
        directions: 2 if each case that breaks a rule keeps its opposite, as with the order of two steps. Then kept and
            count name each pair once, and the result is for the rule as given, not for its opposite.
        prior: strict rules, and as many open ones, that are counted beside the given ones.
    """
    if not len(count):
        return np.zeros(0)
    broken = count - kept
    log_hold, log_break = math.log(1 - ERRORS), math.log(ERRORS)
    as_given = kept * log_hold + broken * log_break - math.log(directions)
    reversed_ = broken * log_hold + kept * log_break - math.log(directions) if directions == 2 else as_given - np.inf
    strict = np.logaddexp(as_given, reversed_)
    gamma = np.vectorize(math.lgamma, otypes=[np.float64])
    open_ = gamma(kept + OPEN) + gamma(broken + OPEN) - gamma(count + 2 * OPEN)
    open_ += math.lgamma(2 * OPEN) - 2 * math.lgamma(OPEN)
    share = 0.5
    for _ in range(ROUNDS):
        odds = np.log(share) - np.log1p(-share) + strict - open_
        share = float((np.sum(np.exp(-np.logaddexp(0.0, -odds))) + prior) / (len(count) + 2 * prior))
    total = np.logaddexp(np.log(share) + strict, np.log1p(-share) + open_)
    return np.asarray(np.exp(np.log(share) + as_given - total))


def expected_breaks(kept: Array, count: Array, *, directions: int = 1) -> Array:
    """How often n rules would be broken in other lists, drawn as these were: (n,). A strict rule is not broken.

    Args: as for `strictness`. If all rules are kept, all are taken for strict: identical lists show no free order.
    """
    chance = strictness(kept, count, directions=directions, prior=NO_PRIOR)
    return np.asarray((1 - chance) * count * (count - kept + OPEN) / (count + 2 * OPEN))


class Precedence:
    """First positions of K steps in n lists.

    Args:
        lists: the lists, as indices of steps in 0 .. steps - 1.
        steps: K.

    Attributes:
        first: (n, K) position of the first occurrence of each step in each list; infinite if it does not occur.
        present: (n, K) whether it occurs.
    """

    def __init__(self, lists: Sequence[Sequence[int]], steps: int) -> None:
        self.first = np.full((len(lists), steps), np.inf)
        for row, one in zip(self.first, lists, strict=True):
            for position in range(len(one) - 1, -1, -1):
                row[one[position]] = position
        self.present = np.isfinite(self.first)

    def occurs(self, weight: Array | None = None) -> Array:
        """(K,): the weight of the lists that hold each step. `weight`: (n,), by default 1 for each list."""
        return np.asarray(self._weights(weight) @ self.present)

    def together(self, weight: Array | None = None) -> Array:
        """(K, K): the weight of the lists that hold both steps."""
        return np.asarray((self.present * self._weights(weight)[:, None]).T @ self.present.astype(np.float64))

    def before(self, weight: Array | None = None) -> Array:
        """(K, K): the weight of the lists in which step a comes before step b; both occur there."""
        found = np.zeros((self.first.shape[1],) * 2)
        for row, one in zip(self.first, self._weights(weight), strict=True):
            if one:
                held = np.flatnonzero(np.isfinite(row))
                found[np.ix_(held, held)] += one * (row[held, None] < row[held])
        return found

    def _weights(self, weight: Array | None) -> Array:
        return np.ones(len(self.first)) if weight is None else weight
