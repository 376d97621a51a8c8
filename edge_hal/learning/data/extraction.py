"""Extraction: what a model sees of video files, as pictures or as vectors of its encoder, written into the cache.

Memory does not grow with the length of a video: one frame is decoded at a time, and each row is written at once.
Videos are read in parallel by threads; decoding, resizing and encoding run outside the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.media.stamps import Missing
from edge_hal.parallel import Workers, mapped
from edge_hal.parallel.cores import cores
from edge_hal.pictures.encoding import EncoderGraph, each_picture
from edge_hal.pictures.moving import MovingParts
from edge_hal.progress import ProgressCount
from edge_hal.spec import EncoderSpec
from edge_hal.ticks import ticks_of

from .augmentation import Augmentation
from .video_cache import ENCODERS, Sampled, VideoCache, cache_key, content_hash
from .video_set import Video

REPORT_S = 0.2


@dataclass(frozen=True)
class Sampling:
    """How a model sees videos: `model_hz` ticks per second, pictures of `height` x `width` pixels. With `graph`, the
    vectors of this encoder are wanted, else the pictures. `copy`: 0 for the video as it is, else the number of an
    augmented copy. `moving`: as in `spec.EncoderSpec`."""

    model_hz: float
    height: int
    width: int
    graph: Path | None = None
    copy: int = 0
    moving: int = 0

    @classmethod
    def of(cls, model_hz: float, encoder: EncoderSpec, graph: Path | None = None) -> Sampling:
        return cls(model_hz, encoder.height, encoder.width, graph, moving=encoder.moving)

    def looks(self, copies: int) -> list[Sampling]:
        """All that a training reads of its videos: this first, whole pictures for the alignment if the model sees
        moving parts, and augmented copies. Without a graph the encoder is trained on the pictures, and the copies are
        read when it exists."""
        whole = [replace(self, moving=0)] if self.moving else []
        numbers = range(1, 1 + copies) if self.graph is not None else ()
        return [self, *whole, *(replace(self, copy=copy) for copy in numbers)]

    def key(self, video: Video) -> str:
        """The name of the cached file of `video`. Raises EdgeHalError if the video or the graph cannot be read."""
        encoder = None if self.graph is None else content_hash(self.graph)
        parts = {"model_hz": self.model_hz, "height": self.height, "width": self.width, "encoder": encoder}
        if self.copy:
            parts["copy"] = self.copy
        if self.moving:
            parts["moving"] = self.moving
        return cache_key({**parts, "video": content_hash(video.path), "unstamped_hz": video.rate_hz})


def extract(
    videos: Sequence[Video],
    sampling: Sampling,
    cache: VideoCache | None,
    progress: ProgressCount | None = None,
    *,
    workers: Workers | None = None,
) -> list[Sampled]:
    """What a model sees of each video. What the cache holds is not read again, so an interrupted extraction continues
    after the last video that was complete.

    Args:
        cache: None: temporary files.
        progress: called with the ticks that are done and those of all videos.
        workers: threads, or an executor whose workers see the videos and the cache; None: one thread for each core.
            Without a cache an executor is not used.

    Returns:
        For each video all ticks up to its last frame.

    Raises:
        EdgeHalError: a video or the encoder cannot be read, or the cache cannot be written.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:  # mapped files stay readable after their end
            threads = None if isinstance(workers, Executor) else workers
            return extract(videos, sampling, VideoCache(Path(folder)), progress, workers=threads)
    threads = cores() if workers is None or isinstance(workers, Executor) else workers
    total = [len(ticks_of(video.length, video.rate_hz or 1.0, sampling.model_hz)) for video in videos]
    done = [0] * len(videos)

    def tell() -> None:
        if progress is not None:
            progress(sum(map(min, done, total)), sum(total))

    with ThreadPoolExecutor(threads, "edge-hal-hash") as pool:
        keys = list(pool.map(sampling.key, videos))
    found = {key: cache.get(key) for key in keys}
    wanted: dict[str, int] = {}
    for index, key in enumerate(keys):
        if found[key] is not None or key in wanted:  # two names may have the same content
            done[index] = total[index]
        else:
            wanted[key] = index
    tell()
    if isinstance(workers, Executor):
        with remote_extraction(sampling, cache) as remote:
            ended = mapped(remote, [(videos[index], key) for key, index in wanted.items()], workers)
            for index, _ in zip(wanted.values(), ended, strict=True):
                done[index] = total[index]
                tell()
    elif wanted:
        encoder = None if sampling.graph is None else EncoderGraph(sampling.graph)
        stop = threading.Event()
        jobs = [Job(videos[i], sampling, key, cache, encoder, stop, done, i) for key, i in wanted.items()]
        _extract_here(jobs, threads, stop, tell)
    done[:] = total  # a video may have a tick more or less than its stamps announce
    tell()
    for key in wanted:
        found[key] = cache.get(key)
    if wanted:
        cache.sweep()
    sampled = [found[key] for key in keys]
    if any(each is None for each in sampled):
        why = "another program deleted it, or a worker has another folder there"
        raise EdgeHalError(f"the cache {cache.folder} lost a file", why, "run it again")
    return [one for one in sampled if one is not None]


