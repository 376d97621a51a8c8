"""The first alignment of the training videos: features that need no training, and a hidden Markov model.

Networks that start from a uniform split confirm their own errors. A small hidden Markov model with many restarts does
not (see `align.py`). For pictures the features are principal components of thumbnails, which show where the hand and
the parts are. For feature streams they are the front-end features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.config import Learning
from edge_hal.files.feature_file import spread_of
from edge_hal.learning.data.rates import FIRST_ALIGN_HZ
from edge_hal.learning.data.recordings import Labels, SampledRecording
from edge_hal.metrics import uniform_split
from edge_hal.model.front_end import FrontEnd
from edge_hal.parallel import Workers
from edge_hal.parallel.cores import cores
from edge_hal.pictures.resize import resize
from edge_hal.progress import Progress

from .align import align_with_hmm
from .em import HmmConfig
from .known_labels import KnownSegments, bin_segments, is_complete
from .list_edits import THUMBNAIL_COSTS
from .trust import Evidence

LOOK_AHEAD_WINDOWS = 0.6
"""How many windows past its last tick a bin averages. For people a step begins with the reach for it, when nobody can
tell yet which step it is. Without this the boundaries are late (docs/results.md)."""
LABELLED_ITERATIONS = 2
"""EM iterations if some videos are labelled. With more, the model drifts from the known labels (docs/results.md)."""
THUMBNAIL = (12, 16)
THUMBNAIL_COMPONENTS = 24


@dataclass(frozen=True)
class FirstAlignment:
    """`labels`: (T,) per video. `evidence`: per video, what tells without labels whether to trust them. `restarts`: the
    labels of each kept restart, if there were several."""

    labels: list[Labels]
    evidence: list[Evidence]
    restarts: list[list[Labels]] = field(default_factory=list)


def find_first_alignment(
    vectors: Sequence[NDArray[np.float32]],
    transcripts: Sequence[Sequence[int]],
    count: int,
    model_hz: float,
    front_end: FrontEnd,
    config: Learning,
    seed: int,
    progress: Progress,
    *,
    known_segments: Sequence[KnownSegments | None] | None = None,
    learned: bool = True,
    change: bool = True,
    workers: Workers | None = None,
) -> FirstAlignment:
    """Align every video with its transcript.

    Args:
        vectors: (T, D) per video, at the ticks of the model.
        count: number of labels.
        front_end: makes the features of the alignment. It must be fitted if the scale of the vectors is not known.
        known_segments: (T,) per video, see `known_labels.py`. If some are complete, the model is trained on these
            videos and aligns the others, with few EM iterations. All others limit the search.
        learned: the vectors come from a sensor or a trained encoder. For raw pictures it is False: their change is
            mostly movement between actions, so it is left out, and a pause between two steps belongs to the first.
        change: the change of the vectors is a feature; never for raw pictures.
        workers: processes, or an executor, for the restarts; None: those of the configuration, else one for each core.
    """
    if config.starter == "uniform":
        labels = [uniform_split(t, len(x)) for x, t in zip(vectors, transcripts, strict=True)]
        return FirstAlignment(labels, [Evidence()] * len(labels))
    period = max(1, round(model_hz / FIRST_ALIGN_HZ))
    binned = [
        None if known is None else bin_segments(known, period) for known in known_segments or [None] * len(vectors)
    ]
    labelled = any(
        known is not None and is_complete(known, transcript)
        for known, transcript in zip(binned, transcripts, strict=True)
    )
    # For raw pictures the alignment only has to be good enough to train the encoder.
    settings = HmmConfig() if learned else HmmConfig(pause=True, agreement=0.8, edit_costs=THUMBNAIL_COSTS)
    if labelled:
        settings = replace(settings, iterations=LABELLED_ITERATIONS)
    result = align_with_hmm(
        binned_features(vectors, front_end, period, change=learned and change),
        transcripts,
        count,
        seed=seed,
        restarts=config.restarts,
        config=settings,
        progress=lambda done, total: progress("starter", done, total, ""),
        known_segments=binned if any(known is not None for known in binned) else None,
        workers=workers or config.workers or cores(),
        lists=config.lists,
    )

    def at_ticks(labels: Sequence[Labels]) -> list[Labels]:
        found = zip(labels, vectors, strict=True)
        return [np.repeat(np.asarray(label, np.int64), period)[: len(x)] for label, x in found]

    restarts = [at_ticks(labels) for labels in result.restarts]
    return FirstAlignment(at_ticks(result.labels), list(result.evidence), restarts)


def binned_features(
    vectors: Sequence[NDArray[np.float32]], front_end: FrontEnd, period: int, *, change: bool = True
) -> list[NDArray[np.float32]]:
    """Front-end features of vectors (T, D), one row per bin: (ceil(T / period), F) per video."""
    ahead = period - 1 + round(LOOK_AHEAD_WINDOWS * front_end.spec.window)
    rows = []
    for x in vectors:
        end = np.minimum(np.arange(ahead, len(x) + ahead, period), len(x) - 1)
        mean, moved, deviation = front_end(torch.from_numpy(x))[end].chunk(3, 1)
        rows.append(torch.cat([mean, moved, deviation] if change else [mean, deviation], 1).numpy())
    return rows


def thumbnail_vectors(recordings: Sequence[SampledRecording]) -> list[NDArray[np.float32]]:
    """Pictures (T, H, W, 3) -> (T, D): principal components of thumbnails, over all videos.

    Each thumbnail is divided by its mean brightness, because light flickers. The median picture of the video is
    subtracted, because objects that do not move carry no information.
    """
    flat = []
    for recording in recordings:
        small = np.stack([resize(picture, *THUMBNAIL) for picture in np.asarray(recording.inputs, np.uint8)])
        pixels = small.reshape(len(small), -1).astype(np.float32)
        pixels /= pixels.mean(1, keepdims=True) + 1e-3
        flat.append(pixels - np.median(pixels, 0))
    centre = np.concatenate(flat).mean(0)
    covariance = sum((x - centre).T @ (x - centre) for x in flat)
    values, directions = np.linalg.eigh(np.asarray(covariance, np.float64))
    basis = directions[:, np.argsort(values)[::-1][:THUMBNAIL_COMPONENTS]].astype(np.float32)
    return [(x - centre) @ basis for x in flat]


def statistics(vectors: Sequence[NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (D,) over all ticks of all videos, float32. The deviation of a constant is 0."""
    spread = spread_of(vectors)
    # The variance of numbers in float32 may lie outside its range: the root is taken of the mantissa.
    half = np.frexp(spread.variance)[1] // 2
    deviation = np.ldexp(np.sqrt(np.ldexp(spread.variance, -2 * half).astype(np.float32)), half)
    return (
        torch.from_numpy(spread.mean.astype(np.float32)),
        torch.from_numpy(np.where(spread.constant, np.float32(0), deviation)),
    )
