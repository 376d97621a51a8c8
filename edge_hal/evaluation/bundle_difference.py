"""What two bundles say of the same recording or video: which events both publish, and which only one of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event


@dataclass(frozen=True)
class Told:
    """A transition or a deviation. `what`: which one, as text. `time_s`: of its boundary, in stream time."""

    what: str
    time_s: float
    confidence: float


@dataclass(frozen=True)
class Difference:
    """Attributes:
    pairs: events that both bundles publish, within the tolerance.
    only_before, only_after: those of one of them.
    differing_s: how long the two name another action. length_s: of the source.
    """

    source: str
    pairs: tuple[tuple[Told, Told], ...]
    only_before: tuple[Told, ...]
    only_after: tuple[Told, ...]
    differing_s: float
    length_s: float

    @property
    def shift_s(self) -> float | None:
        """Median of the absolute differences of the times; None without a pair."""
        return statistics.median([abs(a.time_s - b.time_s) for a, b in self.pairs]) if self.pairs else None


def difference(source: str, before: Path, after: Path, within_s: float) -> Difference:
    """Stream `source` through both bundles, as fast as they can.

    Args:
        source: a video file, feature vectors, or the folder of a recording of a whole run.

    Raises:
        EdgeHalError: it is a camera, or a piece of a ring, which only its own bundle can continue; or a run failed.
    """
    return compare(source, _events(source, before), _events(source, after), within_s)


def compare(source: str, before: Sequence[Event], after: Sequence[Event], within_s: float) -> Difference:
    """Match the events of two runs over one source: the largest number of pairs that keeps the order in time."""
    from edge_hal.events import End
    from edge_hal.metrics import TransitionPoint, match_transitions

    told = [_told(events) for events in (before, after)]
    names = sorted({each.what for side in told for each in side})
    points = [[TransitionPoint(names.index(each.what), each.time_s, each.time_s) for each in side] for side in told]
    pairs = match_transitions(points[0], points[1], within_s)
    matched = [{pair[side] for pair in pairs} for side in (0, 1)]
    alone = [tuple(each for n, each in enumerate(told[side]) if n not in matched[side]) for side in (0, 1)]
    ends = [event.last.t_ns / 1e9 for event in (*before, *after) if isinstance(event, End)]
    length_s = max(ends, default=0.0)
    return Difference(
        source,
        pairs=tuple((told[0][a], told[1][b]) for a, b in pairs),
        only_before=alone[0],
        only_after=alone[1],
        differing_s=_differing_s(_actions(before), _actions(after), length_s),
        length_s=length_s,
    )


def _events(source: str, bundle: Path) -> list[Event]:
    from edge_hal.runtime import runner
    from edge_hal.runtime.recording.reader import read_recording, recordings
    from edge_hal.runtime.recording.writer import LOG

    folder = Path(source)
    options: Any = {"pace": "asap", "endpoint": "tcp://127.0.0.1:*", "allow_uncertified": True, "now_hz": 0.0}
    if folder.is_dir() and ((folder / LOG).exists() or recordings(folder) != [folder]):
        recording = None if not (folder / LOG).exists() else read_recording(folder)
        if recording is None or recording.state is not None:
            why = "a piece of a ring begins with the state of its own bundle"
            todo = "take videos out of it (edge-hal harvest), and compare on them"
            raise EdgeHalError(f"{source} cannot be streamed through two bundles", why, todo, exit_code=2)
        camera = f"replay:{source}"
    elif folder.is_dir():
        why = "it is a folder and no recording of a run"
        todo = "give video files, features:FILE.npy@HZ, or folders that edge-hal run --record wrote"
        raise EdgeHalError(f"{source} cannot be streamed through two bundles", why, todo, exit_code=2)
    else:
        camera = source
    run = runner.RunOptions(bundle=bundle, camera=camera, **options)
    if run.source.live:
        what, todo = f"{run.source.log_name} gives other frames each time", "record it: edge-hal run --record FOLDER"
        raise EdgeHalError(what, "it is no recording", todo, exit_code=2)
    found: list[Event] = []
    runner.run(run, on_event=found.append)
    return found


def _told(events: Sequence[Event]) -> list[Told]:
    from edge_hal.events import Deviation, Transition

    found = []
    for event in events:
        if isinstance(event, Transition):
            found.append(Told(f"-> {event.to}", event.boundary.t_ns / 1e9, event.confidence))
        elif isinstance(event, Deviation):
            seen = f" {event.seen}" if event.seen else ""
            found.append(Told(f"DEVIATION {event.kind}{seen}", event.boundary.t_ns / 1e9, event.confidence))
    return found


def _actions(events: Sequence[Event]) -> list[tuple[float, str | None]]:
    """Which action goes on from which time."""
    from edge_hal.events import Gap, Transition

    changes: list[tuple[float, str | None]] = [(0.0, None)]
    for event in events:
        if isinstance(event, Transition):
            changes.append((max(changes[-1][0], event.boundary.t_ns / 1e9), event.to))
        elif isinstance(event, Gap) and event.reset:
            changes.append((max(changes[-1][0], event.begin.t_ns / 1e9), None))
    return changes


def _differing_s(
    before: Sequence[tuple[float, str | None]], after: Sequence[tuple[float, str | None]], length_s: float
) -> float:
    times = sorted({0.0, length_s, *(t for t, _ in before), *(t for t, _ in after)})
    total = 0.0
    for begin, end in pairwise(times):
        one, other = (next(action for t, action in reversed(side) if t <= begin) for side in (before, after))
        total += end - begin if one != other and end <= length_s else 0.0
    return total
