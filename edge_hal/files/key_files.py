"""Files of keys: written whole or not at all, and read only if nobody else can have changed or seen them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular

LARGEST_BYTES = 16 * 1024


def check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        why = "it must be 1 to 64 letters, digits, '-', '_' and '.'"
        raise EdgeHalError(f"'{name}' cannot name a key", why, exit_code=2)
    return name


def read_public(file: Path) -> bytes:
    """The content of a file with a public key.

    Raises:
        EdgeHalError: it is no regular file, is too large, cannot be read, or every user of the machine may write it.
    """
    try:
        data = read_regular(file, LARGEST_BYTES)
        writable = file.stat().st_mode & stat.S_IWOTH
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read the key {file}", error, path=file, exit_code=2) from error
    if writable:
        why = "every user of the machine can replace it"
        raise EdgeHalError(f"will not use the key {file}", why, f"check it, then chmod o-w {file}")
    return data


def read_secret(file: Path) -> bytes:
    """The content of a file with a secret key, which only its owner, this user or root, can read or replace.

    Raises:
        EdgeHalError: it cannot be read; or another user owns, reads or can replace it.
    """
    data, found = read_public(file), file.stat()
    mode = stat.S_IMODE(found.st_mode)
    what = f"will not use the secret key {file}"
    if found.st_uid not in (os.geteuid(), 0):
        why = f"another user owns it (number {found.st_uid}) and knows it"
        raise EdgeHalError(what, why, "make a pair of your own: edge-hal keys new NAME")
    if mode & 0o077:
        raise EdgeHalError(what, f"others can read it (mode {mode:04o})", f"chmod 600 {file}; better, make a new pair")
    check_folder(file.parent)
    return data


def check_folder(folder: Path) -> None:
    """Raises EdgeHalError if every user of the machine may add keys to the folder. One that is missing passes."""
    with contextlib.suppress(OSError):
        if folder.stat().st_mode & stat.S_IWOTH:
            why = "every user of the machine can add keys to it or replace them"
            raise EdgeHalError(f"will not use the keys in {folder}", why, f"check them, then chmod o-w {folder}")


def write_pair(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> list[Path]:
    """Write new files, {name: (content, mode)}, into a folder, which is created. All of them are written or none.

    Raises:
        EdgeHalError: one of them exists, or cannot be written. Nothing is left behind, not even a new folder.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_folder(folder)
        with tempfile.TemporaryDirectory(dir=folder) as private:  # mode 0700: nobody reads a secret before the chmod
            for name, (content, mode) in files.items():
                beside = Path(private, name)
                beside.write_bytes(content)
                beside.chmod(mode)
            for name in files:
                os.link(Path(private, name), folder / name)  # unlike a rename, never replaces a key
                made.append(folder / name)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, FileExistsError) and folder.is_dir():
            name = next(iter(files)).partition(".")[0]
            todo = "choose another name, or delete the old pair"
            raise EdgeHalError(f"there is a key '{name}' in {folder}", "", todo) from error
        if isinstance(error, OSError):
            raise file_error(f"cannot write keys to {folder}", error, "choose another --dir", path=folder) from error
        raise
    return made
