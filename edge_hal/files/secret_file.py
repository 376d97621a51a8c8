"""Files of one line that hold a password or another secret."""

from __future__ import annotations

from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, file_error
from edge_hal.redaction import remember_secret


def read_secret_line(path: Path, name: str, form: str) -> str:
    """The line of the file, which only its owner may read. It is hidden in all messages from now on.

    Args:
        name: what the file holds, for the error: `credentials`.
        form: what the line looks like, for the error: `user:password`.

    Raises:
        EdgeHalError: the file cannot be read, others can read it, or it does not hold one line of this form.
    """
    todo = f"write {form} into it, then: chmod 600 {path}"
    check_readable(path, f"cannot read the {name} {path}")
    try:
        text = path.read_text().strip()
        readable = path.stat().st_mode & 0o077
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read the {name} {path}", error, todo, path=path) from error
    if readable:
        raise EdgeHalError(f"will not use the {name} {path}", "others on this machine can read it", todo)
    if not text or "\n" in text or (":" in form and ":" not in text):
        raise EdgeHalError(f"{path} holds no {name}", f"it must be one line, {form}", todo)
    remember_secret(text.partition(":")[2] if ":" in form else text)
    return text
