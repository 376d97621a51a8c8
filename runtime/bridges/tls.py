"""TLS of a client: the certificates that it trusts, and the certificate that it presents."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, file_error


def client_context(ca: Path | None, cert: Path | None = None, cert_key: Path | None = None) -> ssl.SSLContext:
    """A context that checks certificate and name of the server.

    Args:
        ca: PEM file of the certificates to trust; None: those of the system.
        cert, cert_key: PEM files of the client's own certificate and key.

    Raises:
        EdgeHalError: a file is missing, unreadable, or not what it should be.
    """
    for path in (ca, cert, cert_key):
        if path is not None:
            check_readable(path)
    context = ssl.create_default_context()
    try:
        if ca is not None:
            context = ssl.create_default_context(cafile=str(ca))
        if cert is not None:
            context.load_cert_chain(cert, cert_key, password="")  # an encrypted key is refused, not asked for
    except (OSError, ssl.SSLError) as error:  # SSLError is an OSError without a file name
        path = cert if ca is None else ca
        names = " and ".join(str(each) for each in (ca, cert, cert_key) if each is not None)
        if isinstance(error, ssl.SSLError):
            why = error.reason or "it is no PEM file of that kind"
            raise EdgeHalError(f"cannot use {names} for TLS", why, "give PEM files") from error
        raise file_error(f"cannot use {names} for TLS", error, "give PEM files", path=path) from error
    return context
