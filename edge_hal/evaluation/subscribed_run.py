"""Replay one recording through the real `run`, in a process of its own, and subscribe to its events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Transition

    from .checkpoint_scores import Timeline

STARTED_S = 60.0


def watch(
    bundle: Path,
    camera: str,
    socket: Path,
    stream: str,
    tell: Callable[[Transition], None] | None = None,
    pace: str = "asap",
) -> list[Transition]:
    """Every transition that a subscriber of `edge-hal run --camera CAMERA` receives, in order.

    Args:
        socket: the file of the `ipc://` endpoint.
        tell: called with each transition as it arrives.

    Raises:
        EdgeHalError: the run failed, or nothing was heard for `STARTED_S` seconds.
    """
    from edge_hal.events import End, Transition
    from edge_hal.runtime.delivery.client import subscribe

    endpoint = f"ipc://{socket.absolute()}"
    command = [sys.executable, "-m", "edge_hal", "run", "--bundle", str(bundle), "--camera", camera]
    command += ["--pace", pace, "--pub", endpoint, "--stream", stream, "--wait-subscribers", "1", "--json"]
    transitions: list[Transition] = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        with subscribe(endpoint, stream, timeout_s=STARTED_S) as events:
            for event in events:
                if isinstance(event, Transition):
                    transitions.append(event)
                    if tell is not None:
                        tell(event)
                elif isinstance(event, End):
                    break
        _, errors = process.communicate(timeout=STARTED_S)
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)
    if process.returncode:
        raise EdgeHalError(f"the run over {camera} failed", errors.strip())
    return transitions


def timeline(transitions: Sequence[Transition], frames: int, labels: Sequence[str]) -> Timeline:
    """What the events of one recording of `frames` frames say, for the scores."""
    import numpy as np

    from edge_hal.metrics import TransitionPoint

    from .checkpoint_scores import Timeline

    told, live = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    points = []
    for number, event in enumerate(transitions):
        label = labels.index(event.to)
        told[event.boundary.frame :] = label
        live[event.decision.frame if number else 0 :] = label
        if event.from_ is not None:
            points.append(TransitionPoint(label, event.boundary.t_ns / 1e9, event.decision.t_ns / 1e9))
    return Timeline(told, live, points)
