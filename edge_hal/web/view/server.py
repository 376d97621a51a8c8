"""Serves the page of `edge-hal view`: subscribes to publishers, reads journals, and answers the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.web.hub import Hub
from edge_hal.web.serving import PageAddress, check_address, serve_page

from .app import View, procedure_message, troubles_message
from .feed import Feed
from .history import History
from .recorded import Recorded
from .steps import Procedures
from .troubles import Troubles


@dataclass(frozen=True)
class ViewOptions:
    """What the server can be told.

    Attributes:
        connect: addresses of publishers; empty: journals alone.
        replay: where past events are requested; with one publisher only.
        journals: files with older events.
        bundles: bundles or task folders whose procedure is shown.
        recordings: folders of `edge-hal run --record`, whose pictures a segment plays.
    """

    address: PageAddress
    connect: Sequence[str] = ()
    stream: str | None = None
    replay: str | None = None
    journals: Sequence[Path] = ()
    bundles: Sequence[Path] = ()
    recordings: Sequence[Path] = ()
    keys: ClientKeys | None = None


def serve(options: ViewOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        on_ready: called with the address, token included, once it is bound.

    Raises:
        EdgeHalError: as `serve_page`; a journal or an address of a publisher cannot be used.
    """
    check_address(options.address)
    history, hub = History(options.journals), Hub()
    procedures, recorded = Procedures(options.bundles), Recorded(options.recordings)

    def tell(raw: bytes) -> None:
        hub.tell(raw.decode())
        for stream, bundle in history.bundles().items():
            if told.get(stream) != bundle:
                told[stream] = bundle
                if (steps := procedures.steps(*bundle)) is not None:
                    hub.tell(procedure_message(stream, steps))

    def start() -> None:
        troubles.start()
        for feed in feeds:
            feed.start()

    def application(hosts: frozenset[str] | None) -> Any:
        token = options.address.token
        return View(history, hub, procedures, recorded, options.keys, token, hosts, start, troubles.now).site.app

    told: dict[str, tuple[str, str]] = {}
    troubles = Troubles(lambda whys: hub.tell(troubles_message(whys)))
    feeds = [
        Feed(each, options.stream, options.replay, options.keys, history, tell, troubles) for each in options.connect
    ]
    serve_page(options.address, application, on_ready)
