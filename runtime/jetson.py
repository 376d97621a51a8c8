"""Whether this machine is a Jetson, and of which release of its Linux."""

from __future__ import annotations

from pathlib import Path

L4T = Path("/etc/nv_tegra_release")


def release() -> str | None:
    """The first line of a Jetson's release file (`R36 (release), REVISION: 4.3, ...`); None on other machines."""
    try:
        return L4T.read_text(errors="replace").splitlines()[0].strip("# ")
    except (OSError, IndexError):
        return None
