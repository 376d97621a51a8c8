"""Options of the commands that serve a page: `view` and `correct`."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.web.serving import PageAddress

Host = Annotated[str, typer.Option(help="Address to serve the page on. Other than loopback addresses need --tls-cert.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to serve the page on; 0 takes a free one.")]
TlsCert = Annotated[
    Path | None, typer.Option(readable=False, help="Certificate (PEM), to serve other machines with HTTPS.")
]
TlsKey = Annotated[
    Path | None, typer.Option(readable=False, help="Secret key of the certificate (PEM, without a passphrase).")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")]


def token_option(page: str) -> typer.models.OptionInfo:
    """The option --token-file of the command `page`."""
    found: typer.models.OptionInfo = typer.Option(
        readable=False,
        help="File with the secret token of the address; it is made if it is missing (default: "
        f"edge-hal/{page}.token under XDG_STATE_HOME).",
    )
    return found


def page_address(
    page: str, host: str, port: int, tls_cert: Path | None, tls_key: Path | None, token_file: Path | None
) -> PageAddress:
    """Raises EdgeHalError if one of the TLS files is missing, or the token cannot be read or made."""
    from edge_hal.web.access import default_token_file, kept_token
    from edge_hal.web.serving import PageAddress

    if (tls_cert is None) != (tls_key is None):
        todo = "give both --tls-cert and --tls-key"
        raise EdgeHalError("one TLS file is missing", "TLS needs a certificate and its key", todo, exit_code=2)
    tls = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    return PageAddress(kept_token(token_file or default_token_file(page)), host, port, tls)


@contextmanager
def announcing(no_browser: bool) -> Iterator[Callable[[str], None]]:
    """What a server calls with the address of its page: it is printed, and opened in a browser until the end."""
    with ExitStack() as closing:

        def announce(address: str) -> None:
            print(address, flush=True)
            if not no_browser:
                closing.enter_context(opened_in_browser(address))

        yield announce


@contextmanager
def opened_in_browser(address: str) -> Iterator[None]:
    """Open an address without naming it on a command line, where every user of the machine could read the token: the
    browser opens a file that leads there. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="edge-hal-page-") as folder:  # mode 0700
        page = Path(folder) / "page.html"
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n')
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(page.as_uri())  # without a screen it would open a text browser in this terminal
        yield
