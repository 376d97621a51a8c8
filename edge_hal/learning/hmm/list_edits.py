"""Step lists that may be wrong, or of which no order is known: the likeliest path through an edited list.

A video is cut into segments of any label. A segment either takes the next step of the list, for nothing, or pays: for
skipping steps before it, for being inserted, or for changing places with its neighbour. That is the alignment of
strings with edits (Levenshtein) inside the Viterbi alignment of a hidden Markov model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = -1e30  # log of an impossible event: finite, so that differences stay numbers
STAYED, TAKEN, INSERTED, SWAPPED, SWAPPED_BACK = range(5)


@dataclass(frozen=True)
class Costs:
    """Logarithms, on the scale of the emissions, that a step of the list is skipped, that a segment is inserted, and
    that two neighbours change places. Each is added often: -1e6 is never, and leaves digits for the rest."""

    skip: float
    insert: float
    swap: float


NOISY = Costs(skip=-24.0, insert=-18.0, swap=-15.0)
THUMBNAILS = Costs(skip=-8.0, insert=-6.0, swap=-5.0)
"""For sensors and trained vectors, and for thumbnails, which tell steps less apart. Measured on rendered videos: dearer
finds less, cheaper invents errors in lists that have none."""
SETS = Costs(skip=-1e6, insert=-6.0, swap=-1e6)
"""Where a set is all that is known: its steps are inserted as often as the video asks for, and none is skipped."""


@dataclass(frozen=True)
class Path:
    """`labels` (T,) and the log-likelihood of the path, costs included."""

    labels: IndexArray
    score: float


def edited(
    emission: Array,
    leave: Array,
    steps: Sequence[int],
    states: IndexArray,
    costs: Costs,
    allowed: Collection[int] | None = None,
) -> Path | None:
    """The likeliest path of a video, None where it is shorter than one segment.

    Args:
        emission: (T, S) log-likelihoods of the states.
        leave: (S,) chances of leaving a state after a frame.
        steps: the list; without steps everything is inserted.
        states: (K, J) the states that a segment of each label passes through.
        allowed: labels that may be inserted; None for all.
    """
    if len(emission) < states.shape[1]:
        return None
    return _Lattice(np.asarray(steps, np.int64), states, leave, costs, allowed).best(emission)


class _Lattice:
    """Nodes: (m, k), a segment of label k with m steps of the list behind it or in it, and after them (m,), step m + 1
    before step m. Each passes through the J states of its label."""

    def __init__(
        self, steps: IndexArray, states: IndexArray, leave: Array, costs: Costs, allowed: Collection[int] | None
    ) -> None:
        self.count, self.labels, self.costs = len(steps), len(states), costs
        self.plain = (self.count + 1) * self.labels
        self.label = np.concatenate([np.tile(np.arange(self.labels), self.count + 1), steps[1:]])
        self.states = states[self.label]
        self.stay, self.move = np.log1p(-leave)[self.states], np.log(leave)[self.states]
        self.behind = np.arange(self.count + 1)
        self.skipped = costs.skip * self.behind
        self.taken = self.behind[1:] * self.labels + steps
        self.swaps = np.arange(len(self.label) - self.plain)
        self.back = (self.swaps + 2) * self.labels + steps[: len(self.swaps)]
        wanted = np.isin(np.arange(self.labels), list(range(self.labels) if allowed is None else allowed))
        self.insert = np.tile(np.where(wanted, costs.insert, NEVER), self.count + 1)

    def best(self, emission: Array) -> Path:
        frames, depth = len(emission), self.states.shape[1]
        went = np.zeros((frames, *self.states.shape), bool)
        kind = np.zeros((frames, len(self.label)), np.uint8)
        last = np.zeros((frames, self.count + 1), np.int64)  # the label that a segment with m behind it ends best with
        source = np.zeros((frames, self.count + 1), np.int64)  # m before the skipped steps
        value = np.full(self.states.shape, NEVER)
        # Before the first frame no step is behind, and nothing has been said.
        begun = np.where(self.behind > 0, NEVER, 0.0)
        value[:, 0], kind[0], source[0] = self._entered(value[:, 0], begun, np.full(len(self.swaps), NEVER))
        value = value + emission[0][self.states]
        for t in range(1, frames):
            ended = value[:, -1] + self.move[:, -1]
            segments = ended[: self.plain].reshape(-1, self.labels)
            last[t] = segments.argmax(axis=1)
            stayed, moved = value + self.stay, value[:, :-1] + self.move[:, :-1]
            went[t, :, 1:] = moved > stayed[:, 1:]
            stayed[:, 1:] = np.maximum(stayed[:, 1:], moved)
            stayed[:, 0], kind[t], source[t] = self._entered(
                stayed[:, 0], segments[self.behind, last[t]], ended[self.plain :]
            )
            value = stayed + emission[t][self.states]
        rest = (self.skipped[-1] - self.skipped).repeat(self.labels)
        final = value[: self.plain, -1] + rest
        node = int(final.argmax())
        return Path(self._traced(node, depth, went, kind, last, source), float(final[node]))

    def _entered(self, stayed: Array, ended: Array, first_of_two: Array) -> tuple[Array, NDArray[np.uint8], IndexArray]:
        """Values of the first states, how each was come by, and from which m.

        Args:
            stayed: (nodes,) of staying there; ended: (M + 1,) of the best segment that ends with m steps behind it;
            first_of_two: (swaps,) of the first of two swapped steps ending.
        """
        kind = np.zeros(len(stayed), np.uint8)
        value = stayed.copy()
        level = ended - self.skipped
        highest = np.maximum.accumulate(level)
        source = np.maximum.accumulate(np.where(level >= highest, self.behind, 0))
        onward = highest + self.skipped

        def enter(nodes: IndexArray | slice, offered: Array, how: int) -> None:
            better = offered > value[nodes]
            kind[nodes] = np.where(better, how, kind[nodes])
            value[nodes] = np.where(better, offered, value[nodes])

        enter(slice(self.plain), ended.repeat(self.labels) + self.insert, INSERTED)
        enter(self.taken, onward[:-1], TAKEN)
        enter(slice(self.plain, None), onward[: len(self.swaps)] + self.costs.swap, SWAPPED)
        enter(self.back, first_of_two, SWAPPED_BACK)
        return value, kind, source

    def _traced(
        self,
        node: int,
        depth: int,
        went: Mask,
        kind: NDArray[np.uint8],
        last: IndexArray,
        source: IndexArray,
    ) -> IndexArray:
        labels, state = np.empty(len(kind), np.int64), depth - 1
        for t in range(len(kind) - 1, -1, -1):
            labels[t] = self.label[node]
            how = kind[t, node]
            if state > 0:
                state -= int(went[t, node, state])
            elif t > 0 and how != STAYED:
                behind = node // self.labels
                if how == SWAPPED_BACK:
                    node = self.plain + behind - 2
                else:
                    if how == TAKEN:
                        behind = source[t, behind - 1]
                    elif how == SWAPPED:
                        behind = source[t, node - self.plain]
                    node = int(behind * self.labels + last[t, behind])
                state = depth - 1
        return labels
