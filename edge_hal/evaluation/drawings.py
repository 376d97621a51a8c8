"""The charts of `edge-hal plot`, in one style. The suffix of a path, .png or .svg, is its format."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.plotting import BLUE, ORANGE, QUIET, colours, drawing, shown

from .plot_data import StreamedVideo

Rows = Sequence[tuple[float, float, int]]
"""Mean confidence, share right, count: see `edge_hal.calib.confidence.reliability`."""


def draw_timelines(path: Path, videos: Sequence[StreamedVideo], labels: Sequence[str]) -> None:
    """Truth, what was streamed, the reports `now` and the confidence of each video, one colour for each step."""
    palette = colours(len(labels))
    seen = sorted(
        {int(label) for video in videos for label in np.unique(np.concatenate([video.truth, video.streamed]))}
    )
    legend_rows = -(-len(seen) // 4)
    height_inch = sum(1.2 + 0.3 * (video.now is not None) for video in videos) + 0.3 * legend_rows + 0.6
    with drawing(path, len(videos), 1, (11, height_inch)) as (figure, axes):
        for axis, video in zip(axes[:, 0], videos, strict=True):
            rows = {"truth": video.truth, "streamed": video.streamed, "now": video.now}
            given = {name: row for name, row in rows.items() if row is not None}
            for place, row in enumerate(reversed(given.values())):
                _draw_row(axis, row, video.rate_hz, place, palette)
            edges = [*(begin_s for begin_s, _, _ in video.confidence), *(end for _, end, _ in video.confidence[-1:])]
            if video.confidence:
                heights = [0.8 * confidence - 0.9 for _, _, confidence in video.confidence]
                axis.stairs(heights, edges, baseline=-0.9, fill=True, color=QUIET)
            axis.set_yticks([-0.5, *(place + 0.45 for place in range(len(given)))], ["confidence", *reversed(given)])
            axis.set_xlim(0, len(video.truth) / video.rate_hz)
            axis.set_title(shown(video.name, 100))
        axes[-1, 0].set_xlabel("seconds")
        from matplotlib.patches import Patch

        handles = [Patch(color=palette[label], label=shown(labels[label])) for label in seen]
        figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8)
        figure.tight_layout(rect=(0, 0.3 * legend_rows / height_inch, 1, 1))


def draw_confusion(path: Path, seconds: NDArray[np.floating], labels: Sequence[str]) -> None:
    """Each row is a true step and adds up to 100 %; steps that never occur are left out."""
    used = np.flatnonzero(seconds.sum(0) + seconds.sum(1)).tolist()
    share = seconds[np.ix_(used, used)]
    share = 100 * share / np.maximum(share.sum(1, keepdims=True), 1e-9)
    side_inch = 2.5 + 0.38 * len(used)
    with drawing(path, 1, 1, (side_inch + 0.6, side_inch)) as (figure, axes):
        axis = axes[0, 0]
        if used:
            axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        names = [shown(labels[label], 24) for label in used]
        axis.set_xticks(range(len(used)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(used)), names)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                ink = "white" if value > 55 else "0.15"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
        axis.set(xlabel="streamed", ylabel="truth", title="share of the true time, %")
        figure.tight_layout()


def draw_delays(path: Path, delays_s: Sequence[float]) -> None:
    """How long after the true boundary a transition was decided."""
    with drawing(path, 1, 1, (6, 3.6)) as (figure, axes):
        axis = axes[0, 0]
        axis.hist(delays_s, bins=30, color=BLUE, alpha=0.7)
        if len(delays_s):
            for quantile, line in ((50, "-"), (90, "--")):
                value = float(np.percentile(delays_s, quantile))
                axis.axvline(value, color="0.15", linestyle=line, label=f"p{quantile}: {value:.2f} s")
            axis.legend()
        axis.set(xlabel="decision less true boundary, s", ylabel="transitions", title=f"{len(delays_s)} transitions")
        figure.tight_layout()


def draw_reliability(path: Path, rows: Mapping[str, Rows]) -> None:
    """The share that was right over the mean confidence, in bins of equal counts. The diagonal is calibrated."""
    with drawing(path, 1, 1, (4.5, 4.5)) as (figure, axes):
        axis = axes[0, 0]
        axis.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
        for (name, bins), colour in zip(rows.items(), (BLUE, ORANGE), strict=False):
            axis.plot([row[0] for row in bins], [row[1] for row in bins], "o-", label=name, color=colour)
        axis.set(xlabel="confidence", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1.02))
        if rows:
            axis.legend(loc="upper left")
        figure.tight_layout()


def _draw_row(axis: Any, labels: NDArray[np.integer], rate_hz: float, place: int, palette: Sequence[Any]) -> None:
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    for start, stop in itertools.pairwise(cuts):
        span = [(start / rate_hz, (stop - start) / rate_hz)]
        axis.broken_barh(span, (place, 0.9), facecolors=palette[labels[start]])
