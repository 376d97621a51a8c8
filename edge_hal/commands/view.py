"""`edge-hal view`: a page in the browser that shows what runs recognise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.page import (
    Host,
    NoBrowser,
    Port,
    TlsCert,
    TlsKey,
    announcing,
    page_address,
    token_option,
)
from edge_hal.commands.options.subscriber import Key, ServerKey, subscriber_keys
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
    recording: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Folder of `edge-hal run --record`: a click on a segment plays its pictures, those of the source if "
            "they were kept (`--record-pictures source`), else the small ones. Repeat the option for several folders.",
        ),
    ] = None,
    key: Key = None,
    server_key: ServerKey = None,
    host: Host = "127.0.0.1",
    port: Port = 8570,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: Annotated[Path | None, token_option("view")] = None,
    no_browser: NoBrowser = False,
) -> None:
    """Show what runs recognise on a page in the browser. It can be started before or after the runs.

    The first line of the output is the address of the page. It holds a secret token: who has it can see everything.
    """
    require("starlette", "uvicorn", "wsproto", extra="web")
    from edge_hal.bundle import DEFAULT_PATH
    from edge_hal.files import no_folder
    from edge_hal.runtime.network.endpoint import DEFAULT_ENDPOINT
    from edge_hal.web.view import server

    for folder in recording or ():
        if not folder.is_dir():
            raise EdgeHalError(f"--recording {folder}", no_folder(folder), "give that of --record", exit_code=2)
    for folder in bundle or ():
        if not folder.is_dir():
            raise EdgeHalError(f"--bundle {folder}", no_folder(folder), "give that of the run", exit_code=2)
    connect = connect or ([] if journal else [DEFAULT_ENDPOINT])
    if replay is not None and len(connect) != 1:
        raise EdgeHalError("--replay", f"it belongs to one --connect, not to {len(connect)}", exit_code=2)
    options = server.ViewOptions(
        address=page_address("view", host, port, tls_cert, tls_key, token_file),
        connect=tuple(connect),
        stream=stream,
        replay=replay,
        journals=tuple(journal or ()),
        bundles=tuple(bundle or ([DEFAULT_PATH] if DEFAULT_PATH.is_dir() else [])),
        recordings=tuple(recording or ()),
        keys=subscriber_keys(key, server_key),
    )
    with announcing(no_browser) as announce:
        server.serve(options, on_ready=announce)
