"""The certificate of a bundle as a file: `certificate.json` holds the manifest's hash, what was checked, and a hash of
itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_hal.files.untrusted import parse_json, read_regular

log = logging.getLogger("edge_hal.bundle")


def certificate_text(certificate: Mapping[str, Any]) -> str:
    """The text of `certificate.json`: the certificate, and last `sha256` over its JSON text without that field."""
    text = json.dumps(dict(certificate), indent=2)
    return json.dumps({**certificate, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=2) + "\n"


def certificate_problem(path: Path, fingerprint: str, todo: str, *, may_lack_hash: bool) -> str:
    """Why the bundle `path`, whose manifest has the SHA-256 `fingerprint`, is not certified; empty if it is.

    A certificate without a hash of itself is accepted with a warning, which ends in `todo`, if it `may_lack_hash`.
    """
    file = path / "certificate.json"
    if not file.is_file():
        return "it has no certificate.json"
    try:
        text = read_regular(file).decode()  # not read_text, which would read other line ends as the same
        certificate = parse_json(text)
        if certificate["manifest"] != fingerprint:
            return "its certificate belongs to another manifest"
        if certificate["passed"] is not True:
            return "its certificate failed"
        hashed = certificate.pop("sha256", None) is not None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its certificate cannot be read ({type(error).__name__})"
    if hashed or not may_lack_hash:  # the whole text is compared: no byte of it may differ, not even a space
        return "" if text == certificate_text(certificate) else "its certificate was changed after the export"
    log.warning(
        "the certificate of %s has no hash of itself, so a change of it is not noticed; %s",
        path,
        todo,
    )
    return ""
