"""What can be known of videos and step lists before a training, from names, lengths and lists, without decoding."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_hal.config import Config
from edge_hal.errors import EdgeHalError
from edge_hal.task_file import read_task
from edge_hal.task_folder import TASK_FILE
from edge_hal.ticks import ticks_of

from .aspects import other_shapes
from .list_habits import doubtful
from .media_files import ACCEPTED_SHARE, lacking_frames
from .mstcn_files import read_split, video_names
from .rates import FIRST_ALIGN_HZ, choose_align_hz, with_model_rate
from .step_texts import count_of
from .video_cache import content_hash
from .video_set import VideoSet, without_order

SEEN_OFTEN_ENOUGH = 2
MORE_STEPS = "name each part of the procedure that a transition shall begin or end, one a line"
MOST_SHOWN = 12
"""Steps that are named of a chain."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with the data. With `error` training cannot work, or its scores would be wrong; with `warning` it
    may be worse than it could be."""

    level: Literal["error", "warning"]
    what: str
    todo: str


def errors_first(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.level != "error")


def check_lists(videos: VideoSet, config: Config) -> list[Problem]:
    """Steps that the lists of `videos` show too rarely, or that nothing tells apart."""
    found: list[Problem] = []
    names, lists = videos.labels, [video.transcript for video in videos.videos]
    written = {video.name: [names[step] for step in video.transcript] for video in videos.videos}
    found += [Problem("warning", what, todo) for what, todo in doubtful(written)]
    holders = Counter(step for steps in lists for step in set(steps))
    never = [name for step, name in enumerate(names) if not holders[step]]
    once = [name for step, name in enumerate(names) if 0 < holders[step] < SEEN_OFTEN_ENOUGH]
    if never:
        todo = "remove them from `steps`, mapping.txt or lists without a video, or add videos that show them"
        found.append(Problem("warning", f"no training video shows {count_of(never, 'step')}", todo))
    if once and len(lists) > 1:
        what = f"only one training video shows {count_of(once, 'step')}"
        found.append(Problem("warning", what, "add videos that show them; is a name misspelt?"))
    if len(names) == 1:
        found.append(Problem("warning", f"there is one step, {names[0]}: no transition can be learned", MORE_STEPS))
        return found
    labelled = any(video.labels is not None for video in videos.videos)
    if labelled:
        return found
    todo = "add videos with other orders or pauses, or label the frames of one video (labels/<video>.txt)"
    if config.learning.lists == "sets":
        found += [Problem("warning", note, todo) for note in without_order(videos).notes[len(videos.notes) :]]
    elif len(lists) > 1 and len(set(lists)) == 1:
        what = f"all {len(lists)} step lists are equal: only looks and durations tell where a step ends"
        found.append(Problem("warning", what, todo))
    else:
        for chain in inseparable(lists):
            shown = [names[step] for step in chain[:MOST_SHOWN]]
            shown += [f"... ({len(chain)} steps)"] if len(chain) > MOST_SHOWN else []
            what = f"the lists never show these steps apart: {' -> '.join(shown)}"
            found.append(Problem("warning", f"{what}; only looks and durations tell where one ends", todo))
    return found


def inseparable(lists: Sequence[Sequence[int]]) -> list[list[int]]:
    """Chains of steps of which each is always followed by the next, and the next always comes after it. Any boundary
    between two of them fits the lists."""
    end = -1
    follows: dict[int, set[int]] = {}
    precedes: dict[int, set[int]] = {}
    for steps in lists:
        for step, after in itertools.pairwise([end, *steps, end]):
            follows.setdefault(step, set()).add(after)
            precedes.setdefault(after, set()).add(step)
    after_of = {}
    for step, others in follows.items():
        after = min(others)
        if len(others) == 1 and precedes[after] == {step} and end not in (step, after):
            after_of[step] = after
    chains = []
    for first in sorted(after_of.keys() - set(after_of.values())):
        chain = [first]
        while chain[-1] in after_of:
            chain.append(after_of[chain[-1]])
        chains.append(chain)
    return chains


def check_lengths(ticks: Mapping[str, int], transcripts: Mapping[str, Sequence[int]], config: Config) -> None:
    """Raises EdgeHalError for the first video that `too_short` finds."""
    for error in too_short(ticks, transcripts, config):
        raise error


def too_short(
    ticks: Mapping[str, int], transcripts: Mapping[str, Sequence[int]], config: Config
) -> Iterator[EdgeHalError]:
    """An error for each video that is too short for its step list: each step needs one sample at the rates of the first
    alignment and of the teacher.

    Args:
        ticks: the length of each video in ticks of the model.
    """
    model_hz = config.model.hz
    durations_s = [count / model_hz for count in ticks.values()]
    hz = config.learning.align_hz or choose_align_hz(durations_s, [transcripts[name] for name in ticks])
    period = max(1, round(model_hz / min(hz, FIRST_ALIGN_HZ)))
    for name, count in ticks.items():
        if -(-count // period) < len(transcripts[name]):
            yield EdgeHalError(
                f"video {name} is too short for its {len(transcripts[name])} steps",
                f"it lasts {count / model_hz:.1f} s, and the alignment looks {model_hz / period:g} times a second",
                "correct its step list (a line for each step, not for each frame), or leave the video out",
            )


def _short(videos: VideoSet, config: Config) -> list[Problem]:
    """The errors of `too_short`, where training aligns anything and all rates are known."""
    labelled = all(video.labels is not None and (video.labels >= 0).all() for video in videos.videos)
    if labelled or any(not video.rate_hz for video in videos.videos):
        return []
    config = with_model_rate(config, videos)
    ticks = {v.name: len(ticks_of(v.length, v.rate_hz or 1.0, config.model.hz)) for v in videos.videos}
    errors = too_short(ticks, {video.name: video.transcript for video in videos.videos}, config)
    return [_problem(error) for error in errors]


def check_parts(root: Path, files: Mapping[str, Path], split: int | None, training: Collection[str]) -> list[Problem]:
    """Videos that are trained on and scored, and files of the same content under two names.

    Args:
        training: the videos to train on.
    """
    tested: dict[str, str] = {}
    for part in ("test", "valid"):
        if split is not None and (root / "splits" / f"{part}.split{split}.bundle").is_file():
            tested |= {name: f"{part} part of split {split}" for name in read_split(root, split, part)}
    task = read_task(root) if split is None else None
    if task is not None:
        tested = {name: f"`test` of {TASK_FILE}" for name in video_names(task.file.test)}
    found = []
    both = sorted(set(training) & tested.keys())
    if both:
        what = f"{count_of(both, 'video')} in the training and in the {tested[both[0]]}: scores would be too high"
        found.append(Problem("error", what, "take them out of one of the two"))
    for same in _same_content({name: files[name] for name in {*training, *tested} if name in files}):
        parts = {name in tested for name in same}
        what = f"{count_of(same, 'video')} have the same content"
        if len(parts) == 2:
            found.append(Problem("error", f"{what}, in training and in test", "remove one of them"))
        else:
            found.append(Problem("warning", what, "remove all but one: it counts more than once"))
    return found


def check_splits(root: Path) -> list[Problem]:
    """Videos that are in the training part and in another part of the same split, for every split there is."""
    found = []
    for path in sorted((root / "splits").glob("train.split*.bundle")):
        number = path.name.removeprefix("train.split").removesuffix(".bundle")
        if number.isdecimal():
            training = read_split(root, int(number), "train")
            both = [problem for problem in check_parts(root, {}, int(number), training) if problem.level == "error"]
            found += [Problem("warning", problem.what, problem.todo) for problem in both]
    return found


def _same_content(files: Mapping[str, Path]) -> list[list[str]]:
    """The names of files with the same content. Only files of the same size are read."""
    sizes: dict[int, list[str]] = {}
    for name, path in sorted(files.items()):
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(name)
    same: dict[str, list[str]] = {}
    for names in sizes.values():
        for name in names if len(names) > 1 else ():
            same.setdefault(content_hash(files[name]), []).append(name)
    return [names for names in same.values() if len(names) > 1]


def check_before_training(
    videos: VideoSet,
    root: Path,
    files: Mapping[str, Path],
    split: int | None,
    config: Config,
    *,
    accept_damaged: bool = False,
) -> list[Problem]:
    """All problems of videos that could be loaded. Errors come first."""
    training = [video.name for video in videos.videos]
    found = [*check_parts(root, files, split, training), *check_lists(videos, config), *_short(videos, config)]
    if other := other_shapes(videos):
        found.append(Problem("warning", other, "crop them to the shape of the others, or leave them out"))
    return errors_first([*found, *([] if accept_damaged else _damaged(videos))])


def _damaged(videos: VideoSet) -> list[Problem]:
    """What the time stamps tell of missing frames. Decoding may find more."""
    most = [v.name for v in videos.videos if v.missing is not None and v.missing.share > ACCEPTED_SHARE]
    return [_problem(lacking_frames(most))] if most else []


def _problem(error: EdgeHalError) -> Problem:
    return Problem("error", f"{error.what}: {error.why}", error.todo)
