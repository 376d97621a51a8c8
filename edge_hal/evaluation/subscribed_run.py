"""Run `edge-hal run` on one recording in a child process, and subscribe to its events."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_hal.decoding.timeline import Timeline
    from edge_hal.events import Event, Now, Transition
    from edge_hal.metrics import IntArray

Kind = TypeVar("Kind")
ERRORS = 2000
"""Characters of what a run that failed has printed."""
TIMEOUT_S = 60.0
"""How long the run may stay silent, and how long it may take to end."""


def watch_run(
    bundle: Path,
    camera: str,
    socket: Path,
    stream: str,
    on_transition: Callable[[Transition], None] | None = None,
    pace: str = "asap",
) -> list[Event]:
    """Every event that a subscriber of `edge-hal run --camera CAMERA` receives, in order.

    Args:
        socket: the file of the `ipc://` endpoint.
        on_transition: called with each transition as it arrives.

    Raises:
        EdgeHalError: the run failed, or no event came for `TIMEOUT_S` seconds.
    """
    from edge_hal.events import End, Transition
    from edge_hal.runtime.delivery.client import subscribe

    endpoint = f"ipc://{socket.absolute()}"
    command = [sys.executable, "-m", "edge_hal", "run", "--bundle", str(bundle), "--camera", camera]
    command += ["--pace", pace, "--pub", endpoint, "--stream", stream, "--wait-subscribers", "1", "--json"]
    heard: list[Event] = []
    # A pipe that nobody reads would stop a run that warns much.
    told = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, text=True)
    try:
        with subscribe(endpoint, stream, timeout_s=TIMEOUT_S) as events:
            for event in events:
                heard.append(event)
                if isinstance(event, Transition) and on_transition is not None:
                    on_transition(event)
                elif isinstance(event, End):
                    break
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        heard_s = f"{len(heard)} events came, and then none for {TIMEOUT_S:.0f} s"
        todo = f"try it alone: edge-hal run --bundle {bundle} --camera {camera} --pace {pace}"
        raise EdgeHalError(f"the run over {camera} does not end", heard_s, todo) from error
    finally:
        process.kill()
        process.wait()
        told.seek(0)
        errors = told.read(ERRORS)
        told.close()
        for path in (socket, socket.with_name(f"{socket.name}.lock")):
            path.unlink(missing_ok=True)
    if process.returncode:
        raise EdgeHalError(f"the run over {camera} failed", errors.strip())
    return heard


def of_type(events: Sequence[Event], kind: type[Kind]) -> list[Kind]:
    """Those of one type."""
    return [event for event in events if isinstance(event, kind)]


def reported_labels(reports: Sequence[Now], frames: int, labels: Sequence[str]) -> IntArray:
    """(frames,) the label of the newest report at each frame. Nothing is known before the first; there, its label."""
    from edge_hal.decoding.timeline import labels_from

    starts = [report.at.frame if number else 0 for number, report in enumerate(reports)]
    return labels_from(starts, [labels.index(report.action) for report in reports], frames)


def reported_probability(reports: Sequence[Now], frames: int) -> NDArray[np.float64]:
    """(frames,) the probability in the newest report at each frame. Before the first, that of the first."""
    import numpy as np

    found = np.zeros(frames)
    for number, report in enumerate(reports):
        found[report.at.frame if number else 0 :] = report.probability
    return found


def timeline_of_events(transitions: Sequence[Transition], frames: int, labels: Sequence[str]) -> Timeline:
    """The timeline of one recording of `frames` frames, from its events. `labels`: the names of the labels."""
    from edge_hal.decoding.timeline import Timeline, labels_from
    from edge_hal.metrics import TransitionPoint

    ids = [labels.index(event.to) for event in transitions]
    boundaries = [event.boundary.frame for event in transitions]
    decisions = [event.decision.frame if number else 0 for number, event in enumerate(transitions)]
    points = [
        TransitionPoint(label, event.boundary.t_ns / 1e9, event.decision.t_ns / 1e9)
        for label, event in zip(ids, transitions, strict=True)
        if event.from_ is not None
    ]
    return Timeline(labels_from(boundaries, ids, frames), labels_from(decisions, ids, frames), points)
