"""Mistakes in rendered videos, as a subscriber of `edge-hal run` hears of them, and false ones in normal videos.

    python benchmarks/rendered_deviations.py --bundle BUNDLE [--each 15] [--normal-min 120] [--in-a-row 1] [--json]

The bundle is one of the rendered procedure, for example that of the demo. Each video with a mistake has one: a required
step is left out (`skipped`), two steps are in the wrong order (`out_of_order`), a step is done again (`repeated`) or
lasts too long (`overdue`). A deviation is right if its kind and its step are those of the mistake. Mistakes that no
deviation named count against recall, all other deviations in these videos against precision. `rules` is the recall of
the rules alone, with the true steps as decisions, each `DELAY_S` late. All videos are unseen: their seeds are not those
of the demo.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.calib.followed import deviations, follow_labels
from edge_hal.evaluation.subscribed_run import of_type, watch_run
from edge_hal.events import Cycle, Deviation
from edge_hal.workbench.dataset import HEIGHT_PX, WIDTH_PX, render_video
from edge_hal.workbench.mistakes import KINDS, Mistake, sample_mistake
from edge_hal.workbench.place import HOME
from edge_hal.workbench.render import iter_frames
from edge_hal.workbench.schedule import Session, sample_session
from edge_hal.workbench.viewpoint import ABOVE

SEED = 7_000
DELAY_S = 0.5


def right(kind: str, expected: Iterable[str], seen: str | None, mistake: Mistake) -> bool:
    """Whether a deviation names the mistake."""
    named = {*expected} if kind == "skipped" or seen is None else {*expected, seen}
    return kind == mistake.kind and bool(named & mistake.steps)


def found_by_rules(bundle: Bundle, mistake: Mistake) -> bool:
    """Whether the rules alone name the mistake: the true steps are the decisions, and nothing is uncertain."""
    names, hz, procedure = list(bundle.spec.labels), bundle.spec.model_hz, bundle.decoder.procedure
    assert procedure is not None
    labels = np.array([names.index(step) for step in mistake.session.labels(hz)], np.int64)
    video = follow_labels(labels, len(names), round(DELAY_S * hz))
    return any(
        right(
            each.kind,
            [] if each.expected is None else [names[each.expected]],
            None if each.seen is None else names[each.seen],
            mistake,
        )
        for each in deviations(procedure, video, hz)
    )


def render(path: Path, sessions: Sequence[Session], look: list[int]) -> None:
    """One video of all sessions, in the same light and from the same camera."""
    if len(sessions) == 1:
        render_video(path, sessions[0], np.random.SeedSequence(look))
        return
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), sessions[0].fps, (WIDTH_PX, HEIGHT_PX))
    for session in sessions:
        for frame in iter_frames(session, np.random.SeedSequence(look), WIDTH_PX, HEIGHT_PX, HOME, ABOVE):
            writer.write(frame)
    writer.release()


def hear(
    bundle: Path, folder: Path, sessions: Sequence[Session], look: list[int]
) -> tuple[list[Deviation], list[Cycle]]:
    """What a subscriber hears of rendered sessions, but for `unfamiliar`: `rendered_unfamiliar.py` measures that."""
    video = folder / "video.mp4"
    render(video, sessions, look)
    events = watch_run(bundle, str(video), folder / "events.sock", "deviations")
    return [each for each in of_type(events, Deviation) if each.kind != "unfamiliar"], of_type(events, Cycle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--each", type=int, default=15, help="videos for each kind of mistake")
    parser.add_argument("--normal-min", type=float, default=120, help="minutes of normal video")
    parser.add_argument("--in-a-row", type=int, default=1, help="passes in each normal video")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    bundle = load_bundle(arguments.bundle)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = Counter[str]()
        for kind in KINDS:
            hits = corrected = false = by_rules = 0
            for number in range(arguments.each):
                mistake = sample_mistake(kind, SEED, number)
                by_rules += found_by_rules(bundle, mistake)
                heard, _ = hear(arguments.bundle, folder, [mistake.session], [SEED, hash_of(kind), number])
                found = [each for each in heard if right(each.kind, each.expected, each.seen, mistake)]
                hits += bool(found)
                replaced = {each.corrects for each in found}
                extra = [d for d in heard if d not in found and d.seq not in replaced]
                corrected += len([d for d in heard if d.seq in replaced])
                false += len(extra)
                others.update(d.kind for d in extra)
                if not arguments.json:
                    told = ", ".join(f"{d.kind} {d.expected} {d.seen}" for d in heard)
                    print(f"{kind} {sorted(mistake.steps)}: {told or 'nothing'}", flush=True)
            rows[kind] = {
                "videos": arguments.each,
                "recall": hits / max(1, arguments.each),
                "precision": hits / max(1, hits + false),
                "corrected": corrected,
                "rules": by_rules / max(1, arguments.each),
            }
        rows["false_by_kind"] = dict(others)
        seconds, normal, cycles, complete = 0.0, Counter[str](), 0, 0
        number = passes = 0
        while seconds < 60 * arguments.normal_min:
            numbers = range(passes, passes + arguments.in_a_row)
            sessions = [sample_session(np.random.default_rng([SEED, 99, each])) for each in numbers]
            heard, found_cycles = hear(arguments.bundle, folder, sessions, [SEED, 98, number])
            normal.update(each.kind for each in heard)
            cycles, complete = cycles + len(found_cycles), complete + sum(each.complete for each in found_cycles)
            seconds += sum(session.duration_s for session in sessions)
            number, passes = number + 1, passes + len(sessions)
            if not arguments.json:
                told = ", ".join(f"{d.kind} {d.expected} {d.seen}" for d in heard)
                print(f"normal {number}: {told or 'nothing'}", flush=True)
        rows["normal"] = {
            "minutes": seconds / 60,
            "videos": number,
            "passes": passes,
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
