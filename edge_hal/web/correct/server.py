"""Serves the page of `edge-hal correct`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.learning.data.video_set import VideoSet
from edge_hal.task_folder import MODEL_FILE, newest
from edge_hal.web.hub import Hub
from edge_hal.web.serving import PageAddress, check_address, serve_page

from .app import Correct
from .found import read_found
from .videos import TaskVideos
from .work import Work


@dataclass(frozen=True)
class CorrectOptions:
    """What the server can be told.

    Attributes:
        task: the task folder.
        videos, suggested: as for `TaskVideos`.
        format: of new label files, one of `edge-hal label`.
    """

    address: PageAddress
    task: Path
    videos: VideoSet
    format: str
    suggested: Collection[str] = ()


def serve(options: CorrectOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. A training that runs is stopped then, and can be continued.

    Args:
        on_ready: called with the address, token included, once it is bound.

    Raises:
        EdgeHalError: as `serve_page`; the labels or the alignment of the newest run cannot be read.
    """
    check_address(options.address)
    hub = Hub()
    found = read_found(newest(options.task, MODEL_FILE), options.videos.labels)
    videos = TaskVideos(options.task, options.videos, found, options.format, options.suggested)
    work = Work(videos, lambda message: hub.tell(json.dumps(message)))

    def application(hosts: frozenset[str] | None) -> Any:
        return Correct(videos, work, hub, options.address.token, hosts).site.app

    serve_page(options.address, application, on_ready)
