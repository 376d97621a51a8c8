"""Why a device may not be opened, and which group would change that."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path


def denied(path: Path) -> tuple[str, str]:
    """What stands in the way of reading and writing a device, and the remedy. For one that was refused."""
    about = path.stat()
    user, group = _user(os.geteuid()), _group(about.st_gid)
    if about.st_mode & 0o060 != 0o060:
        return f"permission denied: its mode is {about.st_mode & 0o777:o}", f"sudo chmod g+rw {path}"
    if about.st_gid in (os.getegid(), *os.getgroups()):
        return "permission denied by something else than its mode", f"see: getfacl {path}; and systemd's DeviceAllow"
    if user in _members(about.st_gid):
        found = f"permission denied: {user} joined the group {group} after this session began"
        return found, "log in again; a service: restart it"
    found = f"permission denied: {user} is not in the group {group}"
    return found, f"sudo usermod -aG {group} {user}, then log in again"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _members(number: int) -> list[str]:
    try:
        return list(grp.getgrgid(number).gr_mem)
    except KeyError:
        return []
