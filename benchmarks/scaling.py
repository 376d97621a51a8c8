"""What a second process, or a second worker, brings: the optimiser under torchrun, the restarts, and the extraction.

    python benchmarks/scaling.py [--repeats 5] [--parts student,encoder,restarts,extraction]

Each repetition runs one and two in turn, with one thread each; the medians of their ratios are printed as JSON. `wall`
is what a user waits for. `processor` is the processor time of one process alone over that of the busiest of two: on a
busy machine it says what free cores would give, without the time that the processes wait for each other. `optimiser` is
the encoder and the student of one training together: with the epochs of the preset, and the same videos for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
VIDEOS, VIDEO_S = 8, 60.0
ENCODER_VIDEOS = 2 * VIDEOS
RESTARTS = 16
FILMS = 4


class Clock:
    """The times at which epochs ended, in seconds: of the wall and of this process."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def __call__(self, stage: str, done: int, total: int, remark: str) -> None:
        self.wall.append(time.monotonic())
        self.processor.append(time.process_time())

    def after_the_first(self) -> tuple[float, float]:
        return self.wall[-1] - self.wall[0], self.processor[-1] - self.processor[0]


def optimise(part: str, out: Path) -> None:
    """In each process: three epochs of the student or of the encoder, of the `jetson` preset, on made-up videos. The
    first epoch is not measured. Writes the times to `out`, a file for each process."""
    import numpy as np
    import torch

    from edge_hal.config import load_config
    from edge_hal.learning.data.recordings import SampledRecording
    from edge_hal.learning.encoders.train_encoder import learn_encoder
    from edge_hal.learning.networks.optimise import Stage
    from edge_hal.learning.networks.student import learn_student
    from edge_hal.learning.networks.world import world_of_torchrun

    few = ("learning.student.epochs=3", "learning.student.least_steps=0", "learning.encoder.epochs=3")
    config = load_config("jetson", few)
    eye, labels = config.model.encoder, tuple(map(str, range(8)))
    assert eye is not None
    rng, ticks = np.random.default_rng(0), round(VIDEO_S * config.model.hz)
    found = [np.sort(rng.integers(0, len(labels), ticks)) for _ in range(VIDEOS)]
    clock = Clock()
    with world_of_torchrun() as world, tempfile.TemporaryDirectory() as folder:
        stage = Stage(part, Path(folder), 0, clock, torch.device("cpu"), world)
        if part == "student":
            spec = config.model.spec(labels, None)
            features = [torch.randn(ticks, spec.front_end.features) for _ in range(VIDEOS)]
            learn_student(features, found, None, spec, config.learning, stage)
        else:
            picture = rng.integers(0, 256, (1, eye.height, eye.width, 3), np.uint8)
            pictures = np.broadcast_to(picture, (ticks, *picture.shape[1:]))
            frames = np.arange(ticks)
            films = [SampledRecording(str(i), (), pictures, frames, None) for i in range(ENCODER_VIDEOS)]
            learn_encoder(
                films, 2 * found, eye.spec(config.model.hz), len(labels), config.model.hz, config.learning, stage
            )
        (out / str(world.rank)).write_text(json.dumps(clock.after_the_first()))


def optimised(part: str) -> Callable[[int], tuple[float, float]]:
    def measure(processes: int) -> tuple[float, float]:
        launch = (*TORCHRUN, str(processes)) if processes > 1 else ()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *launch, __file__, "--inside", part, "--out", folder]
            subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
            times = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
        assert len(times) == processes
        return max(wall for wall, _ in times), max(processor for _, processor in times)

    return measure


def restarts(workers: int) -> tuple[float, float]:
    import numpy as np

    from edge_hal.learning.hmm.align import align_with_hmm
    from edge_hal.learning.hmm.em import HmmConfig

    rng = np.random.default_rng(0)
    lists = [rng.permutation(8).tolist() for _ in range(24)]
    labels = [np.repeat(steps, rng.integers(15, 45, 8)) for steps in lists]
    means = rng.normal(size=(8, 12)) * 2
    features = [means[y] + 2 * rng.normal(size=(len(y), 12)) for y in labels]
    began = time.monotonic()
    config = HmmConfig(generations=4, agreement=1.1)
    align_with_hmm(features, lists, 8, seed=0, restarts=RESTARTS, config=config, workers=workers)
    return time.monotonic() - began, 0.0


def extraction(films: Path) -> Callable[[int], tuple[float, float]]:
    def measure(workers: int) -> tuple[float, float]:
        from edge_hal.learning.data.extraction import Sampling, extract
        from edge_hal.learning.data.media_files import read_times
        from edge_hal.learning.data.video_set import Video

        videos = []
        for path in sorted(films.glob("*.mp4")):
            times = read_times(path, None)
            videos.append(Video(path.stem, path, "video", (), times.length, times.rate_hz))
        began = time.monotonic()
        extract(videos, Sampling(30.0, 120, 160), None, workers=workers)
        return time.monotonic() - began, 0.0

    return measure


def film(folder: Path) -> None:
    from edge_hal.workbench.dataset import render_video, video_session

    for number in range(FILMS):
        session, look = video_session(0, number)
        render_video(folder / f"{number}.mp4", session, look)


def compare(measure: Callable[[int], tuple[float, float]], repeats: int) -> dict[str, Any]:
    """Times of one and of two, in turn, and the medians of the ratios."""
    rows = []
    for _ in range(repeats):
        (one, of_one), (two, of_two) = measure(1), measure(2)
        row = {"one_s": round(one, 2), "two_s": round(two, 2), "wall": round(one / two, 2)}
        if of_two:
            row |= {"processor": round(of_one / of_two, 2)}
        rows.append(row | {"load": round(os.getloadavg()[0], 1)})
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {"median": medians, "each": rows}


def of_training(encoder: list[dict[str, Any]], student: list[dict[str, Any]]) -> float:
    """The median ratio for the encoder and the student of one training."""
    from edge_hal.config import load_config

    learning = load_config("jetson").learning
    share = learning.encoder.epochs * VIDEOS / ENCODER_VIDEOS

    def total_s(key: str) -> list[float]:
        pairs = zip(encoder, student, strict=True)
        return [share * of_encoder[key] + learning.student.epochs * of_student[key] for of_encoder, of_student in pairs]

    return statistics.median(one / two for one, two in zip(total_s("one_s"), total_s("two_s"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", default="student,encoder,restarts,extraction")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        optimise(arguments.inside, arguments.out)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder)
        measures = {
            "student": optimised("student"),
            "encoder": optimised("encoder"),
            "restarts": restarts,
            "extraction": extraction(films),
        }
        asked = arguments.parts.split(",")
        if "extraction" in asked:
            film(films)
        report: dict[str, Any] = {part: compare(measures[part], arguments.repeats) for part in asked}
    if {"encoder", "student"} <= report.keys():
        report["optimiser"] = round(of_training(report["encoder"]["each"], report["student"]["each"]), 2)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": os.getloadavg()[0]}
    print(json.dumps({"machine": machine, **report}, indent=1))


if __name__ == "__main__":
    main()
