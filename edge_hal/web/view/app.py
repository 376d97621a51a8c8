"""The answers of the server of `edge-hal view`: events, their history, and pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.web.access import PROTOCOL
from edge_hal.web.hub import Hub
from edge_hal.web.site import NOTHING, TRY_LATER, Site, until_one_ends

from .history import PAGE_EVENTS, History
from .pictures import address_of, pictures
from .recorded import Recorded
from .steps import Procedures

PAGE = Path(__file__).parent / "page"
PICTURE_S = 10.0
"""A page that does not take a picture for this long is dropped."""
WATCHERS = 32


class View:
    """What the page asks for; `site` is the application.

    Args:
        start: called in the event loop before the first request.
        troubles: sentences on what is wrong at present.
    """

    def __init__(
        self,
        history: History,
        hub: Hub,
        procedures: Procedures,
        recorded: Recorded,
        keys: ClientKeys | None,
        token: str,
        hosts: frozenset[str] | None,
        start: Callable[[], None] = lambda: None,
        troubles: Callable[[], list[str]] = list,
    ) -> None:
        self._history, self._procedures, self._keys, self._troubles = history, procedures, keys, troubles
        self._recorded = recorded
        self._watchers = 0
        routes = [
            Route("/data/history", self._page),
            Route("/data/recorded", self._listed),
            Route("/data/recorded/picture", self._recorded_picture),
            WebSocketRoute("/pictures", self._pictures),
        ]
        self.site = Site(PAGE, hub, self._hello, routes, token, hosts, start)

    async def _hello(self) -> Sequence[str]:
        streams, recorded = self._history.hello(), bool(self._recorded)
        hello = {"type": "hello", "version": __version__, "recorded": recorded, "streams": streams}
        first = [json.dumps(hello), troubles_message(self._troubles())]
        for name, bundle in self._history.bundles().items():
            if (steps := await run_in_threadpool(self._procedures.steps, *bundle)) is not None:
                first.append(procedure_message(name, steps))
        return first

    async def _page(self, request: Request) -> Response:
        stream, before = (request.query_params.get(name, "") for name in ("stream", "before"))
        limit = request.query_params.get("limit", str(PAGE_EVENTS))
        if not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= PAGE_EVENTS:
            return JSONResponse({"error": f"limit must be 1 to {PAGE_EVENTS}"}, 400)
        try:
            page = await run_in_threadpool(self._history.page, stream, before, int(limit))
        except EdgeHalError as error:
            return JSONResponse({"error": f"{error.what}: {error.why}"}, 503)
        if page is None:
            return JSONResponse({"error": "no such stream or place"}, 404)
        return Response(page.json(), media_type="application/json")

    async def _listed(self, request: Request) -> Response:
        session = request.query_params.get("session", "")
        begin, end = (_time(request.query_params.get(name, "")) for name in ("begin", "end"))
        if begin is None or end is None:
            return JSONResponse({"error": "begin and end must be nanoseconds"}, 400)
        return JSONResponse(await run_in_threadpool(self._recorded.listed, session, begin, end))

    async def _recorded_picture(self, request: Request) -> Response:
        session, t_ns = request.query_params.get("session", ""), _time(request.query_params.get("at", ""))
        picture = None if t_ns is None else await run_in_threadpool(self._recorded.picture, session, t_ns)
        if picture is None:
            return JSONResponse({"error": "no such picture, or no more"}, 404)
        return Response(picture, media_type="image/jpeg")

    async def _pictures(self, socket: WebSocket) -> None:
        stream = socket.query_params.get("stream", "")
        found = self._history.preview(stream)
        address = None if found is None else address_of(*found)
        await socket.accept(PROTOCOL)
        if address is None or self._watchers >= WATCHERS:
            return await socket.close(NOTHING if address is None else TRY_LATER)

        async def send() -> None:
            async for picture in pictures(address, stream, self._keys):
                await asyncio.wait_for(socket.send_bytes(picture), PICTURE_S)

        self._watchers += 1
        try:
            await until_one_ends(socket, send())
        finally:
            self._watchers -= 1


def _time(text: str) -> int | None:
    """Nanoseconds, of at most nineteen digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def procedure_message(stream: str, steps: list[dict[str, Any]]) -> str:
    return json.dumps({"type": "procedure", "stream": stream, "steps": steps})


def troubles_message(whys: Sequence[str]) -> str:
    """All that is wrong at present; nothing if all is well."""
    return json.dumps({"type": "troubles", "whys": whys})
