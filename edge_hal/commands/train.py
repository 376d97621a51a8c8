"""`edge-hal train`: learn a model from videos and ordered step lists, and write a run directory."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.parsing import LARGEST_SEED
from edge_hal.commands.options.task import tell
from edge_hal.commands.options.train_inputs import (
    check_own_labels,
    choose_config,
    labelled_videos,
    load_videos,
    own_labels,
    parent_of,
    problems_of,
)
from edge_hal.commands.options.workers import workers_of
from edge_hal.commands.train_report import say_if_unfitted, say_what_labels_are_worth, say_whether_to_trust
from edge_hal.encoder_kind import AUTO
from edge_hal.errors import EdgeHalError
from edge_hal.media.names import composed
from edge_hal.task_folder import RUNS, is_task


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
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Random seed: the same seed on the same machine gives the same model."
        ),
    ] = 0,
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
        with_labels = labelled_videos(data, chosen, split, seed, own)
        videos = load_videos(
            data, chosen, split, "train", with_labels=with_labels, timestamps=chosen.learning.timestamps, own=own
        )
        check_own_labels(videos, own, chosen, labels)
        tell(problems_of(videos, data, split, chosen, accept_damaged=accept_damaged), data)
        require("torch", "safetensors")
        if chosen.model.encoder is not None:
            require("onnx", "onnxscript")
        from edge_hal.commands.progress import Stages
        from edge_hal.files import CONTINUE, file_error
        from edge_hal.learning.data.video_cache import cache_of
        from edge_hal.learning.hmm.alignment_file import read_alignment
        from edge_hal.learning.train import train as learn

        known = None if alignment is None else read_alignment(alignment, todo="", exit_code=2)
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
        searched = any(v.labels is None or (v.labels < 0).any() for v in videos.videos)
        of_parent = (
            parent is not None
            and alignment is None
            and searched
            and parent.knows(videos)
            and chosen.learning.lists == "exact"
        )
        compared = chosen.learning.starter == "hmm" and chosen.learning.restarts > 1
        if known is not None:
            compared = all("agreement" in entry for entry in known.values())
        of_task = is_task(data) and out.parent == data / RUNS
        task = data if of_task else None
        if not say_whether_to_trust(out, videos, known=of_parent, compared=compared, task=task):
            say_what_labels_are_worth(out)  # the estimate takes the restarts for the truth
        say_if_unfitted(len(videos), chosen.decoder.given())
        print(f"next: edge-hal export {shlex.quote(str(data)) if of_task else f'--ckpt {shlex.quote(str(out))}'}")


def _supervised(supervision: str | None, labelled: str | None, timestamps: bool) -> list[str]:
    overrides = [] if supervision is None else [f"learning.supervision={supervision}"]
    if labelled is not None:
        names = [composed(name.strip()) for name in labelled.split(",")]
        overrides.append(f"learning.labelled={labelled if labelled.isdigit() else json.dumps(names)}")
    return [*overrides, "learning.timestamps=true"] if timestamps else overrides
