"""The durable events of one stream: each has the next number, and names the model and the thresholds it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_hal.decoding.decoder import Decision
from edge_hal.events import End, Gap, Moment, Start, Transition

from .clock import Break


@dataclass(frozen=True)
class DurableEvents:
    """Makes them. `labels`, `model_hz`: of the model. `bundle`, `decoder`: fingerprints. `next_seq`: gives each event
    its number."""

    stream: str
    labels: tuple[str, ...]
    model_hz: float
    bundle: str
    decoder: str
    next_seq: Callable[[], int]

    def start(self, epoch: int, source: str, resumed: dict[str, Any] | None) -> Start:
        return Start(
            self.stream,
            epoch,
            seq=self.next_seq(),
            source=source,
            labels=self.labels,
            model_hz=self.model_hz,
            bundle=self.bundle,
            decoder=self.decoder,
            resumed=resumed,
        )

    def gap(self, epoch: int, due: Break, resumed: dict[str, Any] | None) -> Gap:
        return Gap(
            self.stream,
            epoch,
            seq=self.next_seq(),
            reason=due.reason,
            begin=due.begin,
            end=due.end,
            lost_ticks=due.lost_ticks,
            reset=due.reset,
            bundle=self.bundle,
            decoder=self.decoder,
            resumed=resumed,
        )

    def transition(
        self, epoch: int, decision: Decision, boundary: Moment, decided: Moment, *, warm: bool
    ) -> Transition:
        """`boundary`, `decided`: the moments of the decision's ticks. `warm`: the model has seen as much as it can."""
        return Transition(
            self.stream,
            epoch,
            seq=self.next_seq(),
            from_=None if decision.previous is None else self.labels[decision.previous],
            to=self.labels[decision.label],
            boundary=boundary,
            decision=decided,
            confidence=decision.confidence,
            warm=warm,
            decoder=self.decoder,
        )

    def end(self, epoch: int, reason: str, last: Moment, counters: dict[str, Any]) -> End:
        """`reason`: `eof`, `signal`, `source` or `error`. `last`: the last tick."""
        return End(self.stream, epoch, seq=self.next_seq(), reason=reason, last=last, counters=counters)
