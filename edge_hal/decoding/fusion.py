"""Posteriors of several views of one procedure as those of one observer: a product of experts.

    p(step) ~ product over the views of p_view(step) ** weight

(Hinton, "Products of Experts", ICANN 1999; with weights it is a logarithmic opinion pool, Genest and Zidek 1986.) The
weight of a view is its reliability: 0 ignores it, 1 takes its posteriors as they are. `calib/fit_fusion.py` fits the
weights. A view that is missing has the weight 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.spec import FrontEndSpec, LevelSpec, PyramidSpec

Rows = NDArray[np.float32]
LONGEST_WINDOW = 4096
LARGEST_WEIGHT = 100.0
EQUAL = 1.0
"""The weight of each view if none was fitted: the plain product, as if views erred independently."""


def pooled(views: Sequence[Rows | None], weights: Sequence[float], labels: int) -> Rows:
    """The log posteriors of the product, normalised for each head.

    Args:
        views: for each view (..., H K) log posteriors of the same ticks, or None if it is missing. At least one is
            there.
        weights: of each view, not negative.
        labels: K.

    Returns:
        (..., H K). If all weights that count are 0, each label has the probability 1 / K.
    """
    there = [
        (np.asarray(view, np.float64), weight) for view, weight in zip(views, weights, strict=True) if view is not None
    ]
    total = sum((weight * view for view, weight in there[1:]), there[0][1] * there[0][0])
    heads = total.reshape(*total.shape[:-1], -1, labels)
    heads = heads - heads.max(-1, keepdims=True)
    heads -= np.log(np.exp(heads).sum(-1, keepdims=True))
    made: Rows = heads.reshape(total.shape).astype(np.float32)
    return made


def label_order(labels: Sequence[str], of: Sequence[str]) -> list[int]:
    """Where each of `labels` stands in `of`, which holds the same ones."""
    return [list(of).index(label) for label in labels]


def in_order(rows: Rows, order: Sequence[int]) -> Rows:
    """(..., H K) with the labels of each head in another order: column k is that of `order[k]` before."""
    heads = rows.reshape(*rows.shape[:-1], -1, len(order))
    return heads[..., list(order)].reshape(rows.shape)


def check_fusable(names: Sequence[str], specs: Sequence[PyramidSpec]) -> None:
    """Raises EdgeHalError (exit code 2) unless the posteriors of these views can be combined: the same steps, in any
    order, the same rate, and heads with the same lags."""
    first = specs[0]
    for name, spec in zip(names[1:], specs[1:], strict=True):
        what = f"the views '{names[0]}' and '{name}' cannot be fused"
        if set(first.labels) != set(spec.labels):
            only = [sorted(set(a.labels) - set(b.labels)) for a, b in ((first, spec), (spec, first))]
            why = "; ".join(
                f"only '{view}' knows {', '.join(labels[:5])}"
                for view, labels in zip((names[0], name), only, strict=True)
                if labels
            )
            raise EdgeHalError(what, why, "train both with the same steps", exit_code=2)
        if first.model_hz != spec.model_hz:
            why = f"their models run at {first.model_hz:g} and {spec.model_hz:g} Hz"
            raise EdgeHalError(what, why, "train both with the same model.model_hz", exit_code=2)
        lags = [(each.lag_ticks, *each.other_lags_ticks) for each in (first, spec)]
        if lags[0] != lags[1]:
            why = f"the lags of their heads are {lags[0]} and {lags[1]} ticks"
            raise EdgeHalError(what, why, "train both with the same lags", exit_code=2)


def fused_spec(specs: Sequence[PyramidSpec]) -> PyramidSpec:
    """The table of a model whose input vectors are fused posteriors (H K), and whose output they are. It is warm when
    each view is. Labels and lags are those of the first view."""
    first = specs[0]
    field = max(spec.receptive_field for spec in specs)
    blocks = -(-field // (LONGEST_WINDOW - 1))
    window = max(2, -(-(field - 2) // blocks) + 1)
    return replace(
        first,
        front_end=FrontEndSpec(first.heads_width, 1),
        levels=(LevelSpec(stride=1, window=window, width=1, heads=1, blocks=blocks),),
        encoder=None,
    )


def fused_fingerprint(fingerprints: Sequence[str], weights: Sequence[float]) -> str:
    """The `bundle` of a fused stream: SHA-256 over a line for each view, its bundle and its weight."""
    lines = (f"{fingerprint} {weight:g}\n" for fingerprint, weight in zip(fingerprints, weights, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
