"""The answers of the server: the page, its data, and two WebSockets, for events and for pictures.

Nothing is received from a page: a page that sends anything to a WebSocket is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.curve_keys import ClientKeys

from .access import PROTOCOL, Guard
from .history import PAGE_EVENTS, History
from .hub import Hub
from .pictures import address_of, pictures
from .steps import Procedures

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FULL, TRY_LATER, NOT_ALLOWED, NOTHING = 4008, 1013, 1008, 4004
"""Codes of a WebSocket that is closed: it is too slow; too many are open; it sent something; there are no pictures."""
PICTURE_S = 10.0
"""A page that does not take a picture for so long is dropped."""
WATCHERS = 32


class Site:
    """The page and what it asks for.

    Args:
        start: called in the event loop before the first request.
        troubles: sentences on what is wrong at present.
    """

    def __init__(
        self,
        history: History,
        hub: Hub,
        procedures: Procedures,
        keys: ClientKeys | None,
        token: str,
        hosts: frozenset[str] | None,
        start: Callable[[], None] = lambda: None,
        troubles: Callable[[], list[str]] = list,
    ) -> None:
        self._history, self._hub, self._procedures, self._keys = history, hub, procedures, keys
        self._start, self._troubles = start, troubles
        self._watchers = 0
        folder = Path(__file__).parent / "page"
        self._files = {f"/{path.name}": (path.read_bytes(), TYPES[path.suffix]) for path in folder.iterdir()}
        self._files["/"] = self._files.pop("/index.html")
        routes = [
            Route("/data/check", self._check),
            Route("/data/history", self._page),
            WebSocketRoute("/live", self._live),
            WebSocketRoute("/pictures", self._pictures),
            Route("/{name:path}", self._file),
        ]
        self.app = Guard(Starlette(routes=routes, lifespan=self._lifespan), token, hosts)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._hub.open()
        self._start()
        yield

    async def _file(self, request: Request) -> Response:
        """A file of the page. They were read at the start, so no path leads elsewhere."""
        body, kind = self._files.get(request.url.path, (None, ""))
        return Response("no such page\n", 404) if body is None else Response(body, media_type=kind)

    async def _check(self, request: Request) -> Response:
        """The token is right, else the guard had answered. A page cannot see why a WebSocket was refused."""
        return Response(status_code=204)

    async def _page(self, request: Request) -> Response:
        stream, before = (request.query_params.get(name, "") for name in ("stream", "before"))
        limit = request.query_params.get("limit", str(PAGE_EVENTS))
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= PAGE_EVENTS:
            return JSONResponse({"error": f"limit must be 1 to {PAGE_EVENTS}"}, 400)
        try:
            page = await run_in_threadpool(self._history.page, stream, before, int(limit))
        except EdgeHalError as error:
            return JSONResponse({"error": f"{error.what}: {error.why}"}, 503)
        if page is None:
            return JSONResponse({"error": "no such stream or place"}, 404)
        return Response(page.json(), media_type="application/json")

    async def _live(self, socket: WebSocket) -> None:
        page = self._hub.join()
        try:
            await socket.accept(PROTOCOL)
            if page is None:
                return await socket.close(TRY_LATER)
            hello = {"type": "hello", "version": __version__, "streams": self._history.hello()}
            first = [json.dumps(hello), *map(trouble_message, self._troubles())]
            for name, bundle in self._history.bundles().items():
                if (steps := await run_in_threadpool(self._procedures.steps, bundle)) is not None:
                    first.append(procedure_message(name, steps))

            async def send() -> None:
                for text in first:
                    await socket.send_text(text)
                while True:
                    await socket.send_text(await page.next())

            await _until_one_ends(socket, send(), page.full.wait())
        finally:
            if page is not None:
                self._hub.leave(page)

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
            await _until_one_ends(socket, send())
        finally:
            self._watchers -= 1


def procedure_message(stream: str, steps: list[dict[str, Any]]) -> str:
    return json.dumps({"type": "procedure", "stream": stream, "steps": steps})


def trouble_message(why: str) -> str:
    return json.dumps({"type": "trouble", "why": why})


async def _until_one_ends(socket: WebSocket, *work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> None:
    """Until the page leaves or sends something, or one of `work` ends. Then the connection ends at once: a page that
    does not read would keep what waits for it for ever."""
    tasks = [asyncio.ensure_future(each) for each in (socket.receive(), *work)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(Exception):
            await asyncio.gather(*tasks, return_exceptions=True)
        socket.scope["state"].get("abort", lambda: None)()
