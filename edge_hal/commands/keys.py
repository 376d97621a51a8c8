"""`edge-hal keys`: key pairs for encryption and signatures, signed bundles, and who may connect to a publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    no_args_is_help=True,
    help="Make key pairs for encryption (CURVE) or signatures (Ed25519), allow or revoke subscribers, sign bundles.",
)
Folder = Annotated[
    Path | None,
    typer.Option("--dir", readable=False, help="Folder of the keys (default: edge-hal/keys under XDG_CONFIG_HOME)."),
]


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the pair: the files are NAME.key and NAME.key_secret.")],
    folder: Folder = None,
    sign: Annotated[
        bool,
        typer.Option(
            "--sign", help="Make a pair that signs bundles instead: NAME.signer (public) and NAME.signer_secret."
        ),
    ] = False,
) -> None:
    """Make a key pair. Keep the secret file on this machine, and give the public one (.key) to the other side."""
    from edge_hal.bundle.signature import new_signer
    from edge_hal.runtime.network.curve_keys import default_folder, new_pair

    for file in (new_signer if sign else new_pair)(folder or default_folder(), name):
        print(file)


@keys.command()
def sign(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `edge-hal export` wrote, or a task folder.")],
    key: Annotated[Path, typer.Option(help="Secret signing key, a .signer_secret file of `edge-hal keys new --sign`.")],
) -> None:
    """Sign every file of a bundle, for `edge-hal run --trusted`. After an edit the bundle must be signed again."""
    from edge_hal.bundle import load_bundle
    from edge_hal.bundle.signature import sign_bundle
    from edge_hal.task_folder import newest_bundle

    bundle = newest_bundle(bundle)
    load_bundle(bundle)
    print(sign_bundle(bundle, key))


@keys.command()
def allow(
    public: Annotated[Path, typer.Argument(readable=False, help="Public key file (.key) of the subscriber.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name to store the key under, needed to revoke it (default: the name of the file)."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Allow the owner of a public key to subscribe. It acts at once, without a restart."""
    from edge_hal.runtime.network import curve_keys as files

    print(files.allow(folder or files.default_folder(), public, name))


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name under which the key was allowed.")], folder: Folder = None
) -> None:
    """Refuse this key. Connections with it are ended within two seconds, and the others stay."""
    from edge_hal.runtime.network import curve_keys as files

    files.revoke(folder or files.default_folder(), name)
