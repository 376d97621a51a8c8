"""The report `now` of one stream: what is believed at this moment, and when it is worth sending."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from edge_hal.decoding.belief import Belief
from edge_hal.events import Cycle, Event, Moment, Now

MOVED = 0.1
"""A report is due when the probability has moved by this much, or the action is another one."""
OTHERS, NEXT = 2, 5
"""How many other actions, and how many that may follow, a report names at most."""
LEAST = 0.005
"""Smaller probabilities are not worth a name."""
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def now_event(
    belief: Belief,
    stream: str,
    epoch: int,
    labels: tuple[str, ...],
    model_hz: float,
    at: Moment,
    moment: Callable[[int], Moment | None],
    progress: float | None = None,
) -> Now:
    """The report.

    Args:
        at: the moment of the belief.
        moment: gives a tick's moment; None if it has left the buffer.
        progress: of the cycle.
    """
    label = belief.label
    likely = np.argsort(-belief.probability, kind="stable")
    following, began = belief.next_labels(label), belief.known_begin(label)
    return Now(
        stream,
        epoch,
        at=at,
        action=labels[label],
        probability=round(float(belief.probability[label]), 4),
        since=None if began is None else moment(began),
        others=_named(belief.probability, [int(k) for k in likely[1 : OTHERS + 1]], labels),
        next=_named(following, [int(k) for k in np.argsort(-following, kind="stable")[:NEXT]], labels),
        remaining_s={
            name: round(ticks / model_hz, 3)
            for name, ticks in zip(QUANTILES, belief.remaining_ticks(label, list(QUANTILES.values())), strict=True)
        },
        progress=None if progress is None else round(progress, 3),
    )


def _named(p: np.ndarray, order: list[int], labels: tuple[str, ...]) -> tuple[dict[str, object], ...]:
    return tuple({"action": labels[k], "probability": round(float(p[k]), 4)} for k in order if p[k] >= LEAST)


class NowReporter:
    """Says when a report is due: after a change, and at most `most_hz` times per second of stream time."""

    def __init__(self, most_hz: float) -> None:
        self._pause_ns = round(1e9 / most_hz) if most_hz > 0 else None
        self._label: int | None = None
        self._probability = 0.0
        self._sent_ns = 0
        self._cycle_ended = False

    def due(self, belief: Belief | None, t_ns: int, events: Iterable[Event] = ()) -> bool:
        """Whether to send `belief`. If so, it counts as sent at `t_ns`. `events`: what was published with it. After the
        end of a cycle a report is due without another change, because the progress has begun anew."""
        self._cycle_ended = self._cycle_ended or any(isinstance(event, Cycle) for event in events)
        if belief is None or self._pause_ns is None:
            return False
        label, probability = belief.label, float(belief.probability[belief.label])
        moved = label != self._label or abs(probability - self._probability) >= MOVED
        if not moved and not self._cycle_ended:
            return False
        if self._label is not None and t_ns - self._sent_ns < self._pause_ns:
            return False
        self._label, self._probability, self._sent_ns, self._cycle_ended = label, probability, t_ns, False
        return True

    def reset(self) -> None:
        """A new epoch: the next belief is news."""
        self._label = None
