"""What runs beside the page: a training when it is asked for, and the confidences of the newest run's boundaries."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import MODEL_FILE, newest

from .child import Child
from .found import read_confidences, read_found
from .videos import TaskVideos

BOUNDARIES = "boundaries.csv"

log = logging.getLogger("edge_hal.correct")


class Work:
    """For several threads.

    Args:
        tell: called with a message for all pages, in any thread.
    """

    def __init__(self, videos: TaskVideos, tell: Callable[[dict[str, Any]], None]) -> None:
        self._videos, self._tell = videos, tell
        self._lock = threading.Lock()
        self._training: Child | None = None
        self._scoring: Child | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="edge-hal-correct-")

    def body(self) -> dict[str, Any]:
        """What a page shows of it."""
        training, scoring = self._training, self._scoring
        return {
            "type": "work",
            "run": self._videos.found.run,
            "known": self._videos.found.confidences is not None,
            "training": None if training is None else training.progress.body(),
            "scoring": None if scoring is None else scoring.progress.body(),
        }

    def train(self) -> bool:
        """Start a training. False: one is running."""
        with self._lock:
            if self._training is not None and self._training.running:
                return False
            child = Child(["train", str(self._videos.root)], lambda: self._trained(child))
            self._training = child
        child.start()
        self._tell(self.body())
        return True

    def stop(self) -> None:
        """Stop the training. What it has done is kept: the next one goes on there."""
        if self._training is not None:
            self._training.stop()
        self._tell(self.body())

    def score(self) -> None:
        """Find the confidences of the newest run. It is started again if a new run is complete."""
        run = newest(self._videos.root, MODEL_FILE)
        if run is None:
            return
        out = Path(self._folder.name) / run.name
        arguments = ["label", str(self._videos.root), "--ckpt", str(run), "--out", str(out), "--overwrite"]
        with self._lock:
            if self._scoring is not None and self._scoring.running:
                self._scoring.stop()
            child = Child(arguments, lambda: self._scored(child, out))
            self._scoring = child
        child.start()
        self._tell(self.body())

    def close(self) -> None:
        for child in (self._training, self._scoring):
            if child is not None:
                child.close()
        self._folder.cleanup()

    def _trained(self, child: Child) -> None:
        if child.progress.state == "done":
            run = newest(self._videos.root, MODEL_FILE)
            try:
                found = read_found(run, self._videos.steps)
                with self._lock:
                    self._videos.found = found
                self.score()
            except EdgeHalError as error:
                log.warning("%s: %s", error.what, error.why)
            self._tell({"type": "reload"})
        self._tell(self.body())

    def _scored(self, child: Child, out: Path) -> None:
        """Take over what the child wrote, unless another run was begun since."""
        if child.progress.state == "done" and child is self._scoring:
            rates = {name: self._videos.video(name).rate_hz or 1.0 for name in self._videos.names()}
            try:
                known = read_confidences(out / BOUNDARIES, rates)
                with self._lock:
                    if self._videos.found.run == out.name:  # else a training has just ended
                        self._videos.found = replace(self._videos.found, confidences=known)
            except EdgeHalError as error:
                log.warning("%s: %s", error.what, error.why)
            self._tell({"type": "reload"})
        self._tell(self.body())
