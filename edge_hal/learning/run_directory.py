"""The run directory: what training writes, and `eval` and `export` read. It contains no pickle.

`model.safetensors`: weights, with shapes, thresholds and provenance as metadata. `config.yaml`. `reference.npz`: a part
of the real input, for the certificate. `alignment.json`: the alignment of the training videos. `labels.json`: what
labels would be worth, if that was estimated. `encoder.onnx`: the graph of the frame encoder, if there is one.
`held_out.npz`: posteriors of videos that were held out, if there are any. `last/`: the state of the training, until the
run is complete.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.calib.held_out_file import HELD_OUT_FILE, HeldOut
from edge_hal.config import Config
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.files import CONTINUE, check_writable, file_error, replacing, write_file
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import REFERENCE_FILE, save_model
from edge_hal.model.pyramid import Pyramid
from edge_hal.task_folder import MODEL_FILE, next_run, runs

from .data.video_cache import content_hash
from .data.video_set import VideoSet
from .hmm.alignment_file import ALIGNMENT_FILE, StoredAlignment
from .label_worth import LabelWorth

TODO = "choose another --out"
LABELS_FILE = "labels.json"
LOCK = "lock"


class RunDirectory:
    """A run that is being written. Nothing is written before `begin`. From then until `close` no other process can
    begin it.

    Raises:
        EdgeHalError: the directory holds a complete run, a run with other settings or videos or of another version,
            or something else, or it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        seed: int,
        videos: VideoSet,
        alignment: StoredAlignment | None = None,
        init: str | None = None,
    ) -> None:
        self.path, self.last = path, path / "last"
        self._locked: BufferedWriter | None = None
        self._settings, self._identity = self.last / "settings.json", identity_of(config, seed, videos, alignment, init)
        try:
            self._check_ours()
            if not self._settings.is_file() and not _has_not_begun(path):
                raise EdgeHalError(f"{path} is not empty and no run", "", "choose another --out")
            check_writable(path, todo=TODO)
            place = next(each for each in (path, *path.absolute().parents) if each.exists())
            if not place.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{place} is no folder")
        except (OSError, ValueError) as error:
            raise file_error(f"cannot write {path}", error, TODO) from error

    def _check_ours(self) -> None:
        """Raises EdgeHalError for a complete run, and for an unfinished one of another training."""
        if (self.path / MODEL_FILE).exists():
            raise EdgeHalError(f"{self.path} already holds a complete run", "", "choose another --out, or delete it")
        if self._settings.is_file() and self._settings.read_text() != self._identity:
            raise EdgeHalError(
                f"{self.path} holds an unfinished run with other settings or videos, or of another version",
                "resuming it would mix the two",
                "choose another --out, or delete it",
            )

    def begin(self) -> None:
        """Write the settings. From now on the run can be resumed.

        Raises:
            EdgeHalError: another process is writing this run, or has written another one there meanwhile; or the
                directory cannot be written.
        """
        try:
            self.last.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._check_ours()
            write_file(self._settings, self._identity, todo=TODO)
        except OSError as error:
            raise file_error(f"cannot write {self.path}", error, TODO) from error

    def _lock(self) -> None:
        """Two trainings in one directory would go on with each other's weights. It ends with this process: forked
        workers do not inherit a lock of `lockf`."""
        self._locked = (self.last / LOCK).open("ab")
        try:
            fcntl.lockf(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):  # else the file system has no locks
                what, todo = f"another training is writing {self.path}", "run the same command again when it has ended"
                raise EdgeHalError(what, "", f"{todo}, or choose another --out") from error

    def close(self) -> None:
        """Let other processes begin it."""
        if self._locked is not None:
            self._locked.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check_begun(self) -> None:
        """Raises EdgeHalError if this process does not see what the first one wrote with `begin`."""
        if not self._settings.is_file():
            what = f"{os.uname().nodename} does not see {self.path}, which the first process has made"
            raise EdgeHalError(what, "", "several machines need a folder for runs that all of them see")

    def complete(
        self,
        config: Config,
        pyramid: Pyramid,
        front_end: FrontEnd,
        decoder: DecoderConfig,
        provenance: Mapping[str, Any],
        reference: Mapping[str, NDArray[Any]],
        alignment: Mapping[str, Any],
        familiarity: Familiarity | None,
        held_out: HeldOut | None = None,
        worth: LabelWorth | None = None,
    ) -> None:
        """Write the results. The model comes last, because a run with a model is complete."""
        write_file(self.path / "config.yaml", config.to_yaml(), todo=CONTINUE)
        if worth is not None:
            write_file(self.path / LABELS_FILE, json.dumps(worth.to_dict(), indent=1) + "\n", todo=CONTINUE)
        write_file(self.path / ALIGNMENT_FILE, json.dumps(alignment, indent=1), todo=CONTINUE)
        with replacing(self.path / REFERENCE_FILE, folder=self.last, todo=CONTINUE) as beside:
            np.savez_compressed(beside, allow_pickle=False, **reference)
        if held_out is not None:
            with replacing(self.path / HELD_OUT_FILE, folder=self.last, todo=CONTINUE) as beside:
                np.savez_compressed(beside, allow_pickle=False, **held_out.arrays())
        with replacing(self.path / MODEL_FILE, folder=self.last, todo=CONTINUE) as beside:
            save_model(beside, pyramid, front_end, decoder, provenance, familiarity)
        shutil.rmtree(self.last)


