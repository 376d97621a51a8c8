"""What a station can be told, and what it says when it is over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.curve_keys import ServerKeys
from edge_hal.runtime.delivery.endpoint import DEFAULT_ENDPOINT, check_endpoint
from edge_hal.runtime.options import RunOptions, Summary
from edge_hal.runtime.runner import check_run


@dataclass(frozen=True)
class AddressOptions:
    """What the streams of a station share.

    Attributes:
        endpoint: events are published here.
        replay: past events are requested here; None: the port after `endpoint`, or `.replay`.
        metrics: `/metrics` and `/health` are served here; None: nowhere.
        keys, insecure: see `SharedAddress`.
    """

    endpoint: str = DEFAULT_ENDPOINT
    replay: str | None = None
    keys: ServerKeys | None = None
    insecure: bool = False
    metrics: str | None = None


@dataclass(frozen=True)
class StationOptions:
    """`streams`: the options of each stream by its name; where events are published is in `address`, not there.
    `priority`: of streams by name, else 0. If the machine is too slow for all, those with the highest come first."""

    streams: Mapping[str, RunOptions]
    address: AddressOptions = field(default_factory=AddressOptions)
    priority: Mapping[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse before anything is opened what cannot work.

        Raises:
            EdgeHalError: what and why, and in which stream.
        """
        address = self.address
        for endpoint in filter(None, (address.endpoint, address.replay)):
            check_endpoint(endpoint, insecure=address.insecure, encrypted=address.keys is not None)
        for name in self.streams:
            check_name(name)
        for key in ("journal", "record", "preview"):
            users: dict[str, str] = {}
            for name, options in self.streams.items():
                given = getattr(options, key)
                place = str(given.absolute()) if isinstance(given, Path) else given
                if place is None or place.endswith(":*") or (other := users.setdefault(place, name)) == name:
                    continue
                what = f"the streams '{other}' and '{name}' have the same {key}"
                raise EdgeHalError(what, str(given), f"give each a {key} of its own", exit_code=2)
        for name, options in self.streams.items():
            try:
                check_run(options)
            except EdgeHalError as error:
                what = f"stream '{name}': {error.what}"
                raise EdgeHalError(what, error.why, error.todo, exit_code=error.exit_code) from error


@dataclass(frozen=True)
class StationSummary:
    """What each stream did in its last run, by name; None for one that never began."""

    streams: Mapping[str, Summary | None]

    def to_dict(self) -> dict[str, Any]:
        return {"streams": {name: None if each is None else each.to_dict() for name, each in self.streams.items()}}


def check_name(name: str) -> None:
    """Raises EdgeHalError unless `name` can name a stream of a station: it is part of topics, files and labels."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}", name):
        why = "it must be 1 to 50 letters, digits, '_', '-' and '.', and begin with a letter or digit"
        raise EdgeHalError(f"'{name}' cannot name a stream of a station", why, "rename it", exit_code=2)
