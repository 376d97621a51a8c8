"""Notifies systemd: `READY=1` when the run is under way, `WATCHDOG=1` while it goes on (sd_notify(3))."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends nothing unless systemd asked for it (`NOTIFY_SOCKET`). Never fails: a service that runs matters more."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._ready = False

    def alive(self) -> None:
        """The loop has completed an iteration since the last call."""
        self._send("WATCHDOG=1" if self._ready else "READY=1\nWATCHDOG=1")
        self._ready = True

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(state.encode(), self._address)
        except OSError:
            return
