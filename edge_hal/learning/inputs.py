"""What the model sees of the training videos: pictures, the vectors of an encoder, and augmented copies. The processes
of a training share the work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.parallel import Workers
from edge_hal.parallel.cores import cores
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.progress import Progress
from edge_hal.spec import EncoderSpec

from .data.extraction import Sampling, extract
from .data.recordings import SampledRecording, read_recordings
from .data.video_cache import VideoCache
from .data.video_set import VideoSet
from .networks.world import World

Vectors = NDArray[np.float32]


def read_together(
    videos: VideoSet,
    model_hz: float,
    picture: EncoderSpec | None,
    graph: Path | None,
    cache: VideoCache | None,
    progress: Progress,
    world: World,
    workers: Workers | None,
    *,
    accept_damaged: bool,
) -> list[SampledRecording]:
    """The recordings, in each process. Arguments and errors: as for `read_recordings`."""
    if picture is not None:
        _extract_together(videos, Sampling.of(model_hz, picture, graph), cache, world, workers)
    return read_recordings(
        videos,
        model_hz,
        picture,
        lambda done, total: progress("read", done, total, ""),
        graph=graph,
        cache=cache,
        workers=workers,
        accept_damaged=accept_damaged,
    )


def encode_together(
    recordings: Sequence[SampledRecording], graph: Path, progress: Progress, world: World
) -> list[Vectors]:
    """Vectors (T, D) of the pictures of each recording, by the graph that will run on the device."""
    done = 0

    def encoded(recording: SampledRecording) -> Vectors:
        nonlocal done
        vectors = encode_pictures(graph, np.asarray(recording.inputs, np.uint8))
        done += 1
        progress("encode", min(done * world.size, len(recordings)), len(recordings), "")
        return vectors

    return world.each(encoded, recordings)


def copies_of(
    videos: VideoSet,
    recordings: Sequence[SampledRecording],
    sampling: Sampling,
    count: int,
    cache: VideoCache | None,
    progress: Progress,
    world: World,
    workers: Workers | None,
) -> list[list[Vectors]]:
    """Vectors (T, D) of each video in each of `count` augmented copies."""
    copies = []
    for number in range(1, 1 + count):
        copy = replace(sampling, copy=number)
        _extract_together(videos, copy, cache, world, workers)
        found = extract(videos.videos, copy, cache, partial(_told, progress, f"copy {number}"), workers=workers)
        pairs = zip(found, recordings, strict=True)
        copies.append([np.asarray(each.values[: len(r.inputs)], np.float32) for each, r in pairs])
    return copies


def _told(progress: Progress, remark: str, done: int, total: int) -> None:
    progress("augment", done, total, remark)


def _extract_together(
    videos: VideoSet, sampling: Sampling, cache: VideoCache | None, world: World, workers: Workers | None
) -> None:
    """Fill the cache, each process with its share of the videos; an executor is used by the first one. Without a cache
    each process reads all of them later."""
    if world.size == 1 or cache is None:
        return
    if world.from_first(lambda: isinstance(workers, Executor)):
        world.from_first(lambda: len(extract(videos.videos, sampling, cache, workers=workers)))
    else:
        here = workers or max(1, cores() // world.local_size)
        extract(videos.videos[world.rank :: world.size], sampling, cache, workers=here)
        world.wait()
