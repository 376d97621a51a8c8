"""The state of a stream as far as its events tell it: what goes on, since when, and whether a run is there."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from edge_hal.events import End, Event, Gap, Heartbeat, Moment, Now, Snapshot, Start, Transition


@dataclass(frozen=True)
class StreamState:
    """`action` is that of the last transition, and `since` its boundary; both None before the first of an epoch, and
    after a gap that reset the model. `now` is the newest report `now` (docs/events.md). `running` is false after `end`;
    after `kill -9` it stays true, and `utc_ns`, the wall clock of the newest event, stops. `last_seq` is the last
    durable event. `ended` is the session that has ended, if no other has begun: a publisher still sends reports of it
    until it closes."""

    stream: str
    running: bool = False
    action: str | None = None
    since: Moment | None = None
    now: dict[str, Any] | None = None
    last_seq: int = -1
    utc_ns: int = 0
    ended: str | None = None

    def after(self, event: Event) -> StreamState:
        """The state after one more event."""
        session = event.run.get("session")
        over = isinstance(event, End) or (not event.durable and session is not None and session == self.ended)
        known = replace(
            self,
            last_seq=getattr(event, "seq" if event.durable else "last_seq", self.last_seq),
            utc_ns=event.run.get("utc_ns", self.utc_ns),
            running=not over,
            ended=session if over else None,
        )
        if isinstance(event, Transition):
            return replace(known, action=event.to, since=event.boundary)
        if isinstance(event, Now):
            return replace(known, now=event.brief())
        if isinstance(event, (Heartbeat, Snapshot)):
            return replace(known, action=event.action, since=event.since, now=event.now)
        if isinstance(event, (Start, End)) or (isinstance(event, Gap) and event.reset):
            return replace(known, action=None, since=None, now=None)
        return known

    def to_json(self) -> bytes:
        told = {name: value for name, value in vars(self).items() if name != "ended"}
        return json.dumps(told, default=vars, ensure_ascii=False).encode()
