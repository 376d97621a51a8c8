"""`edge-hal view`: a page in the browser that shows what runs recognise."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.listen import encryption
from edge_hal.commands.subscriber_options import Key, ServerKey
from edge_hal.errors import EdgeHalError


def view(
    connect: Annotated[
        list[str] | None,
        typer.Option(
            help="ZeroMQ address of a publisher, the --pub of `edge-hal run`. Repeat the option for several runs "
            "(default: tcp://127.0.0.1:5570; with --journal none)."
        ),
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="Show this stream alone (default: all that are published).")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            help="ZeroMQ address that past events are requested from, for one publisher (default: the port after that "
            "of --connect, or PATH.replay for ipc)."
        ),
    ] = None,
    journal: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Journal of a run, for events that are older than 12 hours, or for the history without a run. Repeat "
            "the option for several streams.",
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Bundle of a run, or a task folder: the page shows the steps in the order of its procedure. Repeat "
            "the option for several bundles (default: the folder bundle, if it is there).",
        ),
    ] = None,
    key: Key = None,
    server_key: ServerKey = None,
    host: Annotated[
        str, typer.Option(help="Address to serve the page on. Other than loopback addresses need --tls-cert.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve the page on; 0 takes a free one.")] = 8570,
    tls_cert: Annotated[
        Path | None, typer.Option(readable=False, help="Certificate (PEM), to serve other machines with HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(readable=False, help="Secret key of the certificate (PEM, without a passphrase).")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="File with the secret token of the address; it is made if it is missing (default: "
            "edge-hal/view.token under XDG_STATE_HOME).",
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
) -> None:
    """Show what runs recognise on a page in the browser. It can be started before or after the runs.

    The first line of the output is the address of the page. It holds a secret token: who has it can see everything.
    """
    require("starlette", "uvicorn", "wsproto", extra="web")
    from edge_hal.bundle import DEFAULT_PATH
    from edge_hal.runtime.delivery.endpoint import DEFAULT_ENDPOINT
    from edge_hal.web import server
    from edge_hal.web.access import default_token_file, kept_token

    logging.basicConfig(format="%(levelname)s: %(message)s")
    if (tls_cert is None) != (tls_key is None):
        todo = "give both --tls-cert and --tls-key"
        raise EdgeHalError("one TLS file is missing", "TLS needs a certificate and its key", todo, exit_code=2)
    connect = connect or ([] if journal else [DEFAULT_ENDPOINT])
    if replay is not None and len(connect) != 1:
        raise EdgeHalError("--replay", f"it belongs to one --connect, not to {len(connect)}", exit_code=2)
    options = server.ViewOptions(
        token=kept_token(token_file or default_token_file()),
        connect=tuple(connect),
        stream=stream,
        replay=replay,
        journals=tuple(journal or ()),
        bundles=tuple(bundle or ([DEFAULT_PATH] if DEFAULT_PATH.is_dir() else [])),
        keys=encryption(key, server_key),
        host=host,
        port=port,
        tls=None if tls_cert is None or tls_key is None else (tls_cert, tls_key),
    )
    with ExitStack() as closing:

        def announce(address: str) -> None:
            print(address, flush=True)
            if not no_browser:
                closing.enter_context(opened_in_browser(address))

        server.serve(options, on_ready=announce)


@contextmanager
def opened_in_browser(address: str) -> Iterator[None]:
    """Open an address without naming it on a command line, where every user of the machine could read the token: the
    browser opens a file that leads there. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="edge-hal-view-") as folder:  # mode 0700
        page = Path(folder) / "view.html"
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n')
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(page.as_uri())  # without a screen it would open a text browser in this terminal
        yield