def _extract_here(jobs: Sequence[Job], threads: int, stop: threading.Event, tell: Callable[[], None]) -> None:
    with ThreadPoolExecutor(threads, "edge-hal-extract") as pool:
        try:
            pending = {pool.submit(job.run) for job in jobs}
            while pending:
                ended, pending = wait(pending, REPORT_S, FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                tell()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def remote_extraction(sampling: Sampling, cache: VideoCache) -> Iterator[RemoteExtraction]:
    """What workers call. The graph of the encoder lies beside the cached files meanwhile, where they see it."""
    folder = cache.folder.absolute()
    if sampling.graph is None:
        yield RemoteExtraction(sampling, folder)
        return
    with tempfile.TemporaryDirectory(prefix=ENCODERS, dir=folder) as beside:
        graph = Path(shutil.copy(sampling.graph, beside))
        yield RemoteExtraction(replace(sampling, graph=graph), folder)


@dataclass(frozen=True)
class RemoteExtraction:
    """The extraction of a video into the cache at `folder`, in a worker."""

    sampling: Sampling
    folder: Path

    def __call__(self, item: tuple[Video, str]) -> None:
        """Extract a video under a key.

        Raises:
            EdgeHalError: this machine does not see the cache, or would give the video another key, or cannot read it.
        """
        video, key = item
        node = os.uname().nodename
        if not self.folder.is_dir():
            todo = "put the data and the cache into a folder that all workers see under the same path"
            raise EdgeHalError(f"the worker on {node} does not see {self.folder}", "", todo)
        if self.sampling.key(video) != key:
            what = f"the worker on {node} reads {video.path} in another way"
            why = "it has another version of edge-hal, av, cv2 or onnxruntime, or another file there"
            raise EdgeHalError(what, why, "make them the same")
        encoder = None if self.sampling.graph is None else _opened(self.sampling.graph)
        Job(video, self.sampling, key, VideoCache(self.folder), encoder, threading.Event(), [0], 0).run()


@lru_cache(maxsize=1)
def _opened(graph: Path) -> EncoderGraph:
    return EncoderGraph(graph)


class _Stopped(Exception):
    pass


@dataclass(frozen=True)
class Job:
    """The extraction of one video."""

    video: Video
    sampling: Sampling
    key: str
    cache: VideoCache
    encoder: EncoderGraph | None
    stop: threading.Event
    done: list[int]
    index: int

    def run(self) -> None:
        seen, augmentation = self.sampling, None
        if seen.copy:  # the same for each seed of a training, so that the cache serves all
            rng = np.random.default_rng([seen.copy, int(content_hash(self.video.path)[:16], 16)])
            augmentation = Augmentation.sample(rng, seen.height, seen.width)
        kept, moving = self._kept(), None
        if seen.moving and (seen.copy or kept is None):
            moving = MovingParts(seen.height, seen.width, seen.moving)
        with self.cache.adding(self.key) as rows:

            def take(picture: NDArray[np.uint8]) -> None:
                if augmentation is not None:
                    picture = augmentation.of(picture)
                # A copy is a film of another place. It is greyed last, as a run greys what it sees there.
                if moving is not None:
                    picture = moving(picture)
                rows.append(picture if self.encoder is None else self.encoder(picture)[0])
                self.done[self.index] += 1
                self.go_on()

            rows.missing = self._each(kept, take)

    def _kept(self) -> Sampled | None:
        """Pictures of the cache: greyed ones, if there are any to be, but for a copy, which is greyed last."""
        seen = self.sampling
        plain = replace(seen, graph=None, copy=0, moving=0 if seen.copy else seen.moving)
        return None if seen.graph is None else self.cache.get(plain.key(self.video))

    def _each(self, kept: Sampled | None, take: Callable[[NDArray[np.uint8]], None]) -> Missing:
        """Call `take` with each picture: of the cache, if it has them, else of the video."""
        seen, video = self.sampling, self.video
        if kept is not None:
            for picture in kept.values:
                take(picture)
            return kept.missing
        return each_picture(
            video.path, seen.model_hz, seen.height, seen.width, take, video.rate_hz, lambda _: self.go_on()
        )

    def go_on(self) -> None:
        if self.stop.is_set():
            raise _Stopped