def run_to_write(
    task: Path,
    config: Config,
    seed: int,
    videos: VideoSet,
    alignment: StoredAlignment | None = None,
    init: str | None = None,
) -> Path:
    """The run directory for a training in a task folder: the newest run if it is unfinished and has the same settings,
    seed, videos and labels; else one with the next free number. `config` is complete: with the rate of the model and
    the sizes of a pretrained encoder."""
    last = runs(task)[-1] if runs(task) else None
    if last is not None and not (last / MODEL_FILE).exists():
        settings = last / "last" / "settings.json"
        identity = identity_of(config, seed, videos, alignment, init)
        if _has_not_begun(last) or (settings.is_file() and settings.read_text() == identity):
            return last
    return next_run(task)


def _has_not_begun(run: Path) -> bool:
    """Whether nothing is in `run` but a `last/` without settings, as after an interruption of `RunDirectory.begin`."""
    inside = list(run.iterdir()) if run.exists() else []
    if inside != [run / "last"] or not inside[0].is_dir():
        return not inside
    return all(path.name == LOCK for path in inside[0].iterdir())


def identity_of(
    config: Config, seed: int, videos: VideoSet, alignment: StoredAlignment | None, init: str | None = None
) -> str:
    """What must be equal to resume a run: settings, seed, videos (their contents too) with lists and labels, a given
    alignment, the file of a given encoder, and the model that it begins with (its SHA-256). The versions of edge-hal
    and torch too, because the rest of another one's training may not fit what is there."""
    rows = [[v.name, v.transcript, v.length, v.rate_hz, content_hash(v.path)] for v in videos.videos]
    data: list[Any] = [videos.labels, rows, alignment]
    labels = [[v.name, hashlib.sha256(v.labels.tobytes()).hexdigest()] for v in videos.videos if v.labels is not None]
    encoder = config.model.encoder
    if encoder is not None and (encoder.weights or encoder.kind.startswith("onnx:")):
        data += [content_hash(encoder.weights or Path(encoder.kind.removeprefix("onnx:")))]
    data += [labels] if labels else []
    data += [] if init is None else [init]
    digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    versions = {"edge_hal": __version__, "torch": torch.__version__}
    return json.dumps(
        {"seed": seed, "videos": digest, "versions": versions, **config.model_dump(mode="json")}, sort_keys=True
    )
