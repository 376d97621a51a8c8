"""The files that a data set needs of each video, and one error for all that are missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.media.names import composed, printable, with_suffix
from edge_hal.task_folder import is_task

from .labels.folder import READERS
from .mstcn_files import Kind, label_paths, list_folder, text_file
from .step_texts import count_of


def missing_files(
    root: Path,
    kind: Kind,
    names: Sequence[str],
    files: Collection[str],
    labelled: Collection[str],
    timestamps: bool = False,
    own: Collection[str] = (),
) -> dict[str, list[str]]:
    """What is missing of each of the videos `names` that lacks a file. `own`: those whose labels were found already."""
    missing: dict[str, list[str]] = {}
    task = is_task(root)
    for name in names:
        lacks = []
        if name not in files:
            lacks.append(f"features/{name}.npy" if kind == "features" else f"videos/{name}.mp4")
        if name not in own:
            written, per_frame = label_paths(root, name)
            stamps = timestamps and name in labelled
            if not per_frame.is_file() and ((name in labelled and not stamps) or not written.is_file()):
                folder = "groundTruth" if not task else "labels" if name in labelled else "transcripts"
                lacks.append(f"{folder}/{name}.txt")
            if stamps and not text_file(root / "timestamps", name).is_file():
                lacks.append(f"timestamps/{name}.txt")
        if lacks:
            missing[name] = lacks
    return missing


def missing_error(root: Path, missing: Mapping[str, Sequence[str]], videos: int) -> EdgeHalError:
    """One error for all that `missing_files` found. `videos`: how many there are."""
    every = [file for lacks in missing.values() for file in lacks]
    contents = {
        "transcripts": "one step a line, in the order in which they happen",
        "labels": "one step for each frame",
        "groundTruth": "one step for each frame (or transcripts/VIDEO.txt: one step a line)",
        "timestamps": "FRAME STEP in each line",
    }
    folder = every[0].partition("/")[0]
    write = f"write {folder}/VIDEO.txt: {contents[folder]}" if folder in contents else "add the files"
    why = f"{len(missing)} of {videos} videos cannot be used without that"
    other = next((path for path in _other_labels(root) if composed(path.stem) in missing), None)
    if other is not None:
        reason = "it is no .txt with a step for each frame"
        if folder == "transcripts":
            reason = "it holds no label, or --labels replaces it"
        why += f"; labels/{printable(other.name)} does not count: {reason}"
    return EdgeHalError(
        f"{count_of([printable(file) for file in every], 'file')} missing under {root}",
        why,
        f"{write}; or leave these videos out",
    )


def _other_labels(root: Path) -> list[Path]:
    """The files of labels in labels/ but for those of frame labels."""
    folder = root / "labels"
    return with_suffix(list_folder(folder), READERS)[0] if folder.is_dir() else []
