"""Who may use the server: a secret token, the names it answers to, and what its pages may load.

The token is in the fragment of the address (`http://127.0.0.1:8570/#TOKEN`). A browser sends a fragment to nobody, so
the token is in no log, no `Referer` and no proxy. The page keeps it in the storage of its origin, which includes the
port, and sends it in a header. A cookie would go to every port of the machine, also to servers of other users.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, private
from edge_hal.files.key_files import read_secret
from edge_hal.files.user_folders import state_folder

PROTOCOL = "edge-hal"
"""The WebSocket protocol that the server accepts. The page offers it and the token, because a browser lets a page
set no other header of a WebSocket."""
PORT = re.compile(r":\d+$")
TOKEN = re.compile(r"[0-9a-f]{64}")
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def default_token_file(page: str) -> Path:
    """Where the token of a page is kept, under XDG_STATE_HOME."""
    return state_folder() / f"{page}.token"


def kept_token(path: Path) -> str:
    """The token of this file, which is made if it is missing. So a page that is open can connect again after the server
    was restarted. Delete the file to get another token.

    Raises:
        EdgeHalError: the file cannot be read or written, or others can.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError), open(path, "x", opener=private) as file:
            file.write(f"{secrets.token_hex(32)}\n")
    except OSError as error:
        todo = "choose another --token-file"
        raise file_error(f"cannot write the token file {path}", error, todo, path=path) from error
    token = read_secret(path).decode("ascii", "replace").strip()
    if not TOKEN.fullmatch(token):
        raise EdgeHalError(f"{path} holds no token", "it must have 64 hexadecimal digits", "delete it to get a new one")
    return token


class Guard:
    """Answers only to the names of this server, and adds `HEADERS` to each answer.

    A page of another site can point a name of its own at 127.0.0.1 (DNS rebinding). Its requests carry that name.

    Args:
        hosts: the names it answers to, at any port, as a tunnel may have another; None: to any, as with TLS, where the
            certificate holds the names.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:
            await PlainTextResponse(f"{refused[1]}\n", refused[0])(scope, receive, send_with_headers)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Why a request is refused; None if it is not. The page itself is no secret and needs no token."""
        host = headers.get("host", "")
        if self._hosts is not None and PORT.sub("", host) not in self._hosts:
            return 421, "this server does not have that name"
        if scope["type"] == "websocket":
            offered = scope["subprotocols"]
            if headers.get("origin") not in (f"http://{host}", f"https://{host}"):
                return 403, "another site"
            if PROTOCOL not in offered or not any(self._is_token(each) for each in offered):
                return 401, "wrong token"
        elif scope["path"].startswith("/data/"):
            kind, _, token = headers.get("authorization", "").partition(" ")
            if kind != "Bearer" or not self._is_token(token):
                return 401, "wrong token"
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())
