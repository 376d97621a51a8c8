"""Options of the commands that subscribe to a publisher which may encrypt: `listen`, `view` and `bridge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.runtime.network.curve_keys import ClientKeys

Key = Annotated[
    Path | None, typer.Option(readable=False, help="Your secret key file (.key_secret), for a publisher that encrypts.")
]
ServerKey = Annotated[
    Path | None,
    typer.Option(readable=False, help="Public key file (.key) of the publisher, needed together with --key."),
]


def subscriber_keys(key: Path | None, server_key: Path | None) -> ClientKeys | None:
    """The keys of a subscriber, if they were given.

    Raises:
        EdgeHalError: only one was given, or one cannot be used.
    """
    from edge_hal.runtime.network.curve_keys import client_keys

    if (key is None) != (server_key is None):
        todo = "give both --key and --server-key"
        why = "encryption needs your secret key and the public key of the publisher"
        raise EdgeHalError("one key is missing", why, todo, exit_code=2)
    return None if key is None or server_key is None else client_keys(key, server_key)
