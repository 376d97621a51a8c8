"""Sessions of the gearbox with one mistake each: a step is left out, done again or too long, or two are swapped."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .schedule import Segment, Session, is_valid_order, sample_session

REQUIRED = ("place_base", "insert_gear", "fit_cover")
"""Their absence is shown by a later step. That of the last step is not: the video may end before it."""
ONCE = ("place_base", "grease_gear", "fit_cover", "drive_screws", "tap_cover")
PROLONGED_S = (60.0, 75.0)


@dataclass(frozen=True)
class Mistake:
    """A session with one mistake. `steps`: the steps that a right deviation may name."""

    kind: str
    steps: frozenset[str]
    session: Session


def in_order(segments: list[Segment], fps: float) -> Session:
    """The segments one after the other."""
    start_s, placed = 0.0, []
    for segment in segments:
        placed.append(replace(segment, start_s=start_s))
        start_s = placed[-1].end_s
    return Session(tuple(placed), fps)


def skipped(session: Session, rng: np.random.Generator) -> Mistake | None:
    step = str(rng.choice(REQUIRED))
    kept = [segment for segment in session.segments if segment.step != step]
    if any(a.step == b.step for a, b in itertools.pairwise(kept)):
        return None
    return Mistake("skipped", frozenset({step}), in_order(kept, session.fps))


def out_of_order(session: Session, rng: np.random.Generator) -> Mistake | None:
    """Two neighbours swapped, where the procedure forbids it."""
    segments, places = list(session.segments), []
    for i in range(1, len(segments) - 1):
        order = [segment.step for segment in segments]
        order[i], order[i + 1] = order[i + 1], order[i]
        apart = all(a != b for a, b in itertools.pairwise(order))
        if apart and not is_valid_order(tuple(order)):
            places.append(i)
    if not places:
        return None
    i = int(rng.choice(places))
    pair = frozenset({segments[i].step, segments[i + 1].step})
    segments[i], segments[i + 1] = segments[i + 1], segments[i]
    return Mistake("out_of_order", pair, in_order(segments, session.fps))


def repeated(session: Session, rng: np.random.Generator) -> Mistake | None:
    segments = list(session.segments)
    source = [segment for segment in segments if segment.step in ONCE]
    again = source[int(rng.integers(len(source)))]
    first = next(i for i, segment in enumerate(segments) if segment.step == again.step)
    places = [
        i
        for i in range(first + 2, len(segments) + 1)
        if segments[i - 1].step != again.step and (i == len(segments) or segments[i].step != again.step)
    ]
    if not places:
        return None
    segments.insert(int(rng.choice(places)), again)
    return Mistake("repeated", frozenset({again.step}), in_order(segments, session.fps))


def overdue(session: Session, rng: np.random.Generator) -> Mistake | None:
    segments = list(session.segments)
    i = int(rng.integers(len(segments)))
    segments[i] = replace(segments[i], active_s=float(rng.uniform(*PROLONGED_S)))
    return Mistake("overdue", frozenset({segments[i].step}), in_order(segments, session.fps))


KINDS: dict[str, Callable[[Session, np.random.Generator], Mistake | None]] = {
    "skipped": skipped,
    "out_of_order": out_of_order,
    "repeated": repeated,
    "overdue": overdue,
}


def sample_mistake(kind: str, seed: int, number: int) -> Mistake:
    """A session with a mistake of this kind. `seed` and `number` decide it."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind), number])
    while True:
        found = KINDS[kind](sample_session(rng), rng)
        if found is not None:
            return found
