"""What a training is given: its configuration, the run it begins with, its videos, and the labels of the user."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_hal.commands.extras import require
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.config import Config, Model
    from edge_hal.learning.data.check_videos import Problem
    from edge_hal.learning.data.labels.segments import FoundLabels
    from edge_hal.learning.data.video_set import VideoSet
    from edge_hal.learning.parent import Parent


def choose_config(data: Path, config: str | None, overrides: list[str], model: Model | None = None) -> Config:
    """The named configuration, or the preset that fits what `data` holds, then with the `model` of the run that the
    training begins with."""
    from edge_hal.config import load_config
    from edge_hal.learning.data.mstcn_files import find_kind
    from edge_hal.task_file import read_task

    task = read_task(data)
    if config is None and task is not None:
        config = task.config_source()
    if config is not None:
        source, model = config, None
    elif model is not None:
        source = "kinematics" if model.encoder is None else "tiny"
    else:
        source = "kinematics" if find_kind(data) == "features" else "tiny"
    if task is not None:
        pictures = load_config(source).model.encoder is not None
        overrides = [*task.overrides(pictures=pictures), *overrides]
    return load_config(source, overrides, model)


def parent_of(data: Path, init: Path | None) -> Parent | None:
    """The run that a training begins with: `init`, else that of task.yaml. A task folder stands for its newest run."""
    from edge_hal.task_file import read_task
    from edge_hal.task_folder import newest_run

    task = read_task(data)
    init = init if init is not None or task is None else task.init
    if init is None:
        return None
    require("torch", "safetensors")
    from edge_hal.learning.data.mstcn_files import find_kind
    from edge_hal.learning.parent import open_parent

    parent = open_parent(newest_run(init))
    parent.check_kind(find_kind(data), data)
    return parent


def load_videos(
    data: Path,
    config: Config,
    split: int | None,
    part: Literal["train", "valid", "test"],
    *,
    with_labels: bool | Collection[str],
    timestamps: bool = False,
    own: Mapping[str, FoundLabels] | None = None,
) -> VideoSet:
    """The videos as the configuration describes them. Assumptions about them are printed to standard error."""
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.video_set import without_order

    videos = load_dataset(
        data,
        split=split,
        part=part,
        with_labels=with_labels,
        timestamps=timestamps,
        background=config.data.background,
        rate_hz=config.data.rate_hz,
        layout=config.data.layout,
        kind=config.model.reads,
        own_labels=own,
        mistakes=config.data.mistakes,
    )
    if part == "train" and config.learning.lists == "sets":
        videos = without_order(videos)
    print_notes(videos.notes)
    return videos


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def own_labels(data: Path, config: Config, folder: Path | None) -> Mapping[str, FoundLabels]:
    """The labels of the user by video: of `folder`, else of the folder labels/ of the data."""
    from edge_hal.learning.data.labels.folder import read_given_labels, read_own_labels, without_video
    from edge_hal.learning.data.mstcn_files import index_media

    if folder is not None:
        return read_given_labels(folder, index_media(data, config.model.reads))
    found = read_own_labels(data)
    if found:
        print_notes(without_video(found, index_media(data, config.model.reads)))
    return found


def labelled_videos(
    data: Path, config: Config, split: int | None, seed: int, own: Mapping[str, FoundLabels]
) -> bool | Collection[str]:
    """The training videos whose frame labels are read: all, or the names of those asked for and of those in `own`."""
    from edge_hal.learning.data.mstcn_files import index_media, names_in

    learning = config.learning
    if learning.supervision == "frames":
        return True
    names = names_in(data, index_media(data, config.model.reads), split, "train", own)
    theirs = {name for name in names if name in own}
    if not learning.labelled:
        return learning.timestamps or theirs
    from edge_hal.learning.hmm.known_labels import choose_labelled

    return {*choose_labelled(names, learning.labelled, seed), *theirs}


def check_own_labels(videos: VideoSet, own: Mapping[str, FoundLabels], config: Config, folder: Path | None) -> None:
    """Print how the labels of the user count.

    Raises:
        EdgeHalError: none of the videos of `folder` is trained on, or labels of some frames cannot be used.
    """
    from edge_hal.learning.data.step_texts import count_of

    used = [video for video in videos.videos if video.name in own and video.labels is not None]
    if folder is not None and not used:
        why = f"it has labels of {count_of(sorted(own), 'video')}, and none of them is in the training part"
        raise EdgeHalError(f"--labels {folder}", why, exit_code=2)
    partly = [video.name for video in used if video.labels is not None and (video.labels < 0).any()]
    if partly and config.learning.supervision == "frames":
        why = f"{count_of(partly, 'video')} have labels of some frames only"
        raise EdgeHalError("--supervision frames", why, "leave it out, or label all frames", exit_code=2)
    if used:
        other = sorted(own.keys() - {video.name for video in used})
        left_out = f"; not in the training part: {count_of(other, 'video')}" if other else ""
        whole = len(used) - len(partly)
        print(f"labels: {whole} videos with labels of all frames, {len(partly)} with some{left_out}", file=sys.stderr)


def problems_of(
    videos: VideoSet, data: Path, split: int | None, config: Config, *, accept_damaged: bool
) -> list[Problem]:
    from edge_hal.learning.data.check_videos import check_before_training
    from edge_hal.learning.data.mstcn_files import index_media

    files = index_media(data, config.model.reads)
    return check_before_training(videos, data, files, split, config, accept_damaged=accept_damaged)
