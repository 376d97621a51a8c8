"""CURVE keys: who may publish as whom, and who may listen.

A pair is two files in the format that pyzmq and czmq share: `NAME.key` (public, give it away) and `NAME.key_secret`
(mode 0600, refused otherwise). Who may listen is a folder of public keys, `allowed/` beside the publisher's pair.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
import zmq.utils.z85
from zmq.auth.thread import ThreadAuthenticator

from edge_hal.errors import EdgeHalError

ALLOWED = "allowed"
ENCODED = 40  # characters of a key as Z85


def default_folder() -> Path:
    """Where keys lie unless told: under XDG_CONFIG_HOME."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "edge-hal" / "keys"


@dataclass(frozen=True)
class ServerKeys:
    """The publisher's secret key, and the folder of the public keys it lets in."""

    secret: bytes
    allowed: Path

    def guard(self, context: zmq.Context[zmq.Socket[bytes]]) -> ThreadAuthenticator:
        """Start the thread that looks every newcomer up. It must run before a socket is bound: without it CURVE
        encrypts, and lets everybody in."""
        guard = ThreadAuthenticator(context)
        guard.configure_curve_callback("*", self)
        guard.start()
        return guard

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_SERVER, 1)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Is this key (Z85) allowed now? The folder is read anew, so `allow` and `revoke` need no restart."""
        return key in allowed_keys(self.allowed).values()


@dataclass(frozen=True)
class ClientKeys:
    """A subscriber's pair, and the public key it expects of the publisher."""

    public: bytes
    secret: bytes
    server: bytes

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)


def server_keys(secret_file: Path, allowed: Path | None = None) -> ServerKeys:
    """Raises EdgeHalError where the file is no secret key, or others may read it."""
    return ServerKeys(_secret(secret_file)[1], allowed or secret_file.parent / ALLOWED)


def client_keys(secret_file: Path, server_file: Path) -> ClientKeys:
    """Raises EdgeHalError where a file is no key, or others may read the secret one."""
    return ClientKeys(*_secret(secret_file), _load(server_file)[0])


def new_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make NAME.key and NAME.key_secret. Never overwrites. Raises EdgeHalError."""
    check_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as private:  # mode 0700: nobody looks in before the chmod
            made = [Path(file) for file in zmq.auth.create_certificates(private, name)]
            made[1].chmod(0o600)
            kept = [folder / file.name for file in made]
            for old, new in zip(reversed(made), reversed(kept), strict=True):
                os.link(old, new)  # unlike a rename, never replaces a key
    except FileExistsError as error:
        todo = "choose another name, or delete the old pair"
        raise EdgeHalError(f"there is a key '{name}' in {folder}", "", todo) from error
    except OSError as error:
        raise EdgeHalError(f"cannot write keys to {folder}", str(error.strerror), "choose another --dir") from error
    return kept[0], kept[1]


def allow(folder: Path, public_file: Path, name: str | None = None) -> Path:
    """Let the owner of a public key listen. Returns the file that says so. Raises EdgeHalError."""
    name = check_name(name or public_file.stem)
    public, secret = _load(public_file)
    if secret is not None:
        why = "it holds a secret key, which never leaves its owner"
        raise EdgeHalError(f"will not copy {public_file}", why, "ask for the .key file", exit_code=2)
    target = folder / ALLOWED / f"{name}.key"
    if target.exists() and _load(target)[0] != public:
        todo = f"edge-hal keys revoke {name}, or give another --name"
        raise EdgeHalError(f"another key is allowed as '{name}'", "", todo)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(".new")
        shutil.copyfile(public_file, beside)
        beside.replace(target)
    except OSError as error:
        raise EdgeHalError(f"cannot write {target}", str(error.strerror), "choose another --dir") from error
    return target


def revoke(folder: Path, name: str) -> None:
    """Let a key in no more. Raises EdgeHalError where no such key is allowed."""
    target = folder / ALLOWED / f"{check_name(name)}.key"
    try:
        target.unlink()
    except OSError as error:
        names = ", ".join(sorted(allowed_keys(folder / ALLOWED))) or "none"
        raise EdgeHalError(f"no key '{name}' is allowed", f"allowed: {names}", exit_code=2) from error


def allowed_keys(folder: Path) -> dict[str, bytes]:
    """{name: public key as Z85}. What cannot be read allows nobody."""
    found = {}
    with contextlib.suppress(OSError):
        for file in sorted(folder.glob("*.key")):
            with contextlib.suppress(EdgeHalError):
                found[file.stem] = _load(file)[0]
    return found


def check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        why = "it must be 1 to 64 letters, digits, '-', '_' and '.'"
        raise EdgeHalError(f"'{name}' cannot name a key", why, exit_code=2)
    return name


def _secret(file: Path) -> tuple[bytes, bytes]:
    """(public, secret) of a file that only its owner can read."""
    public, secret = _load(file)
    if secret is None:
        todo = "give the .key_secret file: edge-hal keys new NAME makes one"
        raise EdgeHalError(f"{file} holds no secret key", "", todo, exit_code=2)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        why = f"others can read it (mode {mode:04o})"
        raise EdgeHalError(f"will not use the secret key {file}", why, f"chmod 600 {file}; better, make a new pair")
    return public, secret


def _load(file: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(file)
        for key in (public, secret):
            if key is not None and (len(key) != ENCODED or len(zmq.utils.z85.decode(key)) != 32):
                raise ValueError("a key has the wrong length")
    except (OSError, ValueError, LookupError, struct.error) as error:
        todo = "edge-hal keys new NAME makes a pair"
        raise EdgeHalError(f"cannot read the key {file}", str(error), todo, exit_code=2) from error
    return public, secret
