"""Sessions of a rendered procedure: the orders and durations of its steps.

Orders are random linear extensions of a partial order with optional and repeated steps. Durations
are log-normal: in the 54 recordings of the 50 Salads timelines the standard deviation of the
log-duration of an action is 0.38-0.79 (median 0.6; robustly, by the median absolute deviation,
0.33-0.70, median 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .gearbox import GEARBOX
from .procedure import Procedure

STEPS = GEARBOX.steps

MIN_STEP_S = 2.0
MAX_STEP_S = 25.0
MIN_SEGMENTS, MAX_SEGMENTS = 5, 10
MIN_SESSION_S, MAX_SESSION_S = 32.0, 85.0
IDLE_PROBABILITY = 0.6
IDLE_S = (0.3, 2.5)


@dataclass(frozen=True)
class Segment:
    """One step of a session.

    Attributes:
        step: a step of the procedure.
        start_s: when the hand starts to move for this step.
        active_s: the time until the tool is back or the part is in its place.
        idle_s: the rest after it, which belongs to this step; 0 if there is none.
    """

    step: str
    start_s: float
    active_s: float
    idle_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.active_s + self.idle_s


@dataclass(frozen=True)
class Session:
    """One run through the procedure, filmed at `fps` frames per second."""

    segments: tuple[Segment, ...]
    fps: float = 10.0
    procedure: Procedure = GEARBOX

    @property
    def duration_s(self) -> float:
        return self.segments[-1].end_s

    @property
    def frames(self) -> int:
        return round(self.duration_s * self.fps)

    @property
    def transcript(self) -> tuple[str, ...]:
        """The ordered step list: all that a trainer may see."""
        return tuple(segment.step for segment in self.segments)

    def labels(self, hz: float | None = None) -> list[str]:
        """The step of each frame (`frames` names); frame k is taken at k / fps. `hz`: another rate than fps."""
        starts = np.array([segment.start_s for segment in self.segments])
        at_s = np.arange(self.frames if hz is None else round(self.duration_s * hz)) / (hz or self.fps)
        # The offset keeps a start that is a multiple of the frame period on its frame despite rounding.
        return [self.transcript[i] for i in np.searchsorted(starts, at_s + 1e-9, "right") - 1]


def is_valid_order(steps: tuple[str, ...], procedure: Procedure = GEARBOX) -> bool:
    """Whether the procedure allows this order (constraints only, not the length)."""
    for i, step in enumerate(steps):
        if not _possible(step, steps[:i], procedure):
            return False
    return all(steps.count(s) >= 1 for s, p in procedure.occurrences if p == 1.0)


def sample_order(rng: np.random.Generator, procedure: Procedure = GEARBOX) -> tuple[str, ...]:
    """A random valid order of 5 to 10 steps, neighbours different."""
    while True:
        pending = [step for step, probability in procedure.occurrences if rng.random() < probability]
        if not MIN_SEGMENTS <= len(pending) <= MAX_SEGMENTS:
            continue
        order: list[str] = []
        while pending:
            ready = [
                step
                for step in pending
                if _possible(step, tuple(order), procedure) and not _shuts_out(step, pending, procedure)
            ]
            if not ready:
                break
            order.append(ready[rng.integers(len(ready))])
            pending.remove(order[-1])
        if not pending:
            return tuple(order)


def sample_session(rng: np.random.Generator, fps: float = 10.0, procedure: Procedure = GEARBOX) -> Session:
    """A session with random order, durations and idle times; a pure function of the generator."""
    while True:
        # One person is slow or fast in all steps; the rest of the variance belongs to the step.
        pace = rng.normal(0.0, 0.15)
        start_s, segments = 0.0, []
        order = sample_order(rng, procedure)
        for step, following in zip(order, (*order[1:], ""), strict=True):
            median_s, log_std = procedure.durations[step]
            own_std = np.sqrt(log_std**2 - 0.15**2)
            active_s = median_s * np.exp(pace + own_std * rng.normal())
            idle_s = rng.uniform(*IDLE_S) if rng.random() < IDLE_PROBABILITY else 0.0
            if {step, following} == procedure.same_tool:
                # Without a rest the same tool would be put down and taken up at once, and the boundary would be
                # ambiguous.
                idle_s = max(idle_s, rng.uniform(0.8, IDLE_S[1]))
            active_s = float(np.clip(active_s, MIN_STEP_S, MAX_STEP_S - idle_s))
            segments.append(Segment(step, start_s, active_s, float(idle_s)))
            start_s = segments[-1].end_s
        if MIN_SESSION_S <= start_s <= MAX_SESSION_S:
            return Session(tuple(segments), fps, procedure)


def _possible(step: str, done: tuple[str, ...], procedure: Procedure) -> bool:
    return (
        all(needed in done for needed in procedure.after.get(step, ()))
        and procedure.before.get(step) not in done
        and done.count(step) < procedure.at_most.get(step, 1)
        and done[-1:] != (step,)
    )


def _shuts_out(step: str, pending: list[str], procedure: Procedure) -> bool:
    return any(procedure.before.get(other) == step for other in pending)
