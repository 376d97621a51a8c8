"""The events subscribers receive. Every kind is a frozen dataclass; on the wire it is one JSON object.

Durable kinds (`start`, `transition`, `gap`, `end`) carry a per-stream `seq`, dense from 0 and never repeated.
`heartbeat` and `snapshot` report state and carry no `seq` of their own. Whatever differs between two runs over
the same file (session, wall time, latency) sits in the object `run` and nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edge_hal.errors import EdgeHalError

SCHEMA = 1


@dataclass(frozen=True)
class Moment:
    """A point of stream time: `tick` is dense within the epoch, `frame` the source's frame shown at it,
    `t_ns` nanoseconds since the stream's first frame."""

    tick: int
    frame: int
    t_ns: int


@dataclass(frozen=True)
class Event:
    """What all events share. `epoch` counts the model's fresh starts within the stream."""

    kind: ClassVar[str] = ""
    durable: ClassVar[bool] = True

    stream: str
    epoch: int
    run: dict[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Start(Event):
    """A stream began. `labels` are all a transition can name; `source` never carries credentials."""

    kind: ClassVar[str] = "start"
    seq: int
    source: str
    labels: tuple[str, ...]
    model_hz: float
    bundle: str
    decoder: str


@dataclass(frozen=True)
class Transition(Event):
    """One action gave way to the next. `from_` is None for the first of an epoch; `confidence` is the
    posterior of `to` at the decision; `warm` is false until the model has seen a full receptive field."""

    kind: ClassVar[str] = "transition"
    seq: int
    from_: str | None
    to: str
    boundary: Moment
    decision: Moment
    confidence: float
    warm: bool
    decoder: str


@dataclass(frozen=True)
class Gap(Event):
    """Time the model did not see. With `reset` the epoch ends and the next label starts from None. `bundle` and
    `decoder` are those that go on: other ones than before where the reason is `reload`."""

    kind: ClassVar[str] = "gap"
    seq: int
    reason: str
    begin: Moment
    end: Moment
    lost_ticks: int
    reset: bool
    bundle: str
    decoder: str


@dataclass(frozen=True)
class End(Event):
    """The stream ended: `reason` is `eof`, `signal`, `source` or `error`. `counters` obey both laws."""

    kind: ClassVar[str] = "end"
    seq: int
    reason: str
    last: Moment
    counters: dict[str, Any]


@dataclass(frozen=True)
class Heartbeat(Event):
    """Once a second: what goes on now, since when, the last durable `seq`, the counters, how the source and the
    state are (`health`), and whether events are kept (`delivery`)."""

    kind: ClassVar[str] = "heartbeat"
    durable: ClassVar[bool] = False
    action: str | None
    since: Moment | None
    last_seq: int
    counters: dict[str, Any]
    health: dict[str, Any]
    delivery: dict[str, Any]


@dataclass(frozen=True)
class Snapshot(Event):
    """The state of a stream, sent to everybody when somebody subscribes: taking it twice does no harm."""

    kind: ClassVar[str] = "snapshot"
    durable: ClassVar[bool] = False
    action: str | None
    since: Moment | None
    last_seq: int
    labels: tuple[str, ...]
    bundle: str
    decoder: str


@dataclass(frozen=True)
class Lost(Event):
    """Never sent: what the client tells where durable events `from_` to `to` can no longer be had."""

    kind: ClassVar[str] = "lost"
    durable: ClassVar[bool] = False
    from_: int
    to: int


KINDS: dict[str, type[Event]] = {kind.kind: kind for kind in (Start, Transition, Gap, End, Heartbeat, Snapshot, Lost)}


def topic(event: Event) -> bytes:
    """`<stream>/<kind>`. ZeroMQ matches prefixes: subscribe to `<stream>/` and filter after ordering."""
    return f"{event.stream}/{event.kind}".encode()


def encode(event: Event) -> bytes:
    """One JSON object, UTF-8, keys in the order of the dataclass after `schema` and `type`."""
    body = {"from" if key == "from_" else key: value for key, value in vars(event).items()}
    run = body.pop("run")
    text = {"schema": SCHEMA, "type": event.kind, **body, "run": run}
    # `vars` for moments: `asdict` would copy everything there is, and cost more than all the rest.
    return json.dumps(text, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=vars).encode()


def decode(data: bytes | str) -> Event:
    """Inverse of `encode`. Fields this version does not know are ignored, as `docs/events.md` promises.

    Raises:
        EdgeHalError: not JSON, another schema, an unknown kind, or a field missing.
    """
    try:
        body = json.loads(data)
        schema, kind = body["schema"], KINDS[body["type"]]
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeHalError("a message is no edge-hal event", f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA:
        raise EdgeHalError(f"an event has schema {schema}", f"this version reads {SCHEMA}", "update the older side")
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        key = "from" if entry.name == "from_" else entry.name
        if key not in body:
            raise EdgeHalError(f"a {kind.kind} event lacks '{key}'")
        value = body[key]
        if entry.name in ("boundary", "decision", "begin", "end", "last", "since") and value is not None:
            value = Moment(value["tick"], value["frame"], value["t_ns"])
        elif entry.name == "labels":
            value = tuple(value)
        values[entry.name] = value
    return kind(**values)
