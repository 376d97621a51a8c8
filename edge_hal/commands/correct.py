"""`edge-hal correct`: a page in the browser on which the segments of the training videos are corrected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.page import (
    Host,
    NoBrowser,
    Port,
    TlsCert,
    TlsKey,
    announcing,
    page_address,
    token_option,
)
from edge_hal.commands.options.parsing import one_of
from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import SUGGESTIONS, is_task

if TYPE_CHECKING:
    from edge_hal.config import Config
    from edge_hal.learning.data.labels.segments import FoundLabels


def correct(
    task: Annotated[Path, typer.Argument(readable=False, help="Task folder, see `edge-hal init`.")],
    format: Annotated[
        str,
        typer.Option(
            help="Format of the files in labels/, as for `edge-hal label`: csv, frames, eaf or label-studio. "
            "A video that has labels keeps its file and format."
        ),
    ] = "csv",
    host: Host = "127.0.0.1",
    port: Port = 8571,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: Annotated[Path | None, token_option("correct")] = None,
    no_browser: NoBrowser = False,
) -> None:
    """Correct and accept, on a page in the browser, the segments that training found in its videos, and train again.

    The first line of the output is the address of the page. It holds a secret token: who has it can see the videos,
    change labels and start trainings.
    """
    from edge_hal.learning.data.labels.one_video import SUFFIXES

    one_of("--format", format, tuple(SUFFIXES))
    if not is_task(task):
        todo = "make one: edge-hal init, or write label files: edge-hal label"
        raise EdgeHalError(f"{task} is no task folder", "it has no task.yaml", todo, exit_code=2)
    require("starlette", "uvicorn", "wsproto", extra="web")
    from edge_hal.commands.options.train_inputs import choose_config, load_videos, own_labels
    from edge_hal.web.correct import server

    config = choose_config(task, None, [])
    if config.model.reads == "video":
        require("av", "cv2", extra="camera")
    own = own_labels(task, config, None)
    waiting = _suggested(task, config, own)
    with_waiting = {**own, **waiting}
    videos = load_videos(task, config, None, "train", with_labels=set(with_waiting), own=with_waiting)
    if any(video.rate_hz is None for video in videos.videos):
        todo = "write it into task.yaml: rate_hz: 30"
        raise EdgeHalError(f"the frame rate of the features of {task} is not known", "", todo)
    options = server.CorrectOptions(
        page_address("correct", host, port, tls_cert, tls_key, token_file), task, videos, format, set(waiting)
    )
    with announcing(no_browser) as announce:
        server.serve(options, on_ready=announce)


def _suggested(task: Path, config: Config, own: Mapping[str, FoundLabels]) -> dict[str, FoundLabels]:
    """The suggestions of videos that have nothing else, as `edge-hal harvest` makes them. Those that cannot be used are
    printed."""
    from edge_hal.commands.options.train_inputs import print_notes
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.labels.folder import read_label_folder
    from edge_hal.learning.data.mstcn_files import index_media, only_suggested

    names = only_suggested(task, sorted(index_media(task, config.model.reads)), own)
    found: dict[str, FoundLabels] = {}
    if not names:
        return found
    for name in names:
        try:  # `edge-hal label` may have written suggestions of the other videos there, in several formats
            only = {name: read_label_folder(task / SUGGESTIONS, name)[name]}
            load_dataset(
                task,
                split=None,
                part="train",
                with_labels={name},
                rate_hz=config.data.rate_hz,
                kind=config.model.reads,
                only={name},
                own_labels={**own, **only},
            )
            found |= only
        except (EdgeHalError, KeyError) as error:
            why = error.why or error.what if isinstance(error, EdgeHalError) else "its suggestions hold no labels"
            print_notes([f"video {name} is left out: {why}"])
    return found
