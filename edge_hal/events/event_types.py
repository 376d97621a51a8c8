"""The types of events. Each is a frozen dataclass, named in the class attribute `type` as in the JSON field `type`.

Durable events (`start`, `transition`, `deviation`, `cycle`, `gap`, `end`) carry a sequence number `seq` for each
stream, counted from 0 without holes and never repeated. `now`, `heartbeat` and `snapshot` report the state and have no
`seq` of their own. Values that differ between two runs over the same file (session, wall time, latency)
are in the object `run` and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Moment:
    """A point of stream time. `tick` counts the model's ticks from the start of the epoch. `frame` is the index of the
    source's frame that the model saw at this tick. `t_ns` is nanoseconds since the first frame of the stream."""

    tick: int
    frame: int
    t_ns: int


@dataclass(frozen=True)
class Event:
    """The fields that all events have. `epoch` counts how often the model was reset within the stream."""

    type: ClassVar[str] = ""
    durable: ClassVar[bool] = True

    stream: str
    epoch: int
    run: dict[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Start(Event):
    """A stream began. `labels` are all actions that a transition can name. `source` never holds credentials. `bundle`
    and `decoder` are fingerprints. `resumed`: what was believed before the run and is believed still (docs/events.md);
    None if nothing is."""

    type: ClassVar[str] = "start"
    seq: int
    source: str
    labels: tuple[str, ...]
    model_hz: float
    bundle: str
    decoder: str
    resumed: dict[str, Any] | None = None


@dataclass(frozen=True)
class Transition(Event):
    """One action ended and the next began, at `boundary`; the decoder knew it at `decision`. `from_` is None for the
    first action of an epoch. `confidence` is the posterior of `to` at the decision. `warm` is false until the model has
    seen one full receptive field."""

    type: ClassVar[str] = "transition"
    seq: int
    from_: str | None
    to: str
    boundary: Moment
    decision: Moment
    confidence: float
    warm: bool
    decoder: str


@dataclass(frozen=True)
class Deviation(Event):
    """The procedure was left. It is never withdrawn; a later deviation may correct it.

    Attributes:
        kind: `skipped`, `out_of_order`, `repeated`, `overdue` or `unfamiliar`.
        expected: the actions that the procedure asks for at this point; empty if none in particular.
        seen: the action that goes on; None for `unfamiliar` before the first action.
        evidence: why it is believed, in words.
        boundary: where the procedure was left. decision: when that was decided.
        confidence: 0..1.
        corrects: the `seq` of an earlier deviation that this one corrects.
    """

    type: ClassVar[str] = "deviation"
    seq: int
    kind: str
    expected: tuple[str, ...]
    seen: str | None
    evidence: str
    boundary: Moment
    decision: Moment
    confidence: float
    corrects: int | None
    decoder: str


@dataclass(frozen=True)
class Cycle(Event):
    """One pass of the procedure, from `begin` to `end`.

    Attributes:
        steps: the actions in the order in which they were done: `{"action": ..., "begin_t_ns": ..., "end_t_ns": ...}`.
        deviations: those of this pass: `{"seq": ..., "kind": ...}`.
        missing: the required actions that were not done.
        complete: nothing is missing, and all of it lies in this epoch.
        before: the actions of a pass that began before the epoch and were over then; None if it began in the epoch.
    """

    type: ClassVar[str] = "cycle"
    seq: int
    begin: Moment
    end: Moment
    steps: tuple[dict[str, Any], ...]
    deviations: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    complete: bool
    decoder: str
    before: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Gap(Event):
    """The model did not see the time from `begin` to `end`. With `reset` the epoch ends, and the next transition has
    `from_` None. `bundle` and `decoder` are those used after the gap; they are new if the reason is `reload`.
    `resumed`: as in `Start`, for the epoch that begins."""

    type: ClassVar[str] = "gap"
    seq: int
    reason: str
    begin: Moment
    end: Moment
    lost_ticks: int
    reset: bool
    bundle: str
    decoder: str
    resumed: dict[str, Any] | None = None


@dataclass(frozen=True)
class End(Event):
    """The stream ended. `reason` is `eof`, `signal`, `source` or `error`. `counters` account for every frame and every
    tick (docs/events.md)."""

    type: ClassVar[str] = "end"
    seq: int
    reason: str
    last: Moment
    counters: dict[str, Any]


@dataclass(frozen=True)
class Now(Event):
    """What most likely goes on at `at`. It may be withdrawn by the next one; a `transition` is final.

    Attributes:
        action: the most probable action. probability: of it.
        since: when it began, most probably; None if that has left the buffer.
        others: the next most probable actions: `{"action": ..., "probability": ...}`, at most two.
        next: which actions may follow `action`, most probable first, each with its probability.
        remaining_s: how long `action` still lasts: the quantiles `p10`, `p50` and `p90`, in seconds.
        progress: share of the usual time of the cycle that has passed, 0..1; None if the procedure does not say where a
            cycle ends.
    """

    type: ClassVar[str] = "now"
    durable: ClassVar[bool] = False
    at: Moment
    action: str
    probability: float
    since: Moment | None
    others: tuple[dict[str, Any], ...]
    next: tuple[dict[str, Any], ...]
    remaining_s: dict[str, Any]
    progress: float | None
    last_seq: int = -1

    def brief(self) -> dict[str, Any]:
        """The fields of its own, as heartbeats and snapshots hold them."""
        return {key: value for key, value in vars(self).items() if key not in ("stream", "epoch", "run", "last_seq")}


@dataclass(frozen=True)
class Heartbeat(Event):
    """Sent once a second: the current action and when it began (`since`), the last durable `seq`, the counters, the
    state of source and model (`health`), and the state of journal and subscribers (`delivery`). `now` has the fields of
    the newest event `now`; None without one."""

    type: ClassVar[str] = "heartbeat"
    durable: ClassVar[bool] = False
    action: str | None
    since: Moment | None
    last_seq: int
    counters: dict[str, Any]
    health: dict[str, Any]
    delivery: dict[str, Any]
    now: dict[str, Any] | None = None


@dataclass(frozen=True)
class Snapshot(Event):
    """The state of a stream. It is sent to all subscribers whenever one subscribes, so the others receive it again."""

    type: ClassVar[str] = "snapshot"
    durable: ClassVar[bool] = False
    action: str | None
    since: Moment | None
    last_seq: int
    labels: tuple[str, ...]
    bundle: str
    decoder: str
    now: dict[str, Any] | None = None


@dataclass(frozen=True)
class Unknown(Event):
    """An event of a type that this version does not know, from a newer publisher. `body` is the whole JSON object.
    `seq` is -1 for a report."""

    type: str = field(default="", kw_only=True)  # type: ignore[misc]  # of the event, not of the class
    seq: int = -1
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost(Event):
    """Made by the client, never sent: the durable events with `seq` from `from_` to `to` are no longer available."""

    type: ClassVar[str] = "lost"
    durable: ClassVar[bool] = False
    from_: int
    to: int


TYPES: dict[str, type[Event]] = {
    event.type: event for event in (Start, Transition, Deviation, Cycle, Gap, End, Now, Heartbeat, Snapshot, Lost)
}
"""Event classes by the name in the JSON field `type`."""
