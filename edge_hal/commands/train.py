"""`edge-hal train`: learn a model from videos and ordered step lists, and write a run directory."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.task import tell
from edge_hal.commands.workers import workers_of
from edge_hal.encoder_kind import AUTO
from edge_hal.errors import EdgeHalError
from edge_hal.media.names import composed
from edge_hal.task_folder import RUNS, is_task

if TYPE_CHECKING:
    from edge_hal.config import Config, Model
    from edge_hal.learning.data.check_videos import Problem
    from edge_hal.learning.data.dataset import VideoSet
    from edge_hal.learning.data.labels.segments import FoundLabels
    from edge_hal.learning.parent import Parent


def train(
    data: Annotated[
        Path,
        typer.Argument(
            readable=False,
            help="Task folder, or another folder with features/ or videos/, and with the ordered step list of each.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Run directory to write: model, alignment, configuration (default: runs/N in a task folder).",
        ),
    ] = None,
    split: Annotated[
        int | None, typer.Option(help="Train on the train part of this split, for example 1 (default: all videos).")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Name of a preset (kinematics, tiny, jetson) or a YAML file (default: kinematics for features, tiny "
            "for videos)."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="What turns pictures into vectors: own (trained here), a pretrained encoder such as "
            "efficientnet-lite0@160, onnx:FILE, or auto: a pretrained one if it is installed and fast enough here, "
            "else own. `edge-hal encoders` lists them (default: that of the configuration)."
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(min=0.0, help="With --encoder auto: the most milliseconds for a frame (default: 10)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a key of the configuration, for example data.rate_hz=30. Repeat the option for several keys.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed: the same seed on the same machine gives the same model.")] = 0,
    supervision: Annotated[
        str | None,
        typer.Option(
            help="What the training sees. transcripts: ordered step lists. frames: a label for every frame (default: "
            "transcripts)."
        ),
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            help="Videos whose frame labels are used as well: a number of videos (chosen with --seed) or their "
            "names, a,b,c (default: none)."
        ),
    ] = None,
    timestamps: Annotated[
        bool,
        typer.Option(
            "--timestamps",
            help="Read labels from timestamps/VIDEO.txt, one line 'FRAME STEP' for each step, instead of a label for "
            "every frame.",
        ),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder of corrected labels, in any format of `edge-hal label`: of all frames, of parts, or stamps "
            "(default: labels/ of the data).",
        ),
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Use this alignment.json, from another run or corrected by hand, and skip the search for one.",
        ),
    ] = None,
    begin: Annotated[
        Path | None,
        typer.Option(
            "--init",
            readable=False,
            help="Begin with this run, or with the newest one of this task folder: take over its encoder and pyramid, "
            "for other steps or for more videos (default: `init` of task.yaml, else nothing).",
        ),
    ] = None,
    accept_damaged: Annotated[
        bool,
        typer.Option(
            "--accept-damaged",
            help="Also use video files that lack more than a tenth of their frames, such as files that were cut off.",
        ),
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            help="What extracts videos and searches the alignment: a number of threads and processes here, or the "
            "address of a dask scheduler, tcp://HOST:8786 (default: one for each core)."
        ),
    ] = None,
) -> None:
    """Learn from ordered step lists. An interrupted training continues when the same command is run again."""
    from edge_hal.learning.networks.world import world_of_torchrun

    with world_of_torchrun() as world:
        if out is None and not is_task(data):
            todo = "give it: --out RUN, or make a task folder: edge-hal init"
            raise EdgeHalError("--out is missing", f"{data} is no task folder", todo, exit_code=2)
        overrides = [*(settings or []), *_supervised(supervision, labelled, timestamps)]
        if budget_ms is not None and encoder != AUTO:
            raise EdgeHalError("--budget-ms has no effect here", "", "add --encoder auto, or leave it out", exit_code=2)
        if encoder == AUTO:
            require("torch", "onnx", "onnxscript")
            from edge_hal.evaluation.encoder_costs import BUDGET_MS, within_budget

            most_ms = BUDGET_MS if budget_ms is None else budget_ms
            encoder, why = world.from_first(lambda: within_budget(most_ms))
            print(f"encoder: {encoder}; {why}", file=sys.stderr)
        overrides += [] if encoder is None else [f"model.encoder.kind={encoder}"]
        parent = parent_of(data, begin)
        chosen = choose_config(data, config, overrides, None if parent is None else parent.model)
        if alignment is not None and chosen.learning.supervision == "frames":
            raise EdgeHalError(
                "--alignment with --supervision frames", "the frame labels already give the alignment", exit_code=2
            )
        own = own_labels(data, chosen, labels)
        with_labels = _labelled(data, chosen, split, seed, own)
        videos = load_videos(
            data, chosen, split, "train", with_labels=with_labels, timestamps=chosen.learning.timestamps, own=own
        )
        _check_given(videos, own, chosen, labels)
        tell(_problems(videos, data, split, chosen), data)
        require("torch", "safetensors")
        if chosen.model.encoder is not None:
            require("onnx", "onnxscript")
        from edge_hal.commands.progress import Stages
        from edge_hal.files import CONTINUE, file_error
        from edge_hal.learning.alignment_file import read_alignment
        from edge_hal.learning.data.video_cache import cache_of
        from edge_hal.learning.train import train as learn

        known = None if alignment is None else read_alignment(alignment)
        cache = None if chosen.model.encoder is None else cache_of(data)

        began_s = time.monotonic()
        try:
            with workers_of(workers if world.first else None) as others, Stages() as report:
                out = learn(
                    videos,
                    chosen,
                    out,
                    seed,
                    report,
                    known,
                    task=data,
                    accept_damaged=accept_damaged,
                    cache=cache,
                    world=world,
                    workers=others,
                    parent=parent,
                )
        except OSError as error:
            raise file_error(f"cannot write {out or data}", error, CONTINUE) from error
        except KeyboardInterrupt:
            again = f":\n  {shlex.join(['edge-hal', *sys.argv[1:]])}" if world.size == 1 else ""
            print(f"interrupted; run the same command again to continue{again}", file=sys.stderr)
            raise typer.Exit(130) from None
        if not world.first:
            return
        minutes, seconds = divmod(round(time.monotonic() - began_s), 60)
        print(f"trained on {len(videos)} videos in {minutes}:{seconds:02d}: {out}")
        of_parent = (
            parent is not None and alignment is None and parent.knows(videos) and chosen.learning.lists == "exact"
        )
        _advise(out, videos, known=of_parent)
        _say_worth(out)
        _say_if_unfitted(len(videos), chosen.decoder.given())
        of_task = is_task(data) and out.parent == data / RUNS
        print(f"next: edge-hal export {shlex.quote(str(data)) if of_task else f'--ckpt {shlex.quote(str(out))}'}")


def _advise(run: Path, videos: VideoSet, *, known: bool = False) -> None:
    """Print whether the alignment can be trusted, and if not, why and what to do. `known`: it comes from the run that
    the training began with."""
    from edge_hal.learning.hmm.known_labels import worth_labelling
    from edge_hal.learning.hmm.trust import Trust, evidence_in

    found = json.loads((run / "alignment.json").read_text()).values()
    if known:
        share = sum(evidence_in(video).agreement for video in found) / len(found)
        print(f"the run that this one began with agrees with the step lists on {share:.0%} of the frames")
        return
    if any(v.labels is not None and set(v.transcript) <= set(v.labels.tolist()) for v in videos.videos):
        return  # a video with labels of all its steps leads the alignment, and there were no restarts
    evidence = [evidence_in(video) for video in found]
    trust = Trust.of(evidence)
    agreement = sum(each.agreement for each in evidence) / len(evidence)
    chance = sum(each.chance for each in evidence) / len(evidence)
    agree = f"the restarts of the alignment agree on {agreement:.0%} of the frames"
    if not trust.doubtful:
        print(agree)
        return
    reasons = []
    if "agreement" in trust.weak:
        reasons.append(
            f"{agree}; the step lists and durations alone give {chance:.0%}. The features do not decide where the "
            "steps are."
        )
    if "order" in trust.weak:
        reasons.append(
            f"the features tell {max(trust.order, 0.0):.0%} of the order of the steps. Steps that were found look "
            "alike: parts of one step, such as an idle time, may be in others."
        )
    if "short_ends" in trust.weak:
        reasons.append(
            f"{trust.short_ends:.0%} of the first and last steps are as short as possible. All steps may be shifted "
            "into their neighbours."
        )
    names = worth_labelling(videos.videos, 2)
    lists = len({video.transcript for video in videos.videos})
    print(
        "CAUTION: the alignment of the videos with their step lists may be wrong on most frames:\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + f"label the frames of one or two videos, these first: {' and '.join(names)}; "
        f"then train with --labelled {','.join(names)}\n"
        f"or add videos whose steps have another order: the {len(videos)} videos have {lists} different "
        f"list{'s' if lists > 1 else ''}",
        file=sys.stderr,
    )


def _say_worth(run: Path) -> None:
    """Print what labels would be worth, if the training could estimate it."""
    from edge_hal.learning.label_worth import told
    from edge_hal.learning.run_directory import LABELS_FILE

    if (run / LABELS_FILE).is_file():
        print(told(json.loads((run / LABELS_FILE).read_text())))


def _say_if_unfitted(videos: int, given: Mapping[str, float]) -> None:
    """Print that the settings of `--decide` are defaults, if no video was held out to fit them on."""
    from edge_hal.calib.fit_decoder import older_asked_for
    from edge_hal.calib.fit_patience import UNFITTED
    from edge_hal.learning.train import LEAST_HELD_OUT

    if videos < LEAST_HELD_OUT and "decide_at" not in given and older_asked_for(given) is None:
        settings = ", ".join(f"{name} {value:g}" for name, value in UNFITTED.items())
        print(
            f"the settings of --decide are the defaults ({settings}): to fit them on held-out videos, training needs "
            f"at least {LEAST_HELD_OUT}"
        )


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


def _problems(videos: VideoSet, data: Path, split: int | None, config: Config) -> list[Problem]:
    from edge_hal.learning.data.check_videos import check_before_training
    from edge_hal.learning.data.mstcn_files import index_media

    files = index_media(data, config.model.reads)
    return check_before_training(videos, data, files, split, config)


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
    from edge_hal.learning.data.dataset import load_dataset, without_order

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
    )
    if part == "train" and config.learning.lists == "sets":
        videos = without_order(videos)
    print_notes(videos.notes)
    return videos


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _supervised(supervision: str | None, labelled: str | None, timestamps: bool) -> list[str]:
    overrides = [] if supervision is None else [f"learning.supervision={supervision}"]
    if labelled is not None:
        names = [composed(name.strip()) for name in labelled.split(",")]
        overrides.append(f"learning.labelled={labelled if labelled.isdigit() else json.dumps(names)}")
    return [*overrides, "learning.timestamps=true"] if timestamps else overrides


def own_labels(data: Path, config: Config, folder: Path | None) -> Mapping[str, FoundLabels]:
    """The labels of the user by video: of `folder`, else of the folder labels/ of the data."""
    from edge_hal.learning.data.labels.folder import read_given_labels, read_own_labels
    from edge_hal.learning.data.mstcn_files import index_media

    if folder is not None:
        return read_given_labels(folder, index_media(data, config.model.reads))
    return read_own_labels(data)


def _labelled(
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


def _check_given(videos: VideoSet, own: Mapping[str, FoundLabels], config: Config, folder: Path | None) -> None:
    """Print how the labels of the user count.

    Raises:
        EdgeHalError: none of the videos of `folder` is trained on, or labels of some frames cannot be used.
    """
    from edge_hal.learning.data.mstcn_files import count_of

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
