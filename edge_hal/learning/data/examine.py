"""Everything that can be known of a folder with videos before a training: a table, and all problems at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.config import Config
from edge_hal.errors import EdgeHalError
from edge_hal.task_file import read_task

from .check_videos import Problem, check_before_training, check_splits, errors_first
from .dataset import load_dataset
from .extraction import Sampling
from .labels.folder import read_own_labels, without_video
from .labels.segments import FoundLabels
from .mstcn_files import Kind, index_media, names_in, text_files
from .needed_files import missing_error, missing_files
from .rates import with_model_rate
from .step_texts import read_lines
from .training_cost import Cost, extraction_times, training_cost
from .unused_files import unused_files
from .video_cache import cache_of, cache_place
from .video_set import Video, VideoSet


@dataclass(frozen=True)
class Examined:
    """`rows`: what was counted and estimated, as text. `problems`: errors first. `cost`: None if no video can be
    read."""

    rows: Mapping[str, str]
    problems: Sequence[Problem]
    cost: Cost | None

    def to_dict(self) -> dict[str, Any]:
        cost = None if self.cost is None else asdict(self.cost)
        return {"rows": dict(self.rows), "estimate": cost, "problems": [asdict(each) for each in self.problems]}


def examine(
    root: Path,
    config: Config,
    split: int | None,
    graph: Path | None = None,
    *,
    accept_damaged: bool = False,
    check_config: Callable[[Config, tuple[str, ...]], None] | None = None,
) -> Examined:
    """Check the training part of `split`, or of a task folder, or all videos.

    Args:
        graph: of a pretrained encoder, whose sizes are in `config`.
        accept_damaged: video files may lack any share of their frames.
        check_config: raises EdgeHalError if no training can begin with these settings, with the rate of the model, and
            these steps.

    Raises:
        EdgeHalError: the folder has no videos at all, or there is no such split.
    """
    kind = config.model.reads
    notes: list[str] = []
    files = index_media(root, kind, notes)
    problems = [_problem(note) for note in notes]
    own: Mapping[str, FoundLabels] = {}
    try:
        own = read_own_labels(root)
        problems += [_problem(note) for note in without_video(own, files)]
    except EdgeHalError as error:
        problems.append(_error(error))
    training = names_in(root, files, split, "train", own)
    videos, found = _readable(root, kind, training, files, config, split, own)
    problems += [*found, *unused_files(root, files)]
    rows = {"videos": f"{len(files)} in {root}, {len(training)} to train on"}
    if videos is None:
        return Examined(rows, errors_first(problems), None)
    problems += check_before_training(videos, root, files, split, config, accept_damaged=accept_damaged)
    problems += check_splits(root) if split is None else []
    problems += _test_part(root, kind, config, split)
    problems += [_problem(note) for note in videos.notes]
    rows |= _rows(videos)
    cost = None
    try:
        config = with_model_rate(config, videos)
        if check_config is not None:
            check_config(config, videos.labels)
        cost, told = _cost(root, videos, config, graph)
        rows |= {"ticks of the model": f"{config.model.hz:g} a second", **told}
        problems += too_much(cost, root)
    except EdgeHalError as error:
        problems.append(_error(error))
    return Examined(rows, errors_first(problems), cost)


def _readable(
    root: Path,
    kind: Kind,
    names: Sequence[str],
    files: Mapping[str, Path],
    config: Config,
    split: int | None,
    own: Mapping[str, FoundLabels],
) -> tuple[VideoSet | None, list[Problem]]:
    """The videos that can be loaded, and an error for each other one; one for all that lack a file."""
    problems: list[Problem] = []
    labelled = set(names) if config.learning.supervision == "frames" else {name for name in names if name in own}
    missing = missing_files(root, kind, names, files, labelled, own=own)
    if missing:
        problems.append(_error(missing_error(root, missing, len(names))))
        names = [name for name in names if name not in missing]
        if not names:
            return None, problems

    def load(only: Collection[str]) -> VideoSet:
        return load_dataset(
            root,
            split=split,
            part="train",
            with_labels=labelled & set(only),
            background=config.data.background,
            rate_hz=config.data.rate_hz,
            layout=config.data.layout,
            kind=kind,
            only=only,
            own_labels=own,
            mistakes=config.data.mistakes,
        )

    def loadable(some: Sequence[str]) -> list[str]:
        """Those that can be loaded, found by halves."""
        try:
            load(some)
            return list(some)
        except EdgeHalError as error:
            if len(some) == 1:
                problems.append(_error(error))
                return []
            return loadable(some[: len(some) // 2]) + loadable(some[len(some) // 2 :])

    try:
        return load(names), problems
    except EdgeHalError as error:
        good = loadable(names)
        if not good or len(good) == len(names):  # it is not the fault of a video, or of each
            return None, [*problems, *_unreadable_lists(root)] or [_error(error)]
    try:
        return load(good), problems
    except EdgeHalError as rest:
        return None, [*problems, _error(rest)]


def _unreadable_lists(root: Path) -> list[Problem]:
    """An error for each: one of them is enough to hide the steps of all videos."""
    found = []
    for path in text_files(root / "transcripts")[0]:
        try:
            read_lines(path)
        except EdgeHalError as error:
            found.append(_error(error))
    return found


def _test_part(root: Path, kind: Kind, config: Config, split: int | None) -> list[Problem]:
    """A warning if there is a test part that cannot be scored."""
    task = read_task(root)
    listed = (
        bool(task and task.file.test) if split is None else (root / "splits" / f"test.split{split}.bundle").is_file()
    )
    try:
        if listed:
            data = config.data
            load_dataset(root, split=split, part="test", with_labels=True, rate_hz=data.rate_hz, kind=kind)
    except EdgeHalError as error:
        return [Problem("warning", f"the test part cannot be scored: {_text(error)}", error.todo)]
    return []


def _rows(videos: VideoSet) -> dict[str, str]:
    lists = [len(video.transcript) for video in videos.videos]
    rows = {
        "steps": f"{len(videos.labels)}: {', '.join(videos.labels)}",
        "step lists": f"{len({video.transcript for video in videos.videos})} different, of {_span(lists, 'd')} steps",
        "with labels": _labelled(videos),
    }
    mistakes = sum(video.shows == "mistakes" for video in videos.videos)
    if mistakes:
        rows["with mistakes"] = f"{mistakes}: the procedure is not learned from them"
    seconds = [video.length / video.rate_hz for video in videos.videos if video.rate_hz]
    if seconds:
        rows["length"] = f"{_duration(sum(seconds))} in all, {_span(seconds, '.0f')} s a video"
        rows["frames a second"] = _span(sorted({v.rate_hz for v in videos.videos if v.rate_hz}), "g")
    return rows


def _labelled(videos: VideoSet) -> str:
    """How many videos have labels, and of which frames: '3: of all frames 1, of some frames 2'."""
    whole = [bool((video.labels >= 0).all()) for video in videos.videos if video.labels is not None]
    counts = {"all": sum(whole), "some": len(whole) - sum(whole)}
    told = ", ".join(f"of {which} frames {count}" for which, count in counts.items() if count)
    return f"{len(whole)}: {told}" if told else "0"


def _cost(root: Path, videos: VideoSet, config: Config, graph: Path | None) -> tuple[Cost, dict[str, str]]:
    """The estimate, and its rows."""
    times, uncached = list[float](), list[Video]()
    if config.model.encoder is not None:
        sampling = Sampling.of(config.model.hz, config.model.encoder.spec(config.model.hz), graph)
        cache = cache_of(root)
        looks = sampling.looks(config.copies)
        uncached = [v for look in looks for v in videos.videos if cache is None or cache.get(look.key(v)) is None]
        if uncached:
            times = extraction_times(uncached, sampling)
    cost = training_cost(videos.videos, uncached, config, times)
    rows = {}
    if config.model.encoder is not None:
        encoder = config.model.encoder
        rows["frame encoder"] = (
            f"{encoder.kind}: pictures of {encoder.height} x {encoder.width}, vectors of {encoder.size}"
        )
        rows["extraction (estimate)"] = (
            "nothing: all videos are in the cache"
            if not uncached
            else f"{_duration(cost.extract_s)} (measured: {_speed(uncached, times):.0f} times as fast as the video), "
            f"{cost.cache_bytes / 1e6:.0f} MB of cache"
        )
    rows["training (estimate)"] = f"{_duration(cost.train_s)} on two cores without a GPU, to a factor of three"
    rows["memory (estimate)"] = f"{cost.memory_bytes / 1e9:.1f} GB"
    return cost, rows


def _speed(videos: Sequence[Video], times: Sequence[float]) -> float:
    return sum(video.length / (video.rate_hz or 1.0) for video in videos) / max(1e-9, sum(times))


def too_much(cost: Cost, root: Path) -> list[Problem]:
    """A warning for what the disk with the cache of `root` or the memory of this machine does not hold."""
    found, cache = [], cache_place(root)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free, memory = shutil.disk_usage(there).free, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cost.cache_bytes > free:
        what = f"extraction writes about {cost.cache_bytes / 1e9:.1f} GB into {cache}, and {free / 1e9:.1f} GB are free"
        found.append(Problem("warning", what, "make room, or take out videos that are too long"))
    if cost.memory_bytes > memory:
        what = f"training takes about {cost.memory_bytes / 1e9:.1f} GB of memory, and {memory / 1e9:.1f} GB are here"
        found.append(Problem("warning", what, "take out videos that are too long, or use a machine with more"))
    return found


def _span(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high} (median {format(type(values[0])(np.median(values)), form)})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _problem(note: str) -> Problem:
    return Problem("warning", note, "")


def _error(error: EdgeHalError) -> Problem:
    return Problem("error", _text(error), error.todo)


def _text(error: EdgeHalError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what
