"""Events on the wire: each is one JSON object under the topic of its stream and type."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from edge_hal.errors import EdgeHalError

from .event_types import TYPES, Event, Moment, Unknown

SCHEMA = 1


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
