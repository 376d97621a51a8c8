"""How much each view of one procedure counts, fitted on training videos that every view filmed.

The weights maximise the likelihood of the labels under the product of the views (`decoding/fusion.py`), which is
concave in the weights. Then they are scaled to a mean of 1: posteriors of one network are too sure at each tick, and
the thresholds of the decoder, fitted on one view with the weight 1, allow for that already.

The posteriors are those of networks that were not trained on the video (`held_out.npz`), because a network is too sure
of its own videos. Labels are those of the alignments; where those of two views differ, each counts half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.held_out_file import HeldOut
from edge_hal.decoding.fusion import EQUAL, LARGEST_WEIGHT, label_order, pooled
from edge_hal.errors import EdgeHalError

ROUNDS = 200
CLOSE = 1e-6
LONGEST_DIFFERENCE_S = 1.0
"""The lengths of two views of a session may differ by this much."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FittedFusion:
    """`weights` by view, 1 on average. `right_...`: the share of ticks whose most probable label is that of an
    alignment: of each view alone, of all with equal weights, and of all with these."""

    weights: Mapping[str, float]
    videos: int
    right_alone: Mapping[str, float]
    right_equal: float
    right_fitted: float


def fit_fusion(views: Mapping[str, HeldOut]) -> FittedFusion:
    """Raises EdgeHalError (exit code 2) if the views have no videos in common, or cannot be fused."""
    names, first = list(views), next(iter(views.values()))
    for name, view in list(views.items())[1:]:
        what = f"the views '{names[0]}' and '{name}' cannot be fused"
        for quantity, one, other in (
            ("steps", sorted(first.actions), sorted(view.actions)),
            ("model_hz", first.model_hz, view.model_hz),
            ("lag in ticks", first.lag_ticks, view.lag_ticks),
        ):
            if one != other:
                why = f"their {quantity} differ: {one} and {other}"
                raise EdgeHalError(what, why, "train both alike", exit_code=2)
    common = [name for name in first.labels if all(name in view.labels for view in views.values())]
    if not common:
        why = "each session needs the same name in every view"
        raise EdgeHalError("the views have no held out video in common", why, "name the videos alike", exit_code=2)
    rows, labels = _aligned(views, common)
    weights = _most_likely(rows, labels)
    if not weights.any():
        why = "no weight above 0 makes the alignments more likely"
        raise EdgeHalError("the views tell nothing of the steps", why, "look at the scores of each run")
    weights *= len(weights) / weights.sum()

    def right(used: list[float]) -> float:
        chosen = pooled(list(rows.astype(np.float32)), used, len(first.actions)).argmax(-1)
        return float((chosen[None] == labels).mean())

    alone = {name: right([float(other == name) for other in names]) for name in names}
    fitted = {name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True)}
    return FittedFusion(fitted, len(common), alone, right([EQUAL] * len(names)), right(list(weights)))


def _aligned(views: Mapping[str, HeldOut], common: list[str]) -> tuple[Floats, Ints]:
    """(V, T, K) log posteriors and (V, T) labels of all common videos, one after the other, in the order of the labels
    of the first view. A row describes a tick `lag_ticks` before it."""
    first = next(iter(views.values()))
    orders = [label_order(first.actions, view.actions) for view in views.values()]
    rows: list[Floats] = []
    labels: list[Ints] = []
    for name in common:
        lengths = [len(view.labels[name]) for view in views.values()]
        if max(lengths) - min(lengths) > LONGEST_DIFFERENCE_S * first.model_hz:
            seconds = " and ".join(f"{length / first.model_hz:.1f}" for length in lengths)
            why = f"they last {seconds} s"
            raise EdgeHalError(
                f"the videos {name} are not of one session", why, "cut them to the same time", exit_code=2
            )
        end, lag = min(lengths), first.lag_ticks
        rows.append(
            np.stack(
                [
                    view.log_posteriors[name][lag:end][:, order]
                    for view, order in zip(views.values(), orders, strict=True)
                ]
            ).astype(np.float64)
        )
        places = [np.argsort(order) for order in orders]  # of a label of this view in the first one
        labels.append(
            np.stack(
                [place[view.labels[name][: end - lag]] for view, place in zip(views.values(), places, strict=True)]
            )
        )
    return np.concatenate(rows, 1), np.concatenate(labels, 1)


def _most_likely(rows: Floats, labels: Ints) -> Floats:
    """(V,) weights of the highest likelihood, not negative: Newton's method for one weight after the other."""
    views, ticks = len(rows), rows.shape[1]
    at = np.arange(ticks)
    told = np.mean([[rows[v][at, y].mean() for v in range(views)] for y in labels], 0)  # (V,)
    weights = np.full(views, EQUAL)
    for _ in range(ROUNDS):
        before = weights.copy()
        for v in range(views):
            score = np.tensordot(weights, rows, 1)
            share = np.exp(score - score.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            mean = (share * rows[v]).sum(-1)
            curvature = float(((share * rows[v] ** 2).sum(-1) - mean**2).mean())
            step = (told[v] - float(mean.mean())) / max(curvature, 1e-9)
            weights[v] = min(max(weights[v] + np.clip(step, -0.5, 0.5), 0.0), LARGEST_WEIGHT)
        if np.abs(weights - before).max() < CLOSE:
            break
    return weights
