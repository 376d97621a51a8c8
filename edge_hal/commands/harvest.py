"""`edge-hal harvest`: take what a model was unsure of out of recordings, as videos to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.options.parsing import parse_duration
from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, replacing, write_file
from edge_hal.redaction import one_line
from edge_hal.task_folder import SUGGESTIONS, TASK_FILE, is_task

if TYPE_CHECKING:
    from edge_hal.learning.data.harvested import Harvest
    from edge_hal.media.blur_faces import FaceBlur
    from edge_hal.runtime.recording.material_reader import Material
    from edge_hal.runtime.recording.stretches import StepPart, Stretch


def harvest(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            readable=False, help="Folders that `edge-hal run --record FOLDER --record-pictures source` wrote."
        ),
    ],
    into: Annotated[Path, typer.Option(readable=False, help="Task folder that the videos are added to.")],
    most: Annotated[
        int, typer.Option(min=1, help="Take at most this many stretches: deviations first, then the least certain.")
    ] = 20,
    around: Annotated[str, typer.Option(help="Take this much before and after each doubt.")] = "5s",
    below: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="A decision or belief with a lower probability is a doubt."),
    ] = 0.7,
    blur_faces: Annotated[
        bool,
        typer.Option(
            "--blur-faces",
            help="Blur faces that OpenCV finds. It misses some: look at the videos before you pass them on.",
        ),
    ] = False,
) -> None:
    """Take stretches around deviations, uncertain decisions and gaps out of recordings into a task folder.

    The run's own segments go to suggestions/, and training ignores them. Nothing is taken twice.
    """
    from edge_hal.learning.data.harvested import Harvest
    from edge_hal.runtime.recording.stretches import find_stretches

    around_s = parse_duration(around)
    if not is_task(into):
        todo = "give one; edge-hal init FOLDER makes a new one"
        raise EdgeHalError(f"--into {into} is no task folder", f"it has no {TASK_FILE}", todo, exit_code=2)
    _check_reads_videos(into)
    blur = None
    if blur_faces:
        from edge_hal.media.blur_faces import FaceBlur

        blur = FaceBlur()
    materials, left = _read(recordings)
    with Harvest(into) as harvest:
        taken: dict[str, list[tuple[int, int]]] = {}
        for entry in harvest.entries.values():
            taken.setdefault(entry.session, []).append((entry.begin_ns, entry.end_ns))
        found = find_stretches(materials, around_s, below, taken)
        count = 0
        for stretch in found.stretches[:most]:
            error = _take(stretch, harvest, blur)
            if error is None:
                count += 1
                seconds = (stretch.end_ns - stretch.begin_ns) / 1e9
                why = "; ".join(each.text for each in stretch.reasons)
                print(one_line(f"{stretch.name}: {seconds:.1f} s, {why}"), flush=True)
            else:
                left.append(f"{stretch.name}: {error}")
    stretches = "1 stretch" if count == 1 else f"{count} stretches"
    print(f"{stretches} taken into {into}" + ("" if blur is None else f", {blur.found} faces blurred"))
    for cause, reasons in found.left.items():
        left.append(f"{reasons} doubts {cause}")
    if len(found.stretches) > most:
        left.append(f"{len(found.stretches) - most} stretches more: run it again, or give a larger --most")
    for text in left:
        print(one_line(f"skipped: {text}"))
    if not found.stretches and not left:
        print(f"nothing in the recordings was doubtful: --below {(1 + below) / 2:.2g} takes what is less certain")
    if count:
        print(
            f"next: correct {into / SUGGESTIONS}/VIDEO.csv and move it to {into / 'labels'}, or write "
            f"{into / 'transcripts'}/VIDEO.txt; until then training leaves the video out"
        )
        if blur is None:
            print("the videos show people as the camera saw them (--blur-faces)")


def _check_reads_videos(task: Path) -> None:
    """Raises EdgeHalError if training in the task folder would never look at a video."""
    from edge_hal.commands.options.train_inputs import choose_config

    if (task / "features").is_dir() and choose_config(task, None, []).model.reads == "features":
        todo = "give a task folder without features/"
        raise EdgeHalError(f"--into {task} learns from features", "recordings give videos", todo, exit_code=2)


def _read(folders: Sequence[Path]) -> tuple[list[Material], list[str]]:
    """What can be read, and what cannot, with the reason. Raises EdgeHalError if nothing can."""
    from edge_hal.runtime.recording.material_reader import read_material
    from edge_hal.runtime.recording.reader import recordings

    found, errors = [], []
    for piece in dict.fromkeys(piece for folder in folders for piece in recordings(folder)):
        try:
            found.append(read_material(piece))
        except EdgeHalError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found, [f"{error.what}: {error.why}" for error in errors]


def _take(stretch: Stretch, harvest: Harvest, blur: FaceBlur | None) -> str | None:
    """Write video and suggestions. Returns why that could not be, if the recording is at fault."""
    from edge_hal.learning.data.harvested import Taken
    from edge_hal.media.motion_jpeg import write_motion_jpeg

    broken: list[str] = []

    def pictures() -> Iterator[tuple[int, bytes]]:
        for picture in stretch.pictures:
            try:
                data = picture.read()
                yield picture.t_ns, data if blur is None else blur.jpeg(data)
            except (OSError, ValueError) as error:
                broken.append(str(error))
                raise

    why = tuple(reason.text for reason in stretch.reasons)
    entry = Taken(stretch.session, stretch.begin_ns, stretch.end_ns, why, stretch.bundle)
    try:
        with harvest.adding(stretch.name, entry) as (video, suggestions):
            beside_ns = stretch.pictures[-1].t_ns - stretch.pictures[-2].t_ns
            with replacing(video) as partial:
                write_motion_jpeg(partial, pictures(), stretch.pictures[0].size, beside_ns)
                write_file(suggestions, _suggestions(stretch, partial))
    except (EdgeHalError, OSError, ValueError) as error:
        if broken:
            return broken[0]
        if isinstance(error, EdgeHalError):
            raise
        raise file_error(f"cannot write {stretch.name}", error) from error
    return None


def _suggestions(stretch: Stretch, video: Path) -> str:
    """The run's own segments as CSV, in frames of the video at its constant rate."""
    from edge_hal.learning.data.labels.csv_file import write_csv
    from edge_hal.learning.data.labels.segments import Segment, SegmentedVideo
    from edge_hal.learning.data.media_files import read_times

    times = read_times(video, None)

    def frame(t_ns: int) -> int:
        return min(times.length, round((t_ns - stretch.begin_ns) / 1e9 * times.rate_hz))

    def stop(step: StepPart) -> int:
        return times.length if step.end_ns > stretch.pictures[-1].t_ns else frame(step.end_ns)

    steps = [step for step in stretch.steps if frame(step.begin_ns) < stop(step)]
    segments = tuple(Segment(frame(step.begin_ns), stop(step), step.step) for step in steps)
    confidences = tuple(step.confidence for step in steps[1:])
    segmented = SegmentedVideo(stretch.name, video, "video", times.length, times.rate_hz, segments, confidences)
    return next(iter(write_csv([segmented]).values()))
