"""Segments as MS-TCN frame labels: one file for each video, one step for each frame."""

from __future__ import annotations

from collections.abc import Sequence

from .segments import SegmentedVideo


def write_frames(videos: Sequence[SegmentedVideo]) -> dict[str, str]:
    """Names and contents of the files. For a video file of a variable rate, a line for each frame of the file."""
    files = {}
    for video in videos:
        lines = [each.step for each in video.segments for _ in range(each.stop - each.first)]
        if video.file_frames is not None:
            lines = [lines[min(frame, len(lines) - 1)] for frame in video.file_frames]
        files[f"{video.name}.txt"] = "".join(f"{line}\n" for line in lines)
    return files
