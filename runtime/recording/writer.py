"""Record a run, so that it can be run again with the same events.

A recording is a folder. `log.jsonl` holds the options, then each frame and each passing of time in the order in which
the clock got them, what was resumed of an earlier belief, and how the run ended. `frames.bin` holds the pictures that
ticks showed, at the encoder's size, or the vectors. `events.jsonl` holds the durable events, to compare with.
`state.npz` is there if the recording does not begin with the run; see `state_file.py`. `reader.py` reads recordings.
With `--record-pictures source` there are also the source's pictures; see `material.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, encode
from edge_hal.files import file_error, private
from edge_hal.pictures.resize import resize
from edge_hal.runtime.observer import Checkpoint, Observer
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.stream.clock import Tick
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.stream.resumed import Resumed

from .material import BELIEF, INDEX, PICTURES, MaterialWriter
from .state_file import State, save

SCHEMA, WITH_PICTURES = 3, 4
"""Schema of the folder. Schema 4 has the source's pictures as well, and the name of the session. Schema 2, of 0.2, has
no entries `resumed`. Schema 1, of 0.1, has neither these nor the version that wrote it."""
LOG, FRAMES, EVENTS, STATE = "log.jsonl", "frames.bin", "events.jsonl", "state.npz"
REPEATED = ("pace", "decoder", "decide", "decide_every", "max_hold_ms", "overload", "events")
"""The options that the recognition depends on. A replay takes no other option from a recording."""
CUT = "cut"
"""How a recording ended if the run went on."""

log = logging.getLogger("edge_hal.record")


def new_session() -> str:
    """A name for the recordings of one run."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


class Recorder(Observer):
    """Writes a recording of one run into an empty folder. If the disk is full, the recording ends with a warning and
    the run goes on. The log is locked for as long as something may be written, however the process ends.

    Args:
        state: the state of the run where the recording begins; None at the start of the run.
        material: writes the source's pictures; None to leave them out.
        session: the name of the run, if it has other recordings.

    `whole` is False once something could not be written.

    Raises:
        EdgeHalError: the folder holds something, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        options: RunOptions,
        bundle: Bundle,
        source: Source,
        state: State | None = None,
        material: MaterialWriter | None = None,
        session: str | None = None,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if any(folder.iterdir()):
                why = "a recording overwrites nothing"
                raise EdgeHalError(f"{folder} is not empty", why, "choose another --record")
            if state is not None:
                save(folder / STATE, state)
            self._log, self._events = (open(folder / name, "w", buffering=1, opener=private) for name in (LOG, EVENTS))  # noqa: SIM115
            self._frames = open(folder / FRAMES, "wb", buffering=0, opener=private)  # noqa: SIM115
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if material is not None:
                material.begin(folder)
        except OSError as error:
            for name in (STATE, LOG, EVENTS, FRAMES, PICTURES, INDEX, BELIEF):  # nothing incomplete stays
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()
            todo = "choose another --record"
            raise file_error(f"cannot record into {folder}", error, todo) from error
        self._encoder = bundle.spec.encoder
        self._shown = 0
        self._material = material
        self.whole = True
        self._write(
            schema=SCHEMA if material is None else WITH_PICTURES,
            version=__version__,
            bundle=bundle.fingerprint,
            source=source.name,
            live=source.live,
            period_ns=source.period_ns,
            options={name: getattr(options, name) for name in REPEATED},
            shape=self._shape(bundle),
            **({} if material is None else {"session": session or new_session()}),
        )

    def frame_taken(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        self._write(frame=frame.index, t_ns=frame.t_ns, missed=missed, period_ns=period_ns)

    def time_passed(self, t_ns: int) -> None:
        self._write(passed=t_ns)

    def frame_shown(self, tick: Tick) -> None:
        data = tick.frame.data
        if self._encoder is not None and data.ndim == 3:
            data = resize(data, self._encoder.height, self._encoder.width)
        else:
            data = data.astype(np.float32)
        self._keep(self._frames.write, np.ascontiguousarray(data).tobytes())
        self._write(shown=tick.frame.index, at=self._shown)
        self._shown += 1
        if self._material is not None:
            self._material.add(tick.frame)

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        if self._material is not None:
            self._material.believed(t_ns)

    def resumed(self, found: Resumed) -> None:
        self._write(**found.entry())

    def published(self, event: Event) -> None:
        self._keep(self._events.write, encode(event).decode() + "\n")

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        self.ended(CUT, checkpoint.t_ns, checkpoint.intake)
        self._stop("another bundle takes over")
        if self._material is not None:
            self._material.finish()

    def ended(self, reason: str, t_ns: int, intake: Intake) -> None:
        self._write(ended=reason, t_ns=t_ns, intake=dataclasses.asdict(intake))

    def health(self) -> dict[str, Any]:
        return {} if self._material is None else {"recording": self._material.health()}

    def close(self) -> None:
        self.finish()
        if self._material is not None:
            self._material.close()

    def finish(self) -> None:
        """Nothing comes after this. The source's pictures may still be on their way to the disk."""
        if self._material is not None:
            self._material.finish()
        for file in (self._log, self._events, self._frames):
            try:
                file.close()
            except OSError as error:
                self._stop(error.strerror)

    def _write(self, **entry: Any) -> None:
        self._keep(self._log.write, json.dumps(entry) + "\n")

    def _keep(self, write: Callable[[Any], int], data: Any) -> None:
        if self.whole:
            try:
                if write(data) != len(data):  # the rest of a frame found no room
                    self._stop(os.strerror(errno.ENOSPC))
            except OSError as error:
                self._stop(error.strerror)

    def _stop(self, why: str | None) -> None:
        if self.whole:
            log.warning("the recording ends here, the run goes on: %s", why)
        self.whole = False

    def _shape(self, bundle: Bundle) -> list[int]:
        encoder = bundle.spec.encoder
        return [bundle.spec.front_end.size] if encoder is None else list(encoder.image.shape)
