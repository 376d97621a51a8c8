"""What decides, compared on one run: argmax, hysteresis, the Viterbi filter of 0.2, and the belief at each patience.

    python benchmarks/decisions.py DATA --ckpt RUN --split 1 [--json]

All rows read the same posteriors of the test videos. Hysteresis and the Viterbi filter are fitted as `edge-hal train`
did until 0.2: on the posteriors of training videos and the labels of the run's alignment. `us` is the median time of
one tick in microseconds; decoders that decide once per bin take it once per bin.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.fit_decoder import fit_older_decoder
from edge_hal.commands.evaluate import run_config
from edge_hal.commands.options.train_inputs import load_videos
from edge_hal.decoding.decision_scores import COLUMNS, Column, decision_scores, shown
from edge_hal.decoding.decode import follow_posteriors, split_heads
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import timeline_of
from edge_hal.evaluation.checkpoint_scores import Streamed, stream_checkpoint
from edge_hal.evaluation.live_scores import now_reports, reported_scores
from edge_hal.evaluation.scores import frame_labels, frame_rates_hz
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.data.video_set import VideoSet, with_labels_of
from edge_hal.learning.hmm.alignment_file import first_alignment_from, read_alignment
from edge_hal.learning.outcome import fitted_videos
from edge_hal.metrics import IntArray
from edge_hal.spec import PyramidSpec
from edge_hal.ticks import expand_labels


def older_decoders(run: Path, data: Path, split: int | None, spec: PyramidSpec) -> dict[str, DecoderConfig]:
    """Hysteresis and the Viterbi filter, fitted on the training videos of the run."""
    videos = load_videos(data, run_config(run, []), split, "train", with_labels=False)
    some = fitted_videos(len(videos))
    few = VideoSet(videos.labels, tuple(videos.videos[i] for i in some), videos.rate_hz, videos.background)
    recordings = read_recordings(few, spec.model_hz, spec.encoder)
    labels = first_alignment_from(read_alignment(run / "alignment.json"), recordings, videos.labels).labels
    posteriors = [split_heads(p, spec)[spec.lag_ticks] for p in stream_checkpoint(run, few).log_posteriors]
    return {
        "hysteresis": fit_older_decoder(posteriors, labels, spec, {"evidence_hz": 0.0}),
        "Viterbi filter (0.2)": fit_older_decoder(posteriors, labels, spec, {}),
    }


def decided(
    log_posteriors: NDArray[np.float32], config: DecoderConfig, spec: PyramidSpec
) -> tuple[list[Decision], float]:
    """The decisions of one video, and the median time of a tick at which one is due, in microseconds."""
    found, spent_us, began_s = [], [], time.perf_counter()
    for _, decision in follow_posteriors(log_posteriors, config, spec):
        now_s = time.perf_counter()
        spent_us.append(1e6 * (now_s - began_s))
        found += [] if decision is None else [decision]
        began_s = time.perf_counter()
    return found, float(np.median(spent_us))


def row(streamed: Streamed, config: DecoderConfig, truth: list[IntArray], rates_hz: list[float]) -> dict[str, Any]:
    spec = streamed.spec
    made = [decided(p, config, spec) for p in streamed.log_posteriors]
    timelines = [
        timeline_of(decisions, spec.model_hz, len(p), len(y), hz)
        for (decisions, _), p, y, hz in zip(made, streamed.log_posteriors, truth, rates_hz, strict=True)
    ]
    return {**decision_scores(timelines, truth, rates_hz), "us": float(np.median([us for _, us in made]))}


def shown_at_each_tick(
    labels: list[IntArray], truth: list[IntArray], rates_hz: list[float], model_hz: float
) -> dict[str, Any]:
    """Live accuracy and changes of labels (T,) that are shown at each tick, without correcting for a lag."""
    expanded = [expand_labels(x, len(y), hz, model_hz) for x, y, hz in zip(labels, truth, rates_hz, strict=True)]
    scores = reported_scores(expanded, truth, rates_hz)
    return {"mof_live": scores["mof_now"], "changes_per_min": scores["now_changes_per_min"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--split", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    loaded = load_videos(arguments.data, run_config(arguments.ckpt, []), arguments.split, "test", with_labels=True)
    first = stream_checkpoint(arguments.ckpt, with_labels_of(loaded, loaded.labels, "the run"))
    spec, decoder = first.spec, first.decoder
    truth, rates_hz = frame_labels(loaded), frame_rates_hz(loaded)
    main_heads = [split_heads(p, spec)[spec.lag_ticks] for p in first.log_posteriors]
    true_changes = sum(int((np.diff(y) != 0).sum()) for y in truth)
    minutes = sum(len(y) / hz for y, hz in zip(truth, rates_hz, strict=True)) / 60
    rows: dict[str, dict[str, Any]] = {"truth": {"changes_per_min": true_changes / minutes}}
    rows["argmax"] = shown_at_each_tick([p.argmax(1) for p in main_heads], truth, rates_hz, spec.model_hz)
    for name, config in older_decoders(arguments.ckpt, arguments.data, arguments.split, spec).items():
        rows[name] = row(first, config, truth, rates_hz)
    if decoder.procedure is not None:
        labels = [now_reports(p, decoder, spec)[0] for p in first.log_posteriors]
        rows["reports now"] = shown_at_each_tick(labels, truth, rates_hz, spec.model_hz)
    for name in decoder.patience:
        rows[f"belief, {name}"] = row(first, decoder.with_decide(name), truth, rates_hz)
    if arguments.json:
        print(json.dumps(rows))
        return
    columns = (*COLUMNS, Column("us", "us", 0, 0))
    print(f"{'':22}" + "".join(f"{column.heading:>13}" for column in columns))
    for name, values in rows.items():
        print(f"{name:22}" + "".join(f"{shown(values.get(column.key), column.digits):>13}" for column in columns))


if __name__ == "__main__":
    main()
