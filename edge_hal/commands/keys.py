"""`edge-hal keys`: key pairs for encryption, and which subscribers may connect to `edge-hal run --key`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    no_args_is_help=True, help="Make key pairs for encryption (ZeroMQ CURVE), and allow or revoke subscribers."
)
Folder = Annotated[
    Path | None, typer.Option("--dir", help="Folder of the keys (default: edge-hal/keys under XDG_CONFIG_HOME).")
]


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the pair: the files are NAME.key and NAME.key_secret.")],
    folder: Folder = None,
) -> None:
    """Make a key pair. Keep the secret file on this machine, and give the public one (.key) to the other side."""
    from edge_hal.runtime.delivery.curve_keys import default_folder, new_pair

    for file in new_pair(folder or default_folder(), name):
        print(file)


@keys.command()
def allow(
    public: Annotated[Path, typer.Argument(help="Public key file (.key) of the subscriber.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name to store the key under, needed to revoke it (default: the name of the file)."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Allow the owner of a public key to subscribe. It acts at once, without a restart."""
    from edge_hal.runtime.delivery import curve_keys as files

    print(files.allow(folder or files.default_folder(), public, name))


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name under which the key was allowed.")], folder: Folder = None
) -> None:
    """Refuse new connections with this key. A subscriber that is connected stays until the run is restarted."""
    from edge_hal.runtime.delivery import curve_keys as files

    files.revoke(folder or files.default_folder(), name)
