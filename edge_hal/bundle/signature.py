"""Signatures of bundles: who made a bundle, where its hashes only say that it is whole.

`signature.json` holds the size and SHA-256 of every other file in the bundle's folder, and an Ed25519 signature over
them. `decoder.json` and `procedure.json` are covered as well, so an edited bundle must be signed again.
A signing pair is `NAME.signer` (public, to be given away) and `NAME.signer_secret` (mode 0600), both in PEM.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.files.key_files import check_folder, check_name, read_public, read_secret, write_pair
from edge_hal.files.untrusted import MB, read_json, read_regular

SIGNATURE = "signature.json"
PUBLIC, SECRET = ".signer", ".signer_secret"
SCHEMA = 1
LARGEST_FILE = 2048 * MB
MOST_FILES = 1000

Files = dict[str, dict[str, Any]]
"""{name: {"bytes": size, "sha256": hash}}"""


def new_signer(folder: Path, name: str) -> list[Path]:
    """Make NAME.signer and NAME.signer_secret. Raises EdgeHalError if one exists or cannot be written."""
    _, serial, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(serial.Encoding.PEM, serial.PrivateFormat.PKCS8, serial.NoEncryption())
    public = key.public_key().public_bytes(serial.Encoding.PEM, serial.PublicFormat.SubjectPublicKeyInfo)
    check_name(name)
    return write_pair(folder, {f"{name}{PUBLIC}": (public, 0o644), f"{name}{SECRET}": (secret, 0o600)})


def sign_bundle(folder: Path, secret_file: Path) -> Path:
    """Write `signature.json` over every file of a bundle. Returns its path.

    Raises:
        EdgeHalError: the file is no secret signing key, or the folder holds a link, a folder or an unreadable file.
    """
    _, serial, ed25519 = _cryptography()
    todo = f"give a {SECRET} file: edge-hal keys new --sign NAME makes one"
    try:
        if b"PUBLIC KEY-----" in read_public(secret_file):  # before what others may do with a secret one
            if secret_file.suffix == PUBLIC:
                todo = f"give the secret file of this pair: {secret_file.with_suffix(SECRET)}"
            raise ValueError("it is the public key")
        key = serial.load_pem_private_key(read_secret(secret_file), None)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ValueError("it is not an Ed25519 key")
    except (ValueError, TypeError) as error:
        what = f"{secret_file} holds no secret signing key"
        raise EdgeHalError(what, str(error).partition("\n")[0][:200], todo, exit_code=2) from error
    try:
        files = {}
        for name in _names(folder):
            content = read_regular(folder / name, LARGEST_FILE, links=False)
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot sign {folder}", str(error), "") from error
    signature = base64.b64encode(key.sign(_message(files))).decode()
    body = {"schema": SCHEMA, "files": files, "ed25519": signature}
    write_file(folder / SIGNATURE, json.dumps(body, indent=2) + "\n", what=f"cannot sign {folder}")
    return folder / SIGNATURE


def copy_trusted(folder: Path, trusted: Path, target: Path) -> str:
    """Copy the files of a signed bundle to `target`, a new private folder, and check the copy.

    A copy, because whoever can write the bundle's folder could change a file between the check and its use.

    Args:
        trusted: folder of the public keys (`*.signer`) whose signatures are accepted.

    Returns:
        The name of the key that signed it.

    Raises:
        EdgeHalError: no listed key signed the bundle, or a file differs from what was signed, is missing or not signed.
    """
    keys = signers(trusted)
    what = f"the bundle {folder} is not trusted"
    todo = f"edge-hal keys sign {folder} --key NAME.signer_secret, with a key listed in {trusted}"
    try:
        body = read_json(folder / SIGNATURE, links=False)
        if body.get("schema") != SCHEMA:
            raise ValueError(f"{SIGNATURE} has schema {body.get('schema')!r}, this version reads {SCHEMA}")
        files, signature = body["files"], base64.b64decode(body["ed25519"], validate=True)
        signer = _signer(keys, _message(files), signature)
        if signer is None:
            raise ValueError(f"none of the {len(keys)} keys in {trusted} signed it")
        odd = sorted(set(_names(folder)) ^ set(files))
        if odd:
            raise ValueError(f"{odd[0]} is {'missing' if odd[0] in files else 'not signed'}")
        for name, entry in files.items():
            content = read_regular(folder / name, entry["bytes"], links=False)
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise ValueError(f"{name} was changed after it was signed")
            (target / name).write_bytes(content)
    except FileNotFoundError as error:
        raise EdgeHalError(what, f"it has no {Path(error.filename).name}", todo) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgeHalError(what, str(error), todo) from error
    return signer


def signers(trusted: Path) -> dict[str, Any]:
    """{name: public key} of a folder of `*.signer` files.

    Raises:
        EdgeHalError: there is none, one cannot be used, or others may write into the folder.
    """
    _, serial, ed25519 = _cryptography()
    check_folder(trusted)
    found = {}
    for file in sorted(trusted.glob(f"*{PUBLIC}")) if trusted.is_dir() else ():
        try:
            key = serial.load_pem_public_key(read_public(file))
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise ValueError("it is not an Ed25519 key")
        except (ValueError, TypeError) as error:
            why = str(error).partition("\n")[0][:200]
            raise EdgeHalError(f"{file} is no public signing key", why, "remove it", exit_code=2) from error
        found[file.name.removesuffix(PUBLIC)] = key
    if not found:
        todo = "put the public key of who signs your bundles there: NAME.signer"
        raise EdgeHalError(f"--trusted {trusted}", f"it is no folder with *{PUBLIC} files", todo, exit_code=2)
    return found


def _names(folder: Path) -> list[str]:
    """All files of the folder but the signature. Raises OSError; ValueError for a folder or too many files."""
    entries = [entry for entry in os.scandir(folder) if entry.name != SIGNATURE]
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            raise ValueError(f"{entry.name} is no regular file")
    if len(entries) > MOST_FILES:
        raise ValueError(f"it has more than {MOST_FILES} files")
    return sorted(entry.name for entry in entries)


def _message(files: Any) -> bytes:
    """What is signed. Raises ValueError if `files` is not a table of plain names, sizes and hashes."""
    for name, entry in files.items():
        size, digest = entry["bytes"], entry["sha256"]
        if name in ("", ".", "..", SIGNATURE) or "/" in name or "\0" in name or set(entry) != {"bytes", "sha256"}:
            raise ValueError(f"the entry {name!r} is malformed")
        if type(size) is not int or not 0 <= size <= LARGEST_FILE or type(digest) is not str:
            raise ValueError(f"the entry {name!r} is malformed")
    return b"edge-hal bundle 1\n" + json.dumps(files, sort_keys=True, separators=(",", ":")).encode()


def _signer(keys: dict[str, Any], message: bytes, signature: bytes) -> str | None:
    exceptions, _, _ = _cryptography()
    for name, key in keys.items():
        try:
            key.verify(signature, message)
            return name
        except exceptions.InvalidSignature:
            continue
    return None


def _cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        why = "signatures need it"
        raise EdgeHalError("cryptography is not installed", why, "pip install 'edge-hal[sign]'") from error
    return exceptions, serialization, ed25519
