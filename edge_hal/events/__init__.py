"""The events that subscribers receive. `event_types.py`: a frozen dataclass for each type. `wire_format.py`: one JSON
object for each event."""

from .event_types import (
    TYPES,
    Cycle,
    Deviation,
    End,
    Event,
    Gap,
    Heartbeat,
    Lost,
    Moment,
    Now,
    Snapshot,
    Start,
    Transition,
    Unknown,
)
from .wire_format import SCHEMA, decode, encode, topic

__all__ = [
    "SCHEMA",
    "TYPES",
    "Cycle",
    "Deviation",
    "End",
    "Event",
    "Gap",
    "Heartbeat",
    "Lost",
    "Moment",
    "Now",
    "Snapshot",
    "Start",
    "Transition",
    "Unknown",
    "decode",
    "encode",
    "topic",
]
