"""Recordings that a calibration measures on, and those with labels that it fits the confidence on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_hal.calib.calibration_set import CalibrationRecording
    from edge_hal.metrics import IntArray
    from edge_hal.model.model_file import Checkpoint
    from edge_hal.progress import Progress
    from edge_hal.spec import PyramidSpec


def read_folder(
    folder: Path,
    checkpoint: Checkpoint,
    split: int | None,
    rate_hz: float | None,
    report: Progress,
) -> list[CalibrationRecording]:
    """Recordings sampled at the model's rate and encoded as on the device. No transcript and no label is read.

    Of a split, the valid part is preferred: on its training videos a model is more confident than on new ones, so an
    int8 layer would seem to cost less than it does.

    Raises:
        EdgeHalError: no recordings, an unknown rate, a damaged file, vectors of another size.
    """
    from edge_hal.learning.data.mstcn_files import index_media, names_in

    spec = checkpoint.spec
    files = index_media(folder, "features" if spec.encoder is None else "video")
    part = "valid" if (folder / "splits" / f"valid.split{split}.bundle").is_file() else "train"
    names = names_in(folder, files, split, part)
    missing = [name for name in names if name not in files]
    if missing:
        raise EdgeHalError(f"{folder} has no recording {missing[0]}", f"split {split} names it")
    named = {name: files[name] for name in names}
    known_hz = rate_hz or trained_rate_hz(checkpoint.path)
    if spec.encoder is None:
        recordings = _read_vectors(named, spec, known_hz, report)
    else:
        recordings = _read_videos(folder, named, checkpoint, known_hz, report)
    which = "all" if split is None else part
    report("read", len(names), len(names), f"{which}: {sum(r.ticks for r in recordings)} ticks")
    return recordings


def _read_vectors(
    files: dict[str, Path], spec: PyramidSpec, known_hz: float | None, report: Progress
) -> list[CalibrationRecording]:
    from edge_hal.calib.calibration_set import CalibrationRecording
    from edge_hal.files.feature_file import as_float32
    from edge_hal.learning.data.media_files import open_array
    from edge_hal.ticks import ticks_of

    recordings = []
    for number, (name, path) in enumerate(files.items()):
        report("read", number, len(files), name)
        if known_hz is None:
            raise EdgeHalError("the rate of the feature files is not known", "", "give it: --rate-hz 30")
        stored = open_array(path)
        size = spec.front_end.size
        if size not in stored.shape:
            why = f"its array is {stored.shape}, the model takes vectors of {size}"
            raise EdgeHalError(f"the calibration recording {path} is of the wrong size", why)
        rows = stored if stored.shape[1] == size else stored.T
        vectors = as_float32(rows[ticks_of(len(rows), known_hz, spec.model_hz)])
        recordings.append(CalibrationRecording(name, vectors))
    return recordings


def _read_videos(
    folder: Path, files: dict[str, Path], checkpoint: Checkpoint, unstamped_hz: float | None, report: Progress
) -> list[CalibrationRecording]:
    from dataclasses import replace

    from edge_hal.calib.calibration_set import CalibrationRecording
    from edge_hal.learning.data.extraction import Sampling, extract
    from edge_hal.learning.data.media_files import read_times
    from edge_hal.learning.data.video_cache import cache_of
    from edge_hal.learning.data.video_set import Video
    from edge_hal.ticks import ticks_of

    times = {name: read_times(path, unstamped_hz) for name, path in files.items()}
    videos = [Video(name, files[name], "video", (), found.length, found.rate_hz) for name, found in times.items()]
    spec, cache = checkpoint.spec, cache_of(folder)
    assert spec.encoder is not None
    seen = Sampling.of(spec.model_hz, spec.encoder)
    pictures = extract(videos, seen, cache, lambda done, total: report("decode", done, total, ""))
    with_graph = replace(seen, graph=checkpoint.encoder)
    vectors = extract(videos, with_graph, cache, lambda done, total: report("encode", done, total, ""))
    recordings = []
    for (name, found), vector, picture in zip(times.items(), vectors, pictures, strict=True):
        count = len(ticks_of(found.length, found.rate_hz, spec.model_hz))
        recordings.append(CalibrationRecording(name, vector.values[:count], picture.values[:count]))
    return recordings


def trained_rate_hz(run: Path) -> float | None:
    """The rate of feature files the run was trained with."""
    from edge_hal.config import load_config

    path = run / "config.yaml"
    return load_config(str(path), []).data.rate_hz if path.is_file() else None


def labelled_posteriors(
    data: Path, checkpoint: Checkpoint, split: int | None, part: str, report: Progress
) -> tuple[list[str], list[NDArray[np.float32]], list[IntArray]]:
    """Names of the videos of a part; of each the log posteriors (T, H K) and the labels (T,)."""
    import numpy as np

    from edge_hal.commands.evaluate import PARTS, run_config
    from edge_hal.commands.options.train_inputs import load_videos, print_notes
    from edge_hal.learning.data.recordings import read_recordings
    from edge_hal.learning.data.video_cache import cache_of
    from edge_hal.learning.data.video_set import with_labels_of
    from edge_hal.model.one_pass import one_pass

    loaded = load_videos(data, run_config(checkpoint.path, []), split, PARTS[part], with_labels=True)
    videos = with_labels_of(loaded, checkpoint.spec.labels, f"the checkpoint {checkpoint.path}")
    print_notes(videos.notes[len(loaded.notes) :])
    posteriors, labels = [], []
    recordings = read_recordings(
        videos,
        checkpoint.spec.model_hz,
        checkpoint.spec.encoder,
        lambda done, total: report("read", done, total, ""),
        graph=checkpoint.encoder,
        cache=cache_of(data),
    )
    for number, recording in enumerate(recordings):
        made = one_pass(checkpoint.pyramid, checkpoint.front_end, np.asarray(recording.inputs, np.float32))
        posteriors.append(made.heads().astype(np.float32))
        assert recording.labels is not None, "the videos were read with labels"
        labels.append(recording.labels)
        report(f"{part} part", number + 1, len(recordings), "")
    names = [video.name for video in videos.videos]
    return names, posteriors, labels
