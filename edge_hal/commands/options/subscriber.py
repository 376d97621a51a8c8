"""Options of the commands that subscribe to a publisher which may encrypt: `listen`, `view` and `bridge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Key = Annotated[
    Path | None, typer.Option(readable=False, help="Your secret key file (.key_secret), for a publisher that encrypts.")
]
ServerKey = Annotated[
    Path | None,
    typer.Option(readable=False, help="Public key file (.key) of the publisher, needed together with --key."),
]
