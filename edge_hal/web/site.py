"""What the servers of all pages share: the files of the page, the check of the token, and the WebSocket `/live`.

Nothing is received from a page over a WebSocket: a page that sends anything there is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from .access import PROTOCOL, Guard
from .hub import Hub

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
TRY_LATER, NOTHING = 1013, 4004
"""Codes of a WebSocket that is closed: too many are open; there is nothing to send."""
SHARED = Path(__file__).parent / "page"

log = logging.getLogger("edge_hal.web")


class Site:
    """An ASGI application, `app`.

    Args:
        page: the folder of the page; the files in `SHARED` belong to every page.
        hello: the first messages to a page that connects to `/live`. What the hub tells follows.
        start: called in the event loop before the first request.
        stop: called when the server stops.
    """

    def __init__(
        self,
        page: Path,
        hub: Hub,
        hello: Callable[[], Awaitable[Sequence[str]]],
        routes: Sequence[BaseRoute],
        token: str,
        hosts: frozenset[str] | None,
        start: Callable[[], None] = lambda: None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._hub, self._hello, self._start, self._stop = hub, hello, start, stop
        files = [path for folder in (SHARED, page) for path in folder.iterdir() if path.suffix in TYPES]
        self._files = {f"/{path.name}": (path.read_bytes(), TYPES[path.suffix]) for path in files}
        self._files["/"] = self._files.pop("/index.html")
        every = [
            Route("/data/check", self._check),
            WebSocketRoute("/live", self._live),
            *routes,
            Route("/{name:path}", self._file),
        ]
        site = Starlette(routes=every, lifespan=self._lifespan, exception_handlers=FAILURES)
        self.app = Guard(site, token, hosts)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._hub.open()
        self._start()
        try:
            yield
        finally:
            self._stop()

    async def _file(self, request: Request) -> Response:
        """A file of the page. They were read at the start, so no path leads elsewhere."""
        body, kind = self._files.get(request.url.path, (None, ""))
        return Response("no such page\n", 404) if body is None else Response(body, media_type=kind)

    async def _check(self, request: Request) -> Response:
        """The token is right, else the guard had answered. A page cannot see why a WebSocket was refused."""
        return Response(status_code=204)

    async def _live(self, socket: WebSocket) -> None:
        page = self._hub.join()
        try:
            await socket.accept(PROTOCOL)
            if page is None:
                return await socket.close(TRY_LATER)
            first = await self._hello()

            async def send() -> None:
                for text in first:
                    await socket.send_text(text)
                while True:
                    await socket.send_text(await page.next())

            await until_one_ends(socket, send(), page.full.wait())
        finally:
            if page is not None:
                self._hub.leave(page)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of ours. The page shows one line, and the log has the traceback."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": f"a fault of edge-hal, see its log: {type(error).__name__}: {error}"[:400]}, 500)


async def _left(request: Request, error: Exception) -> Response:
    """The page has gone before it had sent all; nobody reads the answer."""
    return Response(status_code=400)


FAILURES: Mapping[Any, Callable[[Request, Any], Awaitable[Response]]] = {ClientDisconnect: _left, Exception: _failed}


async def until_one_ends(socket: WebSocket, *work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> None:
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
