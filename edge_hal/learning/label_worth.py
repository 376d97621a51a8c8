"""What labels are worth: how many more frames would be right if some minutes of the training videos were labelled.

The true labels are not available. So each kept restart of the alignment is treated as the truth in turn, and the named
videos get its labels. At least these frames agree with it then. At most, the others are
aligned again as with labels of the user, and follow. The truth lies between the two more often than not: restarts are
explained by the model better than the truth is, so the others follow them too well (docs/labels.md has the errors).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_hal.metrics import runs_of

from .data.recordings import Labels
from .data.video_set import Video
from .hmm.known_labels import KnownSegments, worth_labelling

MINUTES = (1.0, 3.0, 10.0)
HYPOTHESES = 3
"""Restarts that are taken for the truth: the best ones."""
MOST_VIDEOS = 8
"""No more videos are named."""

Align = Callable[[Sequence[KnownSegments | None]], Sequence[Labels]]
"""Known segments (T,) of each video -> labels (T,) of each video."""


@dataclass(frozen=True)
class Gain:
    """The share of all frames that would be right with `minutes` of labels: of whole videos, in the order of
    `LabelWorth.videos`, and of a part of the last one. `frames_right`: at least, if the other videos learn nothing from
    them; `at_most`: if they follow as they would follow a restart."""

    minutes: float
    frames_right: float
    at_most: float


@dataclass(frozen=True)
class LabelWorth:
    """Attributes:
    videos: which to label, the most useful first.
    frames_right: the share of all frames that is right now.
    gains: for `MINUTES`, as far as the named videos last.
    """

    videos: tuple[str, ...]
    frames_right: float
    gains: tuple[Gain, ...]

    def to_dict(self) -> dict[str, Any]:
        """As in `labels.json` of a run (docs/labels.md)."""
        return asdict(self)


def told(found: Mapping[str, Any]) -> str:
    """One line for the end of a training, from `labels.json`."""
    gains = ", ".join(f"{g['minutes']:g} min {g['frames_right']:.0%} to {g['at_most']:.0%}" for g in found["gains"])
    now, first = found["frames_right"], " and ".join(found["videos"][:2])
    return f"frames right: {now:.0%} now, with labels of {gains} (rough estimates), beginning with {first}"


def label_worth(
    videos: Sequence[Video],
    labels: Sequence[Labels],
    truths: Sequence[Sequence[Labels]],
    align: Align,
    model_hz: float,
) -> LabelWorth:
    """What labels bring, if `truths` are equally likely to be true.

    Args:
        labels: (T,) per video, the alignment. truths: (T,) per video, of each.
        align: aligns all videos again, if all segments of some are known.
    """
    names = worth_labelling(videos, MOST_VIDEOS)
    places = [[video.name for video in videos].index(name) for name in names]
    lengths = np.array([len(labels[i]) for i in places]) / model_hz / 60
    minutes = np.concatenate([[0.0], np.cumsum(lengths)])
    last = int(np.searchsorted(minutes, MINUTES[-1]))
    tried = sorted({k for k in (1, 2, 4, last, len(places)) if 0 < k <= min(last, len(places))})
    now = float(np.mean([_share(labels, truth) for truth in truths]))
    least, most = [now], [now]
    for count in tried:
        own = [_share(_given(labels, truth, places[:count]), truth) for truth in truths]
        followed = [
            _share(_given(_aligned(align, truth, places[:count]), truth, places[:count]), truth) for truth in truths
        ]
        least.append(float(np.mean(own)))
        most.append(max(least[-1], most[-1], float(np.mean(followed))))
    at = minutes[[0, *tried]]
    asked = [m for m in MINUTES if m <= at[-1]] or [round(float(at[-1]), 2)]
    reached = zip(asked, np.interp(asked, at, least), np.interp(asked, at, most), strict=True)
    gains = tuple(Gain(m, round(float(low), 3), round(float(high), 3)) for m, low, high in reached)
    return LabelWorth(tuple(names[: tried[-1]]), round(now, 3), gains)


def _aligned(align: Align, truth: Sequence[Labels], labelled: Sequence[int]) -> Sequence[Labels]:
    """All videos, aligned again with the labels of some."""
    known: list[KnownSegments | None] = [None] * len(truth)
    for i in labelled:
        _, starts, stops = runs_of(truth[i])
        known[i] = np.repeat(np.arange(len(starts)), stops - starts)
    return align(known)


def _given(labels: Sequence[Labels], truth: Sequence[Labels], labelled: Sequence[int]) -> list[Labels]:
    return [truth[i] if i in labelled else label for i, label in enumerate(labels)]


def _share(found: Sequence[Labels], truth: Sequence[Labels]) -> float:
    return float((np.concatenate(list(found)) == np.concatenate(list(truth))).mean())
