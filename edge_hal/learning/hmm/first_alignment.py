"""Where alignment begins: unsupervised vectors of each video, and a hidden Markov model over its transcript.

Gradient learning from a uniform split confirms its own mistakes; a small HMM restarted from many guesses
does not (see `align.py`). For pictures the vectors are principal components of thumbnails, which show where the
hand and the parts are; for feature streams they are the front-end features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.config import Learning
from edge_hal.learning.data.recordings import Labels, Recording
from edge_hal.metrics import uniform_split
from edge_hal.model.front_end import FrontEnd
from edge_hal.preprocess import resize
from edge_hal.progress import Progress
from edge_hal.spec import FrontEndSpec

from .align import start_alignment
from .em import StartConfig
from .known_labels import Pins, binned
from .list_edits import THUMBNAILS
from .parallel import cores

START_HZ = 2.0
LOOK_AHEAD_WINDOWS = 0.6
"""How far past its last tick a bin looks. A step begins, to people, with the reach for it, before anybody can tell what
it will be: without, boundaries come late (docs/results.md)."""
PINNED_ITERATIONS = 2
"""Of EM where videos are pinned: more drift from what is known (docs/results.md)."""
THUMBNAIL = (12, 16)
THUMBNAIL_COMPONENTS = 24


@dataclass(frozen=True)
class Started:
    """First labels (T,) of every video, and how far the restarts agree about each, 0..1."""

    labels: list[Labels]
    agreement: list[float]


def start(
    vectors: Sequence[NDArray[np.float32]],
    transcripts: Sequence[Sequence[int]],
    count: int,
    model_hz: float,
    window: int,
    config: Learning,
    seed: int,
    progress: Progress,
    *,
    pins: Sequence[Pins | None] | None = None,
    learned: bool = True,
) -> Started:
    """First labels (T,) of every video, from (T, D) vectors at the model's ticks and the transcripts.

    Args:
        pins: what is known of each video (T,), see `known_labels.py`. The HMM is then fitted to the pinned videos and
            aligns the others, with hardly any EM: it would drift from what is known.
        window: ticks of the trailing windows whose mean, change and deviation the HMM looks at.
        learned: the vectors come from a sensor or a trained encoder. In raw pictures the change is mostly
            transit between actions: it is left out, and a pause between two
            steps is given to the step before it.
    """
    if config.starter == "uniform":
        labels = [uniform_split(t, len(x)) for x, t in zip(vectors, transcripts, strict=True)]
        return Started(labels, [1.0] * len(labels))
    period = max(1, round(model_hz / START_HZ))
    known = [None if pin is None else binned(pin, period) for pin in pins or [None] * len(vectors)]
    pinned = any(pin is not None for pin in known)
    # The first look at pictures only has to be good enough to train an encoder on.
    settings = StartConfig() if learned else StartConfig(pause=True, agreed=0.8, edits=THUMBNAILS)
    if pinned:
        settings = replace(settings, iterations=PINNED_ITERATIONS)
    result = start_alignment(
        binned_features(vectors, window, period, learned=learned),
        transcripts,
        count,
        seed=seed,
        restarts=config.restarts,
        config=settings,
        progress=lambda done, total: progress("starter", done, total, ""),
        pins=known if pinned else None,
        workers=config.workers or cores(),
        lists=config.lists,
    )
    labels = [
        np.repeat(np.asarray(label, np.int64), period)[: len(x)]
        for label, x in zip(result.labels, vectors, strict=True)
    ]
    return Started(labels, list(result.agreement))


def binned_features(
    vectors: Sequence[NDArray[np.float32]], window: int, period: int, *, learned: bool = True
) -> list[NDArray[np.float32]]:
    """What the HMM sees of vectors (T, D): (ceil(T / period), F) front-end features, one row a bin."""
    front_end = FrontEnd(FrontEndSpec(vectors[0].shape[1], window))
    seen = period - 1 + round(LOOK_AHEAD_WINDOWS * window)
    rows = []
    for x in vectors:
        end = np.minimum(np.arange(seen, len(x) + seen, period), len(x) - 1)
        mean, change, deviation = front_end(torch.from_numpy(x))[end].chunk(3, 1)
        rows.append(torch.cat([mean, change, deviation] if learned else [mean, deviation], 1).numpy())
    return rows


def thumbnail_vectors(recordings: Sequence[Recording]) -> list[NDArray[np.float32]]:
    """Pictures (T, H, W, 3) -> (T, D): principal components of thumbnails, over all videos.

    Each thumbnail is divided by its own brightness (light flickers) and freed of the video's median
    picture (what lies still tells nothing).
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
    """Mean and standard deviation (D,) over all ticks of all videos."""
    count = sum(len(x) for x in vectors)
    mean = sum(x.sum(0, dtype=np.float64) for x in vectors) / count
    variance = sum(((x - mean) ** 2).sum(0) for x in vectors) / count
    return (
        torch.from_numpy(np.asarray(mean, np.float32)),
        torch.from_numpy(np.sqrt(np.asarray(variance, np.float32))),
    )
