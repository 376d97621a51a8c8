"""CURVE keys: make pairs, and say which subscribers may connect.

A pair is two files in the format of pyzmq and czmq: `NAME.key` (public, to be given away) and `NAME.key_secret` (mode
0600, refused otherwise). The public keys of the subscribers that may connect are in a folder, `allowed/` beside the
publisher's pair.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
import zmq.utils.z85

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file
from edge_hal.files.key_files import check_folder, check_name, read_public, read_secret, write_pair
from edge_hal.files.user_folders import config_folder

log = logging.getLogger("edge_hal.run")

ALLOWED = "allowed"
ENCODED = 40  # characters of a key as Z85


def default_folder() -> Path:
    """The default folder of keys, under XDG_CONFIG_HOME."""
    return config_folder() / "keys"


@dataclass(frozen=True)
class ServerKeys:
    """The publisher's secret key, and the folder of the public keys that it accepts."""

    secret: bytes
    allowed: Path

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_SERVER, 1)

    def allows(self, key: bytes) -> bool:
        """Whether this key (Z85) is allowed. The folder is read each time, so `allow` and `revoke` need no restart."""
        return key in self.names().values()

    def names(self) -> dict[str, bytes]:
        """The keys that are allowed at present, by name."""
        return allowed_keys(self.allowed)


@dataclass(frozen=True)
class ClientKeys:
    """A subscriber's pair, and the public key that the publisher must have."""

    public: bytes
    secret: bytes
    server: bytes

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)


def server_keys(secret_file: Path, allowed: Path | None = None) -> ServerKeys:
    """Raises EdgeHalError if the file is no secret key, or if others may read it or add keys to `allowed`."""
    allowed = allowed or secret_file.parent / ALLOWED
    check_folder(allowed)
    return ServerKeys(_pair(secret_file)[1], allowed)


def client_keys(secret_file: Path, server_file: Path) -> ClientKeys:
    """Raises EdgeHalError if a file is no key, or if others may read the secret one."""
    return ClientKeys(*_pair(secret_file), _public(server_file))


def new_pair(folder: Path, name: str) -> list[Path]:
    """Make NAME.key and NAME.key_secret. Never overwrites, and leaves nothing if it fails. Raises EdgeHalError."""
    check_name(name)
    try:
        with tempfile.TemporaryDirectory() as private:
            files = [Path(file) for file in zmq.auth.create_certificates(private, name)]
            contents = [file.read_bytes() for file in files]
    except OSError as error:
        raise EdgeHalError(f"cannot write keys to {folder}", str(error.strerror), "set TMPDIR") from error
    modes = (0o644, 0o600)
    return write_pair(folder, {f.name: pair for f, pair in zip(files, zip(contents, modes, strict=True), strict=True)})


def allow(folder: Path, public_file: Path, name: str | None = None) -> Path:
    """Allow the owner of a public key to subscribe. Returns the file that was written. Raises EdgeHalError."""
    name = check_name(name or public_file.stem)
    content = read_public(public_file)
    public, secret = _parse(public_file, content)
    if secret is not None:
        why = "it holds a secret key, which never leaves its owner"
        raise EdgeHalError(f"will not copy {public_file}", why, "ask for the .key file", exit_code=2)
    target = folder / ALLOWED / f"{name}.key"
    if os.path.lexists(target) and _public(target) != public:
        todo = f"edge-hal keys revoke {name}, or give another --name"
        raise EdgeHalError(f"another key is allowed as '{name}'", "", todo)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(f"cannot write {target}", error, "choose another --dir", path=target) from error
    check_folder(target.parent)
    write_file(target, content, what=f"cannot write {target}", todo="choose another --dir")
    return target


def revoke(folder: Path, name: str) -> None:
    """No longer allow a key. Raises EdgeHalError if no such key is allowed."""
    target = folder / ALLOWED / f"{check_name(name)}.key"
    try:
        target.unlink()
    except OSError as error:
        names = ", ".join(sorted(allowed_keys(folder / ALLOWED))) or "none"
        raise EdgeHalError(f"no key '{name}' is allowed", f"allowed: {names}", exit_code=2) from error


def allowed_keys(folder: Path) -> dict[str, bytes]:
    """{name: public key as Z85}. A file that is no key, or that every user of the machine can write, allows nobody; nor
    does a folder that they can write. Each is logged once."""
    found: dict[str, bytes] = {}
    problems: dict[Path, str] = {}
    try:
        check_folder(folder)
        files = sorted(folder.glob("*.key"))
    except (EdgeHalError, OSError) as error:
        files, problems[folder] = [], str(error)
    for file in files:
        try:
            found[file.stem] = _public(file)
        except EdgeHalError as error:
            problems[file] = f"{error.what}: {error.why}"
    with _telling:
        for path, problem in problems.items():
            if _told.get(path) != problem:
                log.warning("nobody is allowed by %s: %s", path, problem)
        for path in [path for path in _told if path.parent == folder or path == folder]:
            del _told[path]
        _told.update(problems)
    return found


_told: dict[Path, str] = {}
"""The problems that were logged, by file."""
_telling = threading.Lock()  # the threads of both addresses read the keys


def _pair(file: Path) -> tuple[bytes, bytes]:
    """(public, secret) of a file that only its owner can read."""
    public, secret = _parse(file, read_public(file))
    todo = "give the .key_secret file: edge-hal keys new NAME makes one"
    if secret is None:
        raise EdgeHalError(f"{file} holds no secret key", "", todo, exit_code=2)
    public, secret = _parse(file, read_secret(file))
    assert secret is not None
    if zmq.curve_public(secret) != public:
        why = "its secret key does not fit its public key"
        raise EdgeHalError(
            f"will not use the secret key {file}", why, "edge-hal keys new NAME makes a pair", exit_code=2
        )
    return public, secret


def _public(file: Path) -> bytes:
    return _parse(file, read_public(file))[0]


def _parse(file: Path, content: bytes) -> tuple[bytes, bytes | None]:
    """(public, secret) of the text of a file in the format of pyzmq."""
    keys = dict(re.findall(rb'^\s*(public|secret)-key\s*=\s*"(.*?)"', content, re.MULTILINE))
    try:
        for key in keys.values():
            if len(key) != ENCODED or len(zmq.utils.z85.decode(key)) != 32:
                raise ValueError("a key has the wrong length")
        return keys[b"public"], keys.get(b"secret")
    except (ValueError, LookupError, struct.error) as error:
        why = "it has no public key" if isinstance(error, KeyError) else str(error)
        todo = "edge-hal keys new NAME makes a pair"
        raise EdgeHalError(f"cannot read the key {file}", why, todo, exit_code=2) from error
