"""Segmentation scores, as the literature defines them, in per cent over whole videos.

They follow the evaluation of MS-TCN (arXiv 1903.01945). IoU and IoD are given in both protocols in use, which are
incompatible: the best match of each segment (ISBA, arXiv 1803.10699) and frame masks per class (TASL).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .segments import IntArray, runs_of

FloatArray: TypeAlias = NDArray[np.floating[Any]]

OVERLAPS = (0.10, 0.25, 0.50)


@dataclass(frozen=True)
class Scores:
    """Segmentation scores of a set of videos, in per cent. `mof_bg` does not count background frames."""

    mof: float
    mof_bg: float
    edit: float
    f1_10: float
    f1_25: float
    f1_50: float
    iou_isba: float
    iod_isba: float
    iou_tasl: float
    iod_tasl: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def mof(predicted: Sequence[IntArray], truth: Sequence[IntArray]) -> float:
    """Mean over frames: per cent of the frames of all videos with the right label."""
    return mof_without_background(predicted, truth, background=None)


def mof_without_background(
    predicted: Sequence[IntArray], truth: Sequence[IntArray], *, background: int | None
) -> float:
    """MoF over the frames whose true label is not background (over all frames if `background` is None)."""
    _check_pairs(predicted, truth)
    p, t = np.concatenate(list(predicted)), np.concatenate(list(truth))
    counted = np.ones(t.shape, bool) if background is None else t != background
    return 100.0 * float(np.mean(p[counted] == t[counted])) if counted.any() else 0.0


def edit_score(predicted: Sequence[IntArray], truth: Sequence[IntArray], *, ignore: Collection[int] = ()) -> float:
    """100 (1 - Levenshtein / longer length) between collapsed segments, mean over videos.

    Segments of a label in `ignore` are dropped after collapsing, as MS-TCN does.
    """
    _check_pairs(predicted, truth)
    scores = []
    for p, t in zip(predicted, truth, strict=True):
        a, b = _counted_runs(p, ignore)[0], _counted_runs(t, ignore)[0]
        longer = max(a.size, b.size)
        scores.append(1.0 - _levenshtein(a, b) / longer if longer else 1.0)
    return 100.0 * float(np.mean(scores))


def f1_at(
    overlap: float,
    predicted: Sequence[IntArray],
    truth: Sequence[IntArray],
    *,
    ignore: Collection[int] = (),
) -> float:
    """F1@overlap (0-1) in per cent: hits, false and missed segments pooled over videos.

    As in MS-TCN: each predicted segment, in time order, is compared with the true segment of its label with the highest
    IoU. It is a hit if that IoU >= overlap and no earlier prediction was matched to the segment. The last frame, which
    the script of MS-TCN leaves out, is counted here.
    """
    _check_pairs(predicted, truth)
    hits = predictions = truths = 0
    for p, t in zip(predicted, truth, strict=True):
        iou, _ = _segment_overlaps(p, t, ignore)
        predictions, truths = predictions + iou.shape[0], truths + iou.shape[1]
        if iou.size == 0:
            continue
        best = iou.argmax(axis=1)
        enough = iou[np.arange(best.size), best] >= overlap
        # Each true segment is matched once, so the number of distinct segments is the number of hits.
        hits += np.unique(best[enough]).size
    return 100.0 * 2 * hits / (predictions + truths) if predictions + truths else 0.0


def iou_isba(predicted: Sequence[IntArray], truth: Sequence[IntArray], *, ignore: Collection[int] = ()) -> float:
    """Best intersection over union of each true segment with a predicted one of its label.

    Per cent; mean over the true segments of a video, then over videos (ISBA protocol).
    """
    return _best_match(predicted, truth, ignore, 0)


def iod_isba(predicted: Sequence[IntArray], truth: Sequence[IntArray], *, ignore: Collection[int] = ()) -> float:
    """As `iou_isba` with intersection over detection: over the length of the predicted segment."""
    return _best_match(predicted, truth, ignore, 1)


def iou_tasl(predicted: Sequence[IntArray], truth: Sequence[IntArray], *, ignore: Collection[int] = ()) -> float:
    """Intersection over union of the frame masks of each true class, per cent.

    Mean over the classes present in a video's truth, then over videos (TASL protocol).
    """
    return _class_masks(predicted, truth, ignore, 0)


def iod_tasl(predicted: Sequence[IntArray], truth: Sequence[IntArray], *, ignore: Collection[int] = ()) -> float:
    """As `iou_tasl` over the frames predicted as the class (0 if there are none)."""
    return _class_masks(predicted, truth, ignore, 1)


def score_videos(
    predicted: Sequence[IntArray],
    truth: Sequence[IntArray],
    *,
    background: int | None,
    count_background: bool = True,
) -> Scores:
    """All segmentation scores of predicted labels against true ones, both (T_i,) per video.

    `mof_bg` never counts background; the segment scores count it unless `count_background=False`.

    Raises:
        EdgeHalError: no video, an empty video, or lengths that differ.
    """
    ignore = () if background is None or count_background else (background,)
    f1 = [f1_at(overlap, predicted, truth, ignore=ignore) for overlap in OVERLAPS]
    return Scores(
        mof=mof(predicted, truth),
        mof_bg=mof_without_background(predicted, truth, background=background),
        edit=edit_score(predicted, truth, ignore=ignore),
        f1_10=f1[0],
        f1_25=f1[1],
        f1_50=f1[2],
        iou_isba=iou_isba(predicted, truth, ignore=ignore),
        iod_isba=iod_isba(predicted, truth, ignore=ignore),
        iou_tasl=iou_tasl(predicted, truth, ignore=ignore),
        iod_tasl=iod_tasl(predicted, truth, ignore=ignore),
    )


def _check_pairs(predicted: Sequence[IntArray], truth: Sequence[IntArray]) -> None:
    if len(predicted) != len(truth) or not len(truth):
        raise EdgeHalError("cannot score videos", f"{len(predicted)} predicted and {len(truth)} true labelings")
    for index, (p, t) in enumerate(zip(predicted, truth, strict=True)):
        if np.shape(p) != np.shape(t) or np.ndim(t) != 1 or not np.size(t):
            raise EdgeHalError(
                f"cannot score video {index}",
                f"its predicted labels have shape {np.shape(p)}, the true ones {np.shape(t)}",
                "give one label per frame to both",
            )


def _counted_runs(labels: IntArray, ignore: Collection[int]) -> tuple[IntArray, IntArray, IntArray]:
    kinds, starts, stops = runs_of(labels)
    keep = ~np.isin(kinds, list(ignore))
    return kinds[keep], starts[keep], stops[keep]


def _segment_overlaps(predicted: IntArray, truth: IntArray, ignore: Collection[int]) -> tuple[FloatArray, FloatArray]:
    """IoU and IoD of every predicted (rows) with every true (columns) segment, 0 across labels."""
    p_kind, p_start, p_stop = _counted_runs(predicted, ignore)
    t_kind, t_start, t_stop = _counted_runs(truth, ignore)
    both = np.minimum(p_stop[:, None], t_stop) - np.maximum(p_start[:, None], t_start)
    both = np.where(p_kind[:, None] == t_kind, np.maximum(both, 0), 0)
    detected = (p_stop - p_start)[:, None]
    return both / (detected + (t_stop - t_start) - both), both / detected


def _best_match(predicted: Sequence[IntArray], truth: Sequence[IntArray], ignore: Collection[int], which: int) -> float:
    _check_pairs(predicted, truth)
    scores = []
    for p, t in zip(predicted, truth, strict=True):
        overlap = _segment_overlaps(p, t, ignore)[which]
        if overlap.shape[1]:
            scores.append(overlap.max(axis=0, initial=0.0).mean())
    return 100.0 * float(np.mean(scores)) if scores else 0.0


def _class_masks(
    predicted: Sequence[IntArray], truth: Sequence[IntArray], ignore: Collection[int], which: int
) -> float:
    _check_pairs(predicted, truth)
    scores = []
    for p, t in zip(predicted, truth, strict=True):
        classes = np.setdiff1d(t, list(ignore))[:, None]
        if not classes.size:
            continue
        detected, present = p == classes, t == classes
        both = (detected & present).sum(axis=1)
        over = (detected | present if which == 0 else detected).sum(axis=1)
        scores.append((both / np.maximum(over, 1)).mean())
    return 100.0 * float(np.mean(scores)) if scores else 0.0


def _levenshtein(a: IntArray, b: IntArray) -> int:
    """Edit distance; insertions along a row are a running minimum of `value - column`."""
    column = np.arange(b.size + 1)
    row = column.copy()
    for i, symbol in enumerate(a):
        step = np.minimum(row[1:] + 1, row[:-1] + (b != symbol))
        row = np.minimum.accumulate(np.append(i + 1, step) - column) + column
    return int(row[-1])
