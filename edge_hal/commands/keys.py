"""`edge-hal keys`: who may listen where `edge-hal run --key` publishes encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(no_args_is_help=True, help="Make CURVE keys; allow and revoke listeners.")
Folder = Annotated[
    Path | None, typer.Option("--dir", help="Where keys lie (default: edge-hal/keys under XDG_CONFIG_HOME).")
]


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the pair: NAME.key, NAME.key_secret.")], folder: Folder = None
) -> None:
    """Make a pair. The secret file stays where it is; give the public one to the other side."""
    from edge_hal.runtime.delivery.curve_keys import default_folder, new_pair

    for file in new_pair(folder or default_folder(), name):
        print(file)


@keys.command()
def allow(
    public: Annotated[Path, typer.Argument(help="The listener's .key file.")],
    name: Annotated[str | None, typer.Option(help="What to call it (default: the file's name).")] = None,
    folder: Folder = None,
) -> None:
    """Let the owner of a public key listen, at once."""
    from edge_hal.runtime.delivery import curve_keys as files

    print(files.allow(folder or files.default_folder(), public, name))


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="As it was allowed.")], folder: Folder = None) -> None:
    """Let a key in no more. Who is connected stays until the run is restarted."""
    from edge_hal.runtime.delivery import curve_keys as files

    files.revoke(folder or files.default_folder(), name)
