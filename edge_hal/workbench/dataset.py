"""A data set of rendered videos in the layout of MS-TCN, which most code for action segmentation reads.

videos/<id>.mp4  groundTruth/<id>.txt  transcripts/<id>.txt  mapping.txt
splits/train.split1.bundle  splits/test.split1.bundle
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import closing
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.progress import ProgressCount

from .circuit_board import CIRCUIT_BOARD
from .gearbox import GEARBOX
from .place import HOME, Place
from .render import iter_frames
from .schedule import Session, sample_session
from .viewpoint import ABOVE, Viewpoint

WIDTH_PX, HEIGHT_PX = 240, 180
PROCEDURES = {each.name: each for each in (GEARBOX, CIRCUIT_BOARD)}


def render_dataset(
    out: Path,
    seed: int,
    train: int = 32,
    test: int = 8,
    workers: int = 2,
    progress: ProgressCount | None = None,
    viewpoint: Viewpoint = ABOVE,
    procedure: str = GEARBOX.name,
) -> Path:
    """Render `train` + `test` videos with their labels and step lists.

    Args:
        out: folder to make; it must not exist or be empty.
        seed: decides every byte, whatever `workers` is.
        train, test: how many videos go into each bundle of split 1.
        workers: processes that render; 1 renders in this one.
        progress: called as (videos done, videos in all) after each video.
        viewpoint: from where. Data sets of one seed show the same sessions from each.
        procedure: a name of `PROCEDURES`.

    Returns:
        `out`. It appears complete or not at all.

    Raises:
        EdgeHalError: `out` holds something already or cannot be written.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise EdgeHalError(f"cannot render into {out}", "it exists already", "name a new or an empty folder")
    total = train + test
    check_procedure(procedure)
    if train < 1 or test < 0 or workers < 1:
        raise EdgeHalError(
            f"cannot render {train} + {test} videos with {workers} workers",
            todo="ask for at least one training video and one worker",
            exit_code=2,
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise file_error(f"cannot write {out}", error, "name another folder") from None
    try:
        for folder in ("videos", "groundTruth", "transcripts", "splits"):
            (beside / folder).mkdir()
        # Closed before anything is removed, so that no worker still writes there.
        with closing(_render_all(beside, procedure, seed, total, workers, viewpoint)) as rendered:
            for done in rendered:
                if progress is not None:
                    progress(done, total)
        names = [video_name(index) for index in range(total)]
        _write(beside / "mapping.txt", [f"{i} {step}" for i, step in enumerate(PROCEDURES[procedure].steps)])
        for split, ids in (("train", names[:train]), ("test", names[train:])):
            _write(beside / "splits" / f"{split}.split1.bundle", [f"{name}.txt" for name in ids])
        beside.chmod(0o755)
        os.replace(beside, out)
    except OSError as error:
        raise file_error(f"cannot write {out}", error, "name another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def check_procedure(name: str) -> None:
    """Raises EdgeHalError if there is no such procedure."""
    if name not in PROCEDURES:
        raise EdgeHalError(f"no procedure '{name}'", "", f"procedures: {', '.join(PROCEDURES)}", exit_code=2)


def video_name(index: int) -> str:
    return f"bench_{index:03d}"


def video_session(seed: int, index: int, procedure: str = GEARBOX.name) -> tuple[Session, np.random.SeedSequence]:
    """The session of one video of the data set, and the seed of its frames."""
    session_seed, frame_seed = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(2)
    session = sample_session(np.random.default_rng(session_seed), procedure=PROCEDURES[procedure])
    return session, frame_seed


def _render_all(
    root: Path, procedure: str, seed: int, total: int, workers: int, viewpoint: Viewpoint
) -> Generator[int, None, None]:
    """Yields the number of finished videos after each."""
    if workers == 1:
        for index in range(total):
            _render_video(root, procedure, seed, index, viewpoint)
            yield index + 1
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)
    try:
        waiting, running, done = iter(range(total)), set[Future[None]](), 0
        while done < total:
            # One video per worker and no queue, so that an interrupt waits for the running videos only.
            for index in islice(waiting, workers - len(running)):
                running.add(pool.submit(_render_video, root, procedure, seed, index, viewpoint))
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                future.result()
                done += 1
                yield done
    except BrokenExecutor:
        raise EdgeHalError(
            "a process that renders videos died",
            "out of memory, or started from a script without `if __name__ == '__main__'`",
            "render with workers=1",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check_whole(path: Path, frames: int) -> None:
    """Raises OSError if the video lacks frames: OpenCV does not say when a disk is full."""
    written = cv2.VideoCapture(str(path))
    try:
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
    finally:
        written.release()
    if count != frames:
        with path.open("ab") as file:  # the system says why
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
        raise OSError(errno.EIO, f"OpenCV wrote {count} of {frames} frames to {path.name}")


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us, once
    cv2.setNumThreads(1)


def render_video(
    path: Path,
    session: Session,
    look: np.random.SeedSequence,
    place: Place = HOME,
    viewpoint: Viewpoint = ABOVE,
) -> None:
    """Write the frames of a session as mp4. `look` decides objects, light and camera, of those of the place.

    Raises:
        EdgeHalError: OpenCV cannot encode mp4v.
        OSError: the file lacks frames.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), session.fps, (WIDTH_PX, HEIGHT_PX))
    if not writer.isOpened():
        raise EdgeHalError(f"cannot write {path.name}", "OpenCV cannot encode mp4v here")
    frames = 0
    try:
        for frame in iter_frames(session, look, WIDTH_PX, HEIGHT_PX, place, viewpoint):
            writer.write(frame)
            frames += 1
    finally:
        writer.release()
    _check_whole(path, frames)


def _render_video(root: Path, procedure: str, seed: int, index: int, viewpoint: Viewpoint) -> None:
    session, look = video_session(seed, index, procedure)
    add_recording(root, video_name(index), session, look, viewpoint)


def add_recording(
    root: Path, name: str, session: Session, look: np.random.SeedSequence, viewpoint: Viewpoint = ABOVE
) -> None:
    """Write a video, its labels and its step list into the folders of a data set. Errors as of `render_video`."""
    render_video(root / "videos" / f"{name}.mp4", session, look, viewpoint=viewpoint)
    _write(root / "groundTruth" / f"{name}.txt", session.labels())
    _write(root / "transcripts" / f"{name}.txt", list(session.transcript))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
