"""What is known of a stream from the events sent so far, and how heartbeats and snapshots tell it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from edge_hal.events import End, Event, Gap, Heartbeat, Moment, Now, Snapshot, Start, Transition


@dataclass(frozen=True)
class Status:
    """What only the loop knows: the counters, whether the model sees anything now, how the source is."""

    counters: dict[str, Any] = field(default_factory=dict)
    blind: bool = False
    run: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)


class Report:
    """Follows the events of one stream. A snapshot can be told once there was a `start`."""

    def __init__(self, stream: str, last_seq: int) -> None:
        self.stream = stream
        self.last_seq = last_seq
        self.start: Start | None = None
        self._action: str | None = None
        self._since: Moment | None = None
        self._newest: Now | None = None
        self._epoch = 0

    def follow(self, event: Event) -> None:
        if isinstance(event, Start):
            self.start = event
        elif isinstance(event, Transition):
            self._action, self._since = event.to, event.boundary
        elif isinstance(event, Now):
            self._newest = event
        if isinstance(event, Gap) and self.start is not None:
            self.start = replace(self.start, bundle=event.bundle, decoder=event.decoder)
        if isinstance(event, (Start, End)) or (isinstance(event, Gap) and event.reset):
            self._action = self._since = self._newest = None
        self.last_seq = getattr(event, "seq", self.last_seq)
        self._epoch = event.epoch + (isinstance(event, Gap) and event.reset)

    def snapshot(self, status: Status, journal: str | None) -> Snapshot:
        assert self.start is not None
        return Snapshot(
            **self._now(status, journal),
            labels=self.start.labels,
            bundle=self.start.bundle,
            decoder=self.start.decoder,
        )

    def heartbeat(
        self, status: Status, journal: str | None, latency_ms: dict[str, Any], delivery: dict[str, Any]
    ) -> Heartbeat:
        now = self._now(status, journal)
        now["run"]["latency_ms"] = latency_ms
        return Heartbeat(**now, counters=status.counters, health=status.health, delivery=delivery)

    def _now(self, status: Status, journal: str | None) -> dict[str, Any]:
        started = {} if self.start is None else self.start.run
        session = {key: value for key, value in started.items() if key == "session"}
        return {
            **{"stream": self.stream, "epoch": self._epoch, "last_seq": self.last_seq},
            "action": None if status.blind else self._action,
            "since": None if status.blind else self._since,
            "now": None if status.blind or self._newest is None else self._newest.brief(),
            "run": {**session, **status.run, "utc_ns": time.time_ns(), "journal": journal},
        }
