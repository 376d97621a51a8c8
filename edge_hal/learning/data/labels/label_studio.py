"""Segments as tasks of Label Studio, with predictions: `timelinelabels` of videos, `timeserieslabels` of features.

Format: https://labelstud.io/tags/timelinelabels and https://labelstud.io/tags/timeserieslabels. Frames are numbered
from 1, and the last one of a range belongs to it. Label Studio counts frames at the rate of its configuration, which
takes it from `fps` of each task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import parse_json, read_regular
from edge_hal.learning.data.mstcn_files import stem_of
from edge_hal.media.names import composed

from .segments import Mark, SegmentedVideo, time_of

FILE, CONFIG = "label-studio.json", "label-studio.xml"
LOCAL = "/data/local-files/?d="
"""Where Label Studio finds the files of its document root (`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`)."""
UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What is raised while a file is read that is no export of Label Studio."""


def write_label_studio(videos: Sequence[SegmentedVideo]) -> dict[str, str]:
    """Names and contents of the files: tasks to import, and the labelling configuration with the steps that occur."""
    steps = sorted({each.step for video in videos for each in video.segments})
    tasks = [_task(video) for video in videos]
    return {
        FILE: json.dumps(tasks, indent=1, ensure_ascii=False) + "\n",
        CONFIG: labelling_config(steps, features=any(video.kind == "features" for video in videos)),
    }


def labelling_config(steps: Sequence[str], *, features: bool) -> str:
    """The labelling configuration of a project."""
    view = Element("View")
    tag = "TimeSeriesLabels" if features else "TimelineLabels"
    labels = SubElement(view, tag, {"name": "steps", "toName": "video"})
    for step in steps:
        SubElement(labels, "Label", {"value": step})
    if features:
        series = {"name": "video", "value": "$video", "valueType": "url", "timeColumn": "time_s"}
        SubElement(SubElement(view, "TimeSeries", series), "Channel", {"column": "0"})
    else:
        SubElement(view, "Video", {"name": "video", "value": "$video", "frameRate": "$fps"})
    ElementTree.indent(view)
    return ElementTree.tostring(view, "unicode") + "\n"


def _task(video: SegmentedVideo) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for number, (each, confidence) in enumerate(video.with_confidences):
        if video.kind == "video":
            kind = "timelinelabels"
            value: dict[str, Any] = {"ranges": [{"start": each.first + 1, "end": each.stop}]}
        else:
            kind = "timeserieslabels"
            value = {"start": each.first / video.rate_hz, "end": each.stop / video.rate_hz, "instant": False}
        results.append(
            {
                **{"id": f"{video.name}-{number}", "type": kind, "from_name": "steps", "to_name": "video"},
                **{"value": {**value, kind: [each.step]}, "score": round(confidence, 2)},
            }
        )
    file = f"videos/{video.path.name}" if video.kind == "video" else f"series/{video.name}.csv"
    data = {"video": LOCAL + quote(file), "name": video.name, "fps": video.rate_hz, "frames": video.length}
    worst = min(video.confidences, default=1.0)
    return {"data": data, "predictions": [{"model_version": "edge-hal", "score": round(worst, 2), "result": results}]}


def read_label_studio(path: Path) -> dict[str, list[Mark]]:
    """Marks by video, of an export in the format JSON. Of several annotations of a task the last one counts that was
    not cancelled. Predictions count only in a file that has no annotation at all.

    Raises:
        EdgeHalError: the file is no export of Label Studio, or a result is malformed.
    """
    try:
        tasks = _tasks(path)
        finished = [_results(task.get("annotations") or []) for task in tasks]
        if not any(results is not None for results in finished):
            finished = [_results(task.get("predictions") or []) for task in tasks]
        found: dict[str, list[Mark]] = {}
        for number, (task, results) in enumerate(zip(tasks, finished, strict=True), 1):
            if results is None:
                continue
            name = video_of(task["data"])
            if name in found:
                raise ValueError(f"two tasks are of video {name}")
            place = f"{path}, task {task.get('id', number)}"
            found[name] = [mark for result in results for mark in _marks(result, place)]
    except MALFORMED as error:
        raise _unreadable(path, error) from error
    return found


def holds_others(path: Path, name: str) -> bool:
    """Whether an export has tasks of other videos than `name`, with labels that count or without. Raises EdgeHalError
    as `read_label_studio`."""
    try:
        tasks = _tasks(path)
        return len(tasks) > 1 or any(video_of(task["data"]) != name for task in tasks)
    except MALFORMED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> EdgeHalError:
    why = error if isinstance(error, (OSError, ValueError)) else ValueError(f"malformed: {error}")
    return file_error(f"cannot read the labels {path}", why, "export it again", path=path)


def _tasks(path: Path) -> list[dict[str, Any]]:
    tasks = parse_json(read_regular(path, 1 << 28))
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise ValueError("it is no list of tasks; export it in the format JSON")
    return tasks


def video_of(data: Mapping[str, Any]) -> str:
    """The name of the video of a task: what edge-hal wrote into it, else that of its file."""
    if isinstance(data.get("name"), str):
        return composed(data["name"])
    url = str(data[next((key for key in ("video", "csv", "timeseries") if key in data), "video")])
    return UPLOADED.sub("", stem_of(composed(unquote(url.partition("?d=")[2] or url))), count=1)


def _results(annotations: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]] | None:
    kept = [each["result"] for each in annotations if not each.get("was_cancelled")]
    return kept[-1] if kept else None


def _marks(result: Mapping[str, Any], place: str) -> Iterator[Mark]:
    kind, value = result["type"], result["value"]
    if kind not in ("timelinelabels", "timeserieslabels"):
        return  # a project may ask for more than the steps
    steps = value[kind]
    if len(steps) != 1:
        raise ValueError(f"result {result.get('id')} of {place} has {len(steps)} labels, not one")
    step, place = composed(str(steps[0]).strip()), f"{place}, result {result.get('id')}"
    if kind == "timelinelabels":
        for each in value["ranges"]:
            yield Mark(time_of(each["start"]) - 1, time_of(each["end"]), "frame", step, place)
    else:
        begin, end = time_of(value["start"]), time_of(value["end"])
        yield Mark(begin, None if value.get("instant") else end, "s", step, place)
