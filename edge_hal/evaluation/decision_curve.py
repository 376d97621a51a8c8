"""The curve of `--decide`: what each probability at which a change is decided brings and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_hal.decoding.decision_scores import DECIDE_AT
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.plotting import BLUE, QUIET, drawing

from .checkpoint_scores import Streamed
from .live_scores import patience_scores
from .scores import Scores, frame_labels, frame_rates_hz

PANELS = (
    ("transition_f1", "transition F1 within 1 s"),
    ("f1_50", "segments F1@50, %"),
    ("mof_live", "frames right as shown live, %"),
    ("false_per_min", "false transitions per minute"),
)


def decision_curve(streamed: Streamed, videos: VideoSet) -> list[Scores]:
    """The scores of each of `DECIDE_AT` and of the settings of the checkpoint, in ascending order of `decide_at`."""
    spec, posteriors, decoder = streamed
    truth, rates_hz = frame_labels(videos), frame_rates_hz(videos)
    rows = []
    for at in sorted({*DECIDE_AT, *decoder.patience.values()}):
        scores = patience_scores(posteriors, truth, rates_hz, decoder.with_thresholds({"decide_at": at}), spec)
        rows.append({"decide_at": at, **scores})
    return rows


def draw_curve(path: Path, rows: Sequence[Scores], decoder: DecoderConfig) -> None:
    """Write the curve as PNG or SVG: four scores over the median delay. The settings of `--decide` are named."""
    shown = [row for row in rows if row["delay_s_median"] is not None]
    with drawing(path, 2, 2, (9, 6.5), sharex=True) as (figure, axes):
        for axis, (key, name) in zip(axes.flat, PANELS, strict=True):
            x, y = ([row[each] for row in shown] for each in ("delay_s_median", key))
            axis.plot(x, y, "o-", color=QUIET, markersize=3)
            for row in shown:
                if names := settings_at(row["decide_at"], decoder.patience):
                    axis.plot(row["delay_s_median"], row[key], "o", color=BLUE)
                    axis.annotate(names, (row["delay_s_median"], row[key]), xytext=(4, 4), textcoords="offset points")
            axis.set_title(name)
            axis.grid(alpha=0.3)
        for axis in axes[1]:
            axis.set_xlabel("median delay, s")
        figure.tight_layout()


def settings_at(decide_at: float, patience: Mapping[str, float]) -> str:
    """The names of the settings with this probability; they may coincide."""
    return ", ".join(name for name, value in patience.items() if value == decide_at)
