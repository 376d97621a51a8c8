"""The events that subscribers receive. Each type of event is a frozen dataclass, and one JSON object on the wire.

The class attribute `type` and the JSON field `type` hold the same name. Durable events (`start`, `transition`,
`deviation`, `cycle`, `gap`, `end`) carry a sequence number `seq` for each stream, counted from 0 without holes and
never repeated. `now`, `heartbeat` and `snapshot` report the state and have no `seq` of their own. Values that differ
between two runs over the same file (session, wall time, latency) are in the object `run` and nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from edge_hal.errors import EdgeHalError

SCHEMA = 1


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


def topic(event: Event) -> bytes:
    """`<stream>/<type>`. ZeroMQ matches topics by prefix: subscribe to `<stream>/` and filter after ordering."""
    return f"{event.stream}/{event.type}".encode()


def encode(event: Event) -> bytes:
    """One JSON object in UTF-8: `schema`, `type`, then the fields in the order of the dataclass."""
    if isinstance(event, Unknown):
        return json.dumps(event.body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    body = {"from" if key == "from_" else key: value for key, value in vars(event).items()}
    run = body.pop("run")
    text = {"schema": SCHEMA, "type": event.type, **body, "run": run}
    # `vars` for moments: `dataclasses.asdict` copies every value and takes longer than the rest of this function.
    return json.dumps(text, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=vars).encode()


def decode(data: bytes | str) -> Event:
    """Inverse of `encode`. Fields that this version does not know are ignored (`docs/events.md`).

    Whatever was received, the fields of an event have the types of its class; numbers are finite. An event of a type
    that this version does not know is `Unknown`.

    Raises:
        EdgeHalError: not JSON in UTF-8, another schema, a field that is missing or has another type.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        body = json.loads(text)
        if "\\ud" in text.lower():  # JSON can escape half a character, which no UTF-8 text holds
            json.dumps(body, ensure_ascii=False).encode()
        schema, event_class = body["schema"], TYPES.get(_read(str, body["type"]), Unknown)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:80]!a}"
        raise EdgeHalError("a message is not an edge-hal event", why) from error
    if schema != SCHEMA:
        shown = f"{schema!a:.40}"
        raise EdgeHalError(f"an event has schema {shown}", f"this version reads {SCHEMA}", "update the older side")
    values: dict[str, Any] = {}
    if event_class is Unknown:
        body = {"seq": -1, **body, "body": body}
    for entry in dataclasses.fields(event_class):
        key = "from" if entry.name == "from_" else entry.name
        if key not in body:
            if entry.default is not dataclasses.MISSING:  # a field that older publishers do not send
                continue
            raise EdgeHalError(f"a {event_class.type} event lacks '{key}'")
        try:
            values[entry.name] = _READERS[str(entry.type)](body[key])
        except (ValueError, KeyError, TypeError) as error:
            what = f"in a {event_class.type} event '{key}' is {body[key]!a:.40}"
            raise EdgeHalError(what, f"it must be: {entry.type}") from error
    return event_class(**values)


def _read(kind: type, value: Any) -> Any:
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise TypeError


def _integer(value: Any) -> int:
    if abs(_read(int, value)) < 2**63:
        return int(value)
    raise ValueError


def _number(value: Any) -> float:
    if isinstance(value, int):
        return _integer(value)
    if math.isfinite(_read(float, value)):
        return float(value)
    raise ValueError


def _moment(value: Any) -> Moment:
    return Moment(*(_integer(_read(dict, value)[name]) for name in ("tick", "frame", "t_ns")))


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _integer,
    "int | None": lambda value: None if value is None else _integer(value),
    "float": _number,
    "bool": partial(_read, bool),
    "str": partial(_read, str),
    "str | None": lambda value: None if value is None else _read(str, value),
    "float | None": lambda value: None if value is None else _number(value),
    "dict[str, Any] | None": lambda value: None if value is None else _read(dict, value),
    "tuple[dict[str, Any], ...]": lambda value: tuple(_read(dict, item) for item in _read(list, value)),
    "tuple[str, ...]": lambda value: tuple(_read(str, item) for item in _read(list, value)),
    "tuple[str, ...] | None": lambda value: (
        None if value is None else tuple(_read(str, item) for item in _read(list, value))
    ),
    "dict[str, Any]": partial(_read, dict),
    "Moment": _moment,
    "Moment | None": lambda value: None if value is None else _moment(value),
}
"""How the value of a field is read from JSON, by the type that its class declares."""
