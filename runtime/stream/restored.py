"""Parts of a state that is restored. A file may hold anything, so numbers are checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_hal.events import Moment

LARGEST_TICK = 1 << 60


def restored_moment(state: dict[str, Any]) -> Moment:
    """Inverse of `asdict`. Raises ValueError if a number is out of range."""
    moment = Moment(**state)
    if not all(type(value) is int and 0 <= value < 1 << 62 for value in state.values()):
        raise ValueError("a moment is out of range")
    return moment


def check_decoder(state: Mapping[str, Any], labels: int, ticks: int) -> None:
    """Raises ValueError if this cannot be the state of a decoder after `ticks` ticks, with `labels` labels."""
    if state.get("newest_tick", -1) >= ticks:
        raise ValueError("the decoder is ahead of the model")
    for name in ("label", "candidate"):
        if state.get(name) is not None and state[name] not in range(labels):
            raise ValueError(f"the decoder's {name} is out of range")
    for name in ("since", "candidate_since", "newest_tick"):
        if not -LARGEST_TICK < state.get(name, 0) < LARGEST_TICK:
            raise ValueError(f"the decoder's {name} is out of range")


def check_belief(state: Mapping[str, Any], ticks: int, most_missing: int) -> None:
    """Raises ValueError if this cannot be the state of a belief after `ticks` ticks of a model. It lacks less than
    `most_missing` of them: those since the last decision that was due, and those of a step that was spoiled."""
    if not 0 <= ticks - 1 - state["newest_tick"] < most_missing:
        raise ValueError("the belief is not at the tick of the model")
