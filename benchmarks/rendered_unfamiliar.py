"""What no training video shows, in rendered videos, as a run reports it, and false reports in normal videos.

    python benchmarks/rendered_unfamiliar.py --bundle BUNDLE [--each 10] [--normal-min 60] [--per-h 1] [--json]

The bundle is one of the rendered procedure, for example that of the demo. In each video of a kind something foreign is
seen for `FOREIGN_S` seconds:

    covered    a hand lies on the lens          dark       the light is off
    moved      the camera was moved             overturned the camera hangs upside down
    elsewhere  the camera shows something else  object     an unknown object lies on the bench
    arm        a second arm works with an unknown tool

It is found if a deviation `unfamiliar` begins in these seconds or at most `LATE_S` after them. All other deviations of
that kind are false. All videos are unseen: their seeds are not those of the demo.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_hal.events import Deviation, Event
from edge_hal.runtime.runner import RunOptions, run
from edge_hal.workbench.dataset import HEIGHT_PX, WIDTH_PX
from edge_hal.workbench.render import iter_frames
from edge_hal.workbench.schedule import Session, sample_session

SEED = 8_000
FOREIGN_S, LATE_S = 15.0, 3.0
EARLIEST_S = 12.0
Picture = NDArray[np.uint8]
Change = Callable[[Picture, float], Picture]
"""A picture, and seconds since the change began -> what the camera shows."""
SIZE = (WIDTH_PX, HEIGHT_PX)


def noisy(picture: NDArray[Any], rng: np.random.Generator, std: float = 4.0) -> Picture:
    return np.asarray(np.clip(picture + rng.normal(0, std, picture.shape), 0, 255), np.uint8)


def covered(rng: np.random.Generator) -> Change:
    skin = np.array([60, 90, 140]) * rng.uniform(0.3, 1.1)
    return lambda picture, t: noisy(0.08 * picture + skin, rng)


def dark(rng: np.random.Generator) -> Change:
    gain = rng.uniform(0.02, 0.12)
    return lambda picture, t: noisy(gain * picture, rng)


def warped(matrix: NDArray[np.float64]) -> Change:
    return lambda picture, t: np.asarray(cv2.warpAffine(picture, matrix, SIZE, borderMode=cv2.BORDER_REFLECT), np.uint8)


def moved(rng: np.random.Generator) -> Change:
    """Turned by 15 to 35 degrees and shifted by an eighth to a third of the picture."""
    middle = (WIDTH_PX / 2, HEIGHT_PX / 2)
    turned = cv2.getRotationMatrix2D(middle, float(rng.choice([-1, 1]) * rng.uniform(15, 35)), 1.0)
    matrix = np.asarray(turned, np.float64)
    matrix[:, 2] += rng.choice([-1, 1], 2) * rng.uniform(30, 60, 2)
    return warped(matrix)


def overturned(rng: np.random.Generator) -> Change:
    return lambda picture, t: np.ascontiguousarray(picture[::-1, ::-1])


def elsewhere(rng: np.random.Generator) -> Change:
    """Coloured boxes that move."""
    ground = rng.integers(0, 255, 3)
    boxes = [(rng.uniform(0, 200, 2), rng.uniform(20, 90, 2), rng.uniform(-8, 8, 2), rng.integers(0, 255, 3))
             for _ in range(12)]  # fmt: skip

    def change(picture: Picture, t: float) -> Picture:
        shown = np.full((HEIGHT_PX, WIDTH_PX, 3), ground, np.uint8)
        for place, size, speed, colour in boxes:
            corner = place + speed * t
            cv2.rectangle(shown, corner.astype(int).tolist(), (corner + size).astype(int).tolist(), colour.tolist(), -1)
        return noisy(shown, rng)

    return change


def thing(rng: np.random.Generator) -> Change:
    """A striped box, about as large as the work."""
    middle, angle = rng.uniform((80, 60), (160, 125)), float(rng.uniform(0, 180))
    colour, stripes = rng.integers(0, 255, 3).tolist(), rng.integers(0, 255, 3).tolist()
    large, small = (float(rng.uniform(45, 70)), float(rng.uniform(30, 50))), (8.0, 28.0)

    def change(picture: Picture, t: float) -> Picture:
        shown = picture.copy()
        for size, tone in ((large, colour), (small, stripes)):
            corners = cv2.boxPoints((middle.tolist(), size, angle)).astype(np.int32)
            cv2.fillPoly(shown, [corners], tone, cv2.LINE_AA)
        return np.asarray(shown, np.uint8)

    return change


def arm(rng: np.random.Generator) -> Change:
    """It comes from the left and sprays in circles over the work."""
    target, hz = rng.uniform((90, 70), (140, 120)), rng.uniform(0.4, 1.2)
    sleeve, can = rng.integers(0, 200, 3).tolist(), rng.integers(60, 255, 3).tolist()

    def change(picture: Picture, t: float) -> Picture:
        shown, turn = picture.copy(), 2 * np.pi * hz * t
        tip = (target + 18 * np.array([np.cos(turn), np.sin(turn)])).astype(int)
        cv2.line(shown, (-20, 60), (tip - (40, 8)).tolist(), sleeve, 34, cv2.LINE_AA)
        cv2.line(shown, (tip - (40, 8)).tolist(), tip.tolist(), (120, 150, 200), 18, cv2.LINE_AA)
        cv2.ellipse(shown, tip.tolist(), (10, 24), 20, 0, 360, can, -1, cv2.LINE_AA)
        return np.asarray(shown, np.uint8)

    return change


KINDS: dict[str, Callable[[np.random.Generator], Change]] = {
    "covered": covered,
    "dark": dark,
    "moved": moved,
    "overturned": overturned,
    "elsewhere": elsewhere,
    "object": thing,
    "arm": arm,
}


def hear(bundle: Path, folder: Path, session: Session, look: list[int], change: Change | None, begin_s: float,
         per_h: float) -> list[Deviation]:  # fmt: skip
    """The deviations `unfamiliar` of a run on the rendered session."""
    video = folder / "video.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), session.fps, SIZE)
    for number, picture in enumerate(iter_frames(session, np.random.SeedSequence(look), *SIZE)):
        since_s = number / session.fps - begin_s
        shown = picture if change is None or not 0 <= since_s < FOREIGN_S else change(picture, since_s)
        writer.write(shown)
    writer.release()
    events: list[Event] = []
    options = RunOptions(
        bundle, str(video), endpoint=f"ipc://{folder}/events", pace="asap", decoder={"unfamiliar_per_h": per_h}
    )
    run(options, on_event=events.append)
    return [event for event in events if isinstance(event, Deviation) and event.kind == "unfamiliar"]


def long_session(rng: np.random.Generator) -> Session:
    while True:
        session = sample_session(rng)
        if session.duration_s > EARLIEST_S + FOREIGN_S + 2 * LATE_S:
            return session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--each", type=int, default=10, help="videos for each kind")
    parser.add_argument("--normal-min", type=float, default=60, help="minutes of normal video")
    parser.add_argument("--per-h", type=float, default=1.0, help="decoder.unfamiliar_per_h")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, (kind, make) in enumerate(KINDS.items()):
            hits, false, delays = 0, 0, []
            for number in range(arguments.each):
                rng = np.random.default_rng([SEED, index, number])
                session = long_session(rng)
                begin_s = float(rng.uniform(EARLIEST_S, session.duration_s - FOREIGN_S - LATE_S))
                told = hear(arguments.bundle, folder, session, [SEED, index, number], make(rng), begin_s,
                            arguments.per_h)  # fmt: skip
                late_s = [event.decision.t_ns / 1e9 - begin_s for event in told]
                right = [each for each in late_s if 0 <= each <= FOREIGN_S + LATE_S]
                hits, false = hits + bool(right), false + len(told) - len(right)
                delays += right[:1]
            rows[kind] = {
                "videos": arguments.each,
                "recall": hits / max(1, arguments.each),
                "false": false,
                "delay_s_median": float(np.median(delays)) if delays else None,
            }
            print(kind, rows[kind], flush=True)
        seconds, count, number = 0.0, 0, 0
        while seconds < 60 * arguments.normal_min:
            session = sample_session(np.random.default_rng([SEED, 99, number]))
            told = hear(arguments.bundle, folder, session, [SEED, 98, number], None, 0.0, arguments.per_h)
            count, seconds, number = count + len(told), seconds + session.duration_s, number + 1
            if told:
                print("normal", number, told[0].evidence, flush=True)
        rows["normal"] = {"minutes": seconds / 60, "videos": number, "false": count,
                          "false_per_h": 3600 * count / max(seconds, 1)}  # fmt: skip
    print(json.dumps(rows, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
