"""What a station can be told, and what it says when it is over."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_hal.decoding.fusion import LARGEST_WEIGHT, check_fusable
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.prometheus import parse_address
from edge_hal.runtime.network.curve_keys import ServerKeys
from edge_hal.runtime.network.endpoint import DEFAULT_ENDPOINT, check_endpoint
from edge_hal.runtime.options import RunOptions, Summary
from edge_hal.runtime.runner import check_run, check_source

DEFAULT_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0


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
class FusedOptions:
    """A stream whose posteriors are those of other streams, combined (`decoding/fusion.py`).

    Attributes:
        run: what it does with them: decisions, reports, journal. Bundle, source and pace are those of the first view.
        views: names of streams with a source of their own, at least two.
        weights: how much each view counts; None: all the same.
        wait_s: how long a view that is late is waited for.
    """

    run: RunOptions
    views: tuple[str, ...]
    weights: Mapping[str, float] | None = None
    wait_s: float = DEFAULT_WAIT_S

    def check(self, streams: Mapping[str, RunOptions]) -> None:
        """Raises EdgeHalError (exit code 2) if these views cannot be fused; `streams`: those with a source."""
        check_views(self.views, streams)
        if not 0 <= self.wait_s <= LONGEST_WAIT_S:
            raise EdgeHalError(f"wait = {self.wait_s:g} s", f"it lies in 0..{LONGEST_WAIT_S:g}", exit_code=2)
        if self.weights is not None:
            if set(self.weights) != set(self.views):
                why = f"weights of {', '.join(self.weights) or 'nothing'}; views: {', '.join(self.views)}"
                raise EdgeHalError("weights: they are not those of the views", why, "give each view one", exit_code=2)
            right = all(0 <= weight <= LARGEST_WEIGHT for weight in self.weights.values())
            if not right or not any(self.weights.values()):
                why = f"each lies in 0..{LARGEST_WEIGHT:g}, and not all are 0"
                raise EdgeHalError(f"weights: {dict(self.weights)}", why, exit_code=2)
        paces = {streams[view].pace for view in self.views}
        if len(paces) > 1:
            why = "files at full pace have no common time with others"
            raise EdgeHalError("fuse: the views have several paces", why, "give all the same pace", exit_code=2)
        check_fusable(self.views, [check_run(streams[view]).spec for view in self.views])


@dataclass(frozen=True)
class StationOptions:
    """`streams`: the options of each stream by its name; where events are published is in `address`, not there.
    `fused`: those of fused streams. `priority`: of streams by name, else 0. If the machine is too slow for all, those
    with the highest come first."""

    streams: Mapping[str, RunOptions]
    address: AddressOptions = field(default_factory=AddressOptions)
    priority: Mapping[str, int] = field(default_factory=dict)
    fused: Mapping[str, FusedOptions] = field(default_factory=dict)

    @property
    def runs(self) -> dict[str, RunOptions]:
        """The options of all streams, fused ones last."""
        return {**self.streams, **{name: each.run for name, each in self.fused.items()}}

    def check(self, *, sources: bool = False) -> None:
        """Refuse before anything is opened what cannot work.

        Args:
            sources: look at files and folders too. A station that runs waits for one that is missing.

        Raises:
            EdgeHalError: what and why, and in which stream.
        """
        address = self.address
        for endpoint in filter(None, (address.endpoint, address.replay)):
            check_endpoint(endpoint, insecure=address.insecure, encrypted=address.keys is not None)
        if address.metrics is not None:
            parse_address(address.metrics)
        for name in self.runs:
            check_name(name)
        for key in ("journal", "record", "preview"):
            users: dict[str, str] = {}
            for name, options in self.runs.items():
                given = getattr(options, key)
                place = os.path.realpath(given) if isinstance(given, Path) else given
                if place is None or place.endswith(":*") or (other := users.setdefault(place, name)) == name:
                    continue
                what = f"the streams '{other}' and '{name}' have the same {key}"
                raise EdgeHalError(what, str(given), f"give each a {key} of its own", exit_code=2)
        for name, options in self.runs.items():
            try:
                bundle = check_run(options)
                if name in self.fused:
                    self.fused[name].check(self.streams)
                elif sources:
                    check_source(options, bundle)
            except EdgeHalError as error:
                what = f"stream '{name}': {error.what}"
                raise EdgeHalError(what, error.why, error.todo, exit_code=error.exit_code) from error


@dataclass(frozen=True)
class StationSummary:
    """What each stream did in its last run, by name; None for one that never began."""

    streams: Mapping[str, Summary | None]

    def to_dict(self) -> dict[str, Any]:
        return {"streams": {name: None if each is None else each.to_dict() for name, each in self.streams.items()}}


def check_views(views: Sequence[str], streams: Collection[str]) -> None:
    """Raises EdgeHalError (exit code 2) unless `views` are two or more of these streams."""
    for number, view in enumerate(views):
        if view not in streams:
            near = difflib.get_close_matches(view, streams, n=1, cutoff=0.5)
            todo = f"did you mean {near[0]}?" if near else f"streams with a source: {', '.join(streams)}"
            raise EdgeHalError(f"fuse: there is no stream '{view}' with a source", "", todo, exit_code=2)
        if view in views[:number]:
            raise EdgeHalError(f"fuse: '{view}' twice", "", "name each view once", exit_code=2)
    if len(views) < 2:
        why = "one view has nothing to be combined with"
        raise EdgeHalError("fuse: it needs two streams", why, "write fuse: [left, right]", exit_code=2)


def check_name(name: str) -> None:
    """Raises EdgeHalError unless `name` can name a stream of a station: it is part of topics, files and labels."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}", name):
        why = "it must be 1 to 50 letters, digits, '_', '-' and '.', and begin with a letter or digit"
        raise EdgeHalError(f"'{name}' cannot name a stream of a station", why, "rename it", exit_code=2)
