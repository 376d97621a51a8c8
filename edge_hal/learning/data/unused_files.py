"""What lies in transcripts/ and labels/ and is not read: files without a video, of another type, in a subfolder."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from edge_hal.media.names import composed, printable

from .check_videos import Problem
from .labels.folder import READERS
from .mstcn_files import label_paths, stem_of, text_files
from .step_texts import count_of

OF_TOOLS = (".xml", ".pfsx", ".etf", ".bak")
"""What annotation tools keep beside labels."""


def unused_files(root: Path, files: Collection[str]) -> list[Problem]:
    """A warning for each kind of file that nothing reads. `files`: the names of the videos."""
    found = []
    for folder in ("transcripts", "labels"):
        texts, others = text_files(root / folder)
        inside = [printable(path.name) for path in others if path.is_dir()]
        others = [path for path in others if not path.is_dir()]
        if inside:
            what = f"{count_of(inside, 'folder')} in {folder}/ ignored"
            found.append(Problem("warning", f"{what}: subfolders are not read", f"move their files into {folder}/"))
        alone = sorted(path.stem for path in texts if composed(path.stem) not in files)
        if alone:
            todo = f"check the names: VIDEO.txt belongs to VIDEO.mp4{_meant_for(alone, root, files)}"
            found.append(Problem("warning", f"{count_of(alone, 'file')} in {folder}/ without a video", todo))
        if folder == "labels":
            others = [path for path in others if path.suffix.lower() not in (*READERS, *OF_TOOLS)]
        if others:
            types = ".txt" if folder == "transcripts" else ", ".join((".txt", *READERS))
            what = f"{count_of([printable(path.name) for path in others], 'file')} in {folder}/ ignored"
            found.append(Problem("warning", f"{what}: of another type than {types}", "save them as one of these"))
    return found


def _meant_for(alone: Sequence[str], root: Path, files: Collection[str]) -> str:
    """'; is b.txt meant for B?': the first that has nearly the name of a video without a list."""
    without = {name.casefold(): name for name in sorted(files) if not label_paths(root, name)[0].is_file()}
    for name in alone:
        near = difflib.get_close_matches(stem_of(name).casefold(), without, 1, 0.8)
        if near:
            return f"; is {printable(name)}.txt meant for {printable(without[near[0]])}?"
    return ""
