"""A fault of ours on a page: one line for the page, and the traceback in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hal.web.hub import Hub
from edge_hal.web.site import SHARED, Site


def test_a_fault_of_ours_is_one_line_on_the_page_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError("a bug")

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def nothing() -> list[str]:
        return []

    page = SHARED.parent / "view" / "page"
    site = Site(page, Hub(), nothing, [Route("/broken", broken)], "0" * 64, None)
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/broken"},
        **{"raw_path": b"/broken", "query_string": b"", "headers": [], "root_path": ""},
    }
    with pytest.raises(ZeroDivisionError):  # starlette raises it again for the server, which logs nothing
        asyncio.run(site.app(scope, receive, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"]) == {"error": "a fault of edge-hal, see its log: ZeroDivisionError: a bug"}
    assert "GET /broken failed" in caplog.text and "Traceback" in caplog.text
