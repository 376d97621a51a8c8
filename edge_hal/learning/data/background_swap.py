"""Pictures of a video with the background of another time. The hand, the tool and the part in motion stay, and the
bench looks as it did earlier or later.

In training the bench has always looked as it does after the steps that precede, so a network takes its state for the
step. A step that comes at another time is then not recognised. Here each step is seen with many states of the bench,
and no video of a mistake is needed. It is the foreground-background merging of S. Ding et al., "Motion-aware
Contrastive Video Representation Learning via Foreground-background Merging" (arXiv 2109.15130), within one video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Config
from edge_hal.pictures.moving import WHOLE, Background, median_picture

from .recordings import SampledRecording

SWAPPED = 0.5
"""The share of the pictures that the frame encoder learns from."""
EVERY_S, AROUND_S, LEAST_AROUND_S, SAMPLES = 1.0, 10.0, 0.5, 21
"""A background for each `EVERY_S` seconds: the median of `SAMPLES` pictures from `AROUND_S` before to as much after.
Near the ends of the video both are shorter, so that the bench is seen as it was before the first step."""
LEAST_S, MOST_S = 4.0, 12.0
"""How long one other background stays."""

MARGIN, SOFT = 1, 3
"""No margin: a rim around the hand would tell how the bench looks. The edge is blurred with a square of `SOFT`."""

Picture = NDArray[np.uint8]


class SwappedBackground(Sequence[Picture]):
    """The pictures (H, W, 3) of a video at its ticks, each with a background of another time. They are made when they
    are read.

    Args:
        pictures: uint8 BGR (T, H, W, 3).
        hz: ticks per second.
        rng: decides which backgrounds are shown.
    """

    def __init__(self, pictures: Picture, hz: float, rng: np.random.Generator) -> None:
        self._pictures, self._every, ticks = pictures, max(1, round(EVERY_S * hz)), len(pictures)
        self._rest = []
        for tick in range(0, ticks, self._every):
            to_end_s = min(tick, ticks - 1 - tick) / hz
            around = max(1, round(min(AROUND_S, max(LEAST_AROUND_S, to_end_s)) * hz))
            window = np.linspace(max(0, tick - around), min(ticks, tick + around) - 1, SAMPLES)
            self._rest.append(median_picture(np.asarray(pictures[np.unique(window.astype(int))])))
        self._shown = np.zeros(ticks, np.int64)
        start = 0
        while start < ticks:
            end = start + max(1, round(rng.uniform(LEAST_S, MOST_S) * hz))
            self._shown[start:end], start = rng.integers(len(self._rest)), end

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[tick] for tick in range(*index.indices(len(self)))]
        import cv2

        tick = range(len(self))[index]
        picture, rest, other = self._pictures[tick], self._rest[tick // self._every], self._rest[self._shown[tick]]
        moving = cv2.blur(Background.of(rest).moving(picture, MARGIN), (SOFT, SOFT))
        weight = cv2.merge([moving, moving, moving]).astype(np.float32) / WHOLE
        # The light of the picture falls on the other background too.
        lit = np.minimum(other * Background.of(other).light(picture), 255)
        return np.asarray(np.rint(lit + (picture - lit) * weight), np.uint8)


def swapped_backgrounds(recordings: Sequence[SampledRecording], config: Config, seed: int) -> list[SwappedBackground]:
    """The pictures of each recording with swapped backgrounds; none if the model does not learn from such."""
    if not config.swap_backgrounds:
        return []
    seeds = np.random.SeedSequence(seed).spawn(len(recordings))
    return [
        SwappedBackground(np.asarray(recording.inputs, np.uint8), config.model.hz, np.random.default_rng(own))
        for recording, own in zip(recordings, seeds, strict=True)
    ]
