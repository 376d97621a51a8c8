"""Alignment of a video with a step list that may be wrong, or with steps whose order is not known.

The path may edit the list. A segment takes the next step of the list at no cost; it costs something to skip steps, to
insert a step, or to swap two neighbours. This is the edit distance of strings (Levenshtein) inside the Viterbi
alignment of a hidden Markov model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = -1e30  # log probability of an impossible event; finite, so that differences are not nan
STAYED, TAKEN, INSERTED, SWAPPED, SWAPPED_BACK = range(5)


@dataclass(frozen=True)
class EditCosts:
    """Log probabilities of an edit, on the scale of the emissions: a step of the list is skipped, a segment is
    inserted, two neighbours are swapped. For an edit that must not happen use -1e6: it is added many times, and a
    larger number would cost the sum its precision."""

    skip: float
    insert: float
    swap: float


NOISY_COSTS = EditCosts(skip=-24.0, insert=-18.0, swap=-15.0)
THUMBNAIL_COSTS = EditCosts(skip=-8.0, insert=-6.0, swap=-5.0)
"""The first is for sensors and trained encoders, the second for thumbnails, which separate steps less well. Measured on
rendered videos: higher costs find fewer errors, lower costs add errors to lists that are right."""
UNORDERED_COSTS = EditCosts(skip=-1e6, insert=-6.0, swap=-1e6)
"""For steps without an order: steps are inserted at a moderate cost, and required steps are not skipped."""


@dataclass(frozen=True)
class EditPath:
    """`labels`: (T,). `score`: the log-likelihood of the path, edits included."""

    labels: IndexArray
    score: float


def align_with_edits(
    emission: Array,
    leave: Array,
    steps: Sequence[int],
    states: IndexArray,
    costs: EditCosts,
    allowed: Collection[int] | None = None,
) -> EditPath | None:
    """The most likely path of a video; None if the video is shorter than one segment.

    Args:
        emission: (T, S) log-likelihoods of the states.
        leave: (S,) exit probabilities of the states.
        steps: the list. If it is empty, every segment is inserted.
        states: (K, J) the states that a segment of each label passes through.
        allowed: the labels that may be inserted; None for all.
    """
    if len(emission) < states.shape[1]:
        return None
    return _Lattice(np.asarray(steps, np.int64), states, leave, costs, allowed).best(emission)


class _Lattice:
    """The search graph of `align_with_edits`.

    A plain node (m, k) is a segment of label k after which the first m steps of the list are done. The swap nodes come
    after the plain ones: node m is step m + 1 where it precedes step m. A segment passes through the J states of its
    label.
    """

    def __init__(
        self, steps: IndexArray, states: IndexArray, leave: Array, costs: EditCosts, allowed: Collection[int] | None
    ) -> None:
        self.count, self.labels, self.costs = len(steps), len(states), costs
        self.plain = (self.count + 1) * self.labels
        self.label = np.concatenate([np.tile(np.arange(self.labels), self.count + 1), steps[1:]])
        self.states = states[self.label]
        self.stay, self.move = np.log1p(-leave)[self.states], np.log(leave)[self.states]
        self.done = np.arange(self.count + 1)
        self.skipped = costs.skip * self.done
        self.taken = self.done[1:] * self.labels + steps
        self.swaps = np.arange(len(self.label) - self.plain)
        self.back = (self.swaps + 2) * self.labels + steps[: len(self.swaps)]
        wanted = np.isin(np.arange(self.labels), list(range(self.labels) if allowed is None else allowed))
        self.insert = np.tile(np.where(wanted, costs.insert, NEVER), self.count + 1)

    def best(self, emission: Array) -> EditPath:
        frames, depth = len(emission), self.states.shape[1]
        moved_on = np.zeros((frames, *self.states.shape), bool)
        kind = np.zeros((frames, len(self.label)), np.uint8)
        last = np.zeros((frames, self.count + 1), np.int64)  # the label of the best segment that ends with m steps done
        source = np.zeros((frames, self.count + 1), np.int64)  # m before steps were skipped
        value = np.full(self.states.shape, NEVER)
        # Before the first frame no step is done, and no swap is open.
        first = np.where(self.done > 0, NEVER, 0.0)
        value[:, 0], kind[0], source[0] = self._entered(value[:, 0], first, np.full(len(self.swaps), NEVER))
        value = value + emission[0][self.states]
        for t in range(1, frames):
            ended = value[:, -1] + self.move[:, -1]
            segments = ended[: self.plain].reshape(-1, self.labels)
            last[t] = segments.argmax(axis=1)
            stayed, moved = value + self.stay, value[:, :-1] + self.move[:, :-1]
            moved_on[t, :, 1:] = moved > stayed[:, 1:]
            stayed[:, 1:] = np.maximum(stayed[:, 1:], moved)
            stayed[:, 0], kind[t], source[t] = self._entered(
                stayed[:, 0], segments[self.done, last[t]], ended[self.plain :]
            )
            value = stayed + emission[t][self.states]
        rest = (self.skipped[-1] - self.skipped).repeat(self.labels)
        final = value[: self.plain, -1] + rest
        node = int(final.argmax())
        return EditPath(self._traced(node, depth, moved_on, kind, last, source), float(final[node]))

    def _entered(self, stayed: Array, ended: Array, first_of_two: Array) -> tuple[Array, NDArray[np.uint8], IndexArray]:
        """Values (nodes,) of the first state of each node, how each was entered, and (M + 1,) the m it came from.

        Args:
            stayed: (nodes,) value of staying in the first state.
            ended: (M + 1,) value of the best segment that ends with m steps done.
            first_of_two: (swaps,) value of the end of the first of two swapped steps.
        """
        kind = np.zeros(len(stayed), np.uint8)
        value = stayed.copy()
        level = ended - self.skipped
        highest = np.maximum.accumulate(level)
        source = np.maximum.accumulate(np.where(level >= highest, self.done, 0))
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
        moved_on: Mask,
        kind: NDArray[np.uint8],
        last: IndexArray,
        source: IndexArray,
    ) -> IndexArray:
        labels, state = np.empty(len(kind), np.int64), depth - 1
        for t in range(len(kind) - 1, -1, -1):
            labels[t] = self.label[node]
            how = kind[t, node]
            if state > 0:
                state -= int(moved_on[t, node, state])
            elif t > 0 and how != STAYED:
                done = node // self.labels
                if how == SWAPPED_BACK:
                    node = self.plain + done - 2
                else:
                    if how == TAKEN:
                        done = source[t, done - 1]
                    elif how == SWAPPED:
                        done = source[t, node - self.plain]
                    node = int(done * self.labels + last[t, done])
                state = depth - 1
        return labels
