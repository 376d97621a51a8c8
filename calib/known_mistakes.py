"""Videos in which the procedure was not followed: which deviations their labels have, and which are reported.

`mistakes` of task.yaml names such training videos. A student that was not trained on them says how a mistake looks to
it, which no video without a mistake shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_hal.metrics import IntArray
from edge_hal.procedure.conformance import Deviation
from edge_hal.procedure.rules import Procedure

from .followed import Followed, deviations, follow_labels


@dataclass(frozen=True)
class KnownMistakes:
    """One video. `true`: the deviations of its labels, but for steps that last too long."""

    video: Followed
    true: tuple[Deviation, ...]

    @classmethod
    def of(cls, video: Followed, labels: IntArray, procedure: Procedure, model_hz: float) -> KnownMistakes:
        """`labels` (T,), judged by the procedure without its limits."""
        found = deviations(without_limits(procedure), follow_labels(labels, len(procedure.steps)), model_hz)
        return cls(video, tuple(found))

    def named(self, reported: Sequence[Deviation]) -> int:
        """How many of the true deviations are reported, less the reports that are of none."""
        reported = [each for each in reported if each.kind != "overdue"]
        right = [any(same(each, true) for each in reported) for true in self.true]
        wrong = [not any(same(each, true) for true in self.true) for each in reported]
        return sum(right) - sum(wrong)


def same(a: Deviation, b: Deviation) -> bool:
    """Whether both are of one kind and name one step."""
    return a.kind == b.kind and bool(_steps(a) & _steps(b))


def _steps(deviation: Deviation) -> set[int]:
    """The steps that were done wrongly, or not at all."""
    named = {"skipped": (deviation.expected,), "out_of_order": (deviation.expected, deviation.seen)}
    return {step for step in named.get(deviation.kind, (deviation.seen,)) if step is not None}


def without_limits(procedure: Procedure) -> Procedure:
    """Each segment counts, however short or uncertain, and none lasts too long."""
    return Procedure(
        {
            name: replace(step, shortest_s=0.0, least_confidence=0.0, doubt_s=None, overdue_s=None)
            for name, step in procedure.steps.items()
        }
    )
