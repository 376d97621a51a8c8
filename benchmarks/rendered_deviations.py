"""Mistakes in rendered videos, as a subscriber of `edge-hal run` hears of them, and false ones in normal videos.

    python benchmarks/rendered_deviations.py --bundle BUNDLE [--each 15] [--normal-min 120] [--work FOLDER] [--json]

The bundle is one of the rendered procedure, for example that of the demo. Each video with a mistake has one: a required
step is left out (`skipped`), two steps are in the wrong order (`out_of_order`), a step is done again (`repeated`) or
lasts too long (`overdue`). A deviation is right if its kind and its step are those of the mistake. Mistakes that no
deviation named count against recall, all other deviations in these videos against precision. Videos with a mistake and
normal ones are unseen: their seeds are not those of the demo.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.evaluation.subscribed_run import of_type, watch_run
from edge_hal.events import Cycle, Deviation
from edge_hal.workbench.dataset import render_video
from edge_hal.workbench.schedule import Segment, Session, is_valid_order, sample_session

SEED = 7_000
REQUIRED = ("insert_gear", "fit_cover", "drive_screws")
ONCE = ("place_base", "grease_gear", "fit_cover", "drive_screws", "tap_cover")
PROLONGED_S = (60.0, 75.0)


@dataclass(frozen=True)
class Mistake:
    """A session with one mistake. `steps`: the steps that a right deviation may name."""

    kind: str
    steps: frozenset[str]
    session: Session


def in_order(segments: list[Segment], fps: float) -> Session:
    """The segments one after the other."""
    start_s, placed = 0.0, []
    for segment in segments:
        placed.append(replace(segment, start_s=start_s))
        start_s = placed[-1].end_s
    return Session(tuple(placed), fps)


def skipped(session: Session, rng: np.random.Generator) -> Mistake | None:
    step = str(rng.choice(REQUIRED))
    kept = [segment for segment in session.segments if segment.step != step]
    if any(a.step == b.step for a, b in itertools.pairwise(kept)):
        return None
    return Mistake("skipped", frozenset({step}), in_order(kept, session.fps))


def out_of_order(session: Session, rng: np.random.Generator) -> Mistake | None:
    """Two neighbours swapped, where the procedure forbids it."""
    segments, places = list(session.segments), []
    for i in range(1, len(segments) - 1):
        order = [segment.step for segment in segments]
        order[i], order[i + 1] = order[i + 1], order[i]
        apart = all(a != b for a, b in itertools.pairwise(order))
        if apart and not is_valid_order(tuple(order)):
            places.append(i)
    if not places:
        return None
    i = int(rng.choice(places))
    pair = frozenset({segments[i].step, segments[i + 1].step})
    segments[i], segments[i + 1] = segments[i + 1], segments[i]
    return Mistake("out_of_order", pair, in_order(segments, session.fps))


def repeated(session: Session, rng: np.random.Generator) -> Mistake | None:
    segments = list(session.segments)
    source = [segment for segment in segments if segment.step in ONCE]
    again = source[int(rng.integers(len(source)))]
    first = next(i for i, segment in enumerate(segments) if segment.step == again.step)
    places = [
        i
        for i in range(first + 2, len(segments) + 1)
        if segments[i - 1].step != again.step and (i == len(segments) or segments[i].step != again.step)
    ]
    if not places:
        return None
    segments.insert(int(rng.choice(places)), again)
    return Mistake("repeated", frozenset({again.step}), in_order(segments, session.fps))


def overdue(session: Session, rng: np.random.Generator) -> Mistake | None:
    segments = list(session.segments)
    i = int(rng.integers(len(segments)))
    segments[i] = replace(segments[i], active_s=float(rng.uniform(*PROLONGED_S)))
    return Mistake("overdue", frozenset({segments[i].step}), in_order(segments, session.fps))


KINDS: dict[str, Callable[[Session, np.random.Generator], Mistake | None]] = {
    "skipped": skipped,
    "out_of_order": out_of_order,
    "repeated": repeated,
    "overdue": overdue,
}


def sample_mistake(kind: str, number: int) -> Mistake:
    rng = np.random.default_rng([SEED, sorted(KINDS).index(kind), number])
    while True:
        found = KINDS[kind](sample_session(rng), rng)
        if found is not None:
            return found


def right(deviation: Deviation, mistake: Mistake) -> bool:
    named = {*deviation.expected, *([] if deviation.seen is None else [deviation.seen])}
    if deviation.kind != mistake.kind:
        return False
    return bool(set(deviation.expected) & mistake.steps if mistake.kind == "skipped" else named & mistake.steps)


def hear(bundle: Path, folder: Path, session: Session, look: list[int]) -> tuple[list[Deviation], list[Cycle]]:
    """What a subscriber hears of a rendered session."""
    video = folder / "video.mp4"
    render_video(video, session, np.random.SeedSequence(look))
    events = watch_run(bundle, str(video), folder / "events.sock", "deviations")
    return of_type(events, Deviation), of_type(events, Cycle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--each", type=int, default=15, help="videos for each kind of mistake")
    parser.add_argument("--normal-min", type=float, default=120, help="minutes of normal video")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = Counter[str]()
        for kind in KINDS:
            hits = corrected = false = 0
            for number in range(arguments.each):
                mistake = sample_mistake(kind, number)
                deviations, _ = hear(arguments.bundle, folder, mistake.session, [SEED, hash_of(kind), number])
                found = [deviation for deviation in deviations if right(deviation, mistake)]
                hits += bool(found)
                replaced = {deviation.corrects for deviation in found}
                extra = [d for d in deviations if d not in found and d.seq not in replaced]
                corrected += len([d for d in deviations if d.seq in replaced])
                false += len(extra)
                others.update(d.kind for d in extra)
                if not arguments.json:
                    told = ", ".join(f"{d.kind} {d.expected} {d.seen}" for d in deviations)
                    print(f"{kind} {sorted(mistake.steps)}: {told or 'nothing'}", flush=True)
            rows[kind] = {
                "videos": arguments.each,
                "recall": hits / max(1, arguments.each),
                "precision": hits / max(1, hits + false),
                "corrected": corrected,
            }
        rows["false_by_kind"] = dict(others)
        seconds, normal, cycles, complete = 0.0, Counter[str](), 0, 0
        number = 0
        while seconds < 60 * arguments.normal_min:
            session = sample_session(np.random.default_rng([SEED, 99, number]))
            deviations, passes = hear(arguments.bundle, folder, session, [SEED, 98, number])
            normal.update(deviation.kind for deviation in deviations)
            cycles, complete = cycles + len(passes), complete + sum(each.complete for each in passes)
            seconds, number = seconds + session.duration_s, number + 1
            if not arguments.json:
                told = ", ".join(f"{d.kind} {d.expected} {d.seen}" for d in deviations)
                print(f"normal {number}: {told or 'nothing'}", flush=True)
        rows["normal"] = {
            "minutes": seconds / 60,
            "videos": number,
            "false_per_10_min": 600 * sum(normal.values()) / max(seconds, 1),
            "by_kind": dict(normal),
            "cycles": cycles,
            "complete": complete,
        }
    print(json.dumps(rows, indent=None if arguments.json else 2))


def hash_of(kind: str) -> int:
    return sorted(KINDS).index(kind)


if __name__ == "__main__":
    main()
