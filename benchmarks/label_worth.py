"""The estimate of what labels are worth, beside what they bring.

    python benchmarks/label_worth.py vts --split 1 --rate-hz 30 [--seed 0] [--restarts 64]
    python benchmarks/label_worth.py actrectut --split 1 --rate-hz 32

The estimate is what `train` writes into `labels.json` of a run, from step lists alone. What labels bring is computed in
the same way, with the true labels of the named videos and against the true labels of all: the first alignment of all
training videos, aligned again. Prints one JSON object. Feature streams only.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from learning import _origin

from edge_hal.config import load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.rates import with_model_rate
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.hmm.first_alignment import FirstAlignment
from edge_hal.learning.projection import fitted_front_end
from edge_hal.learning.starter import Starter
from edge_hal.spec import FrontEndSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rate-hz", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=64)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    settings = [f"learning.restarts={chosen.restarts}", "learning.workers=1"]
    videos = load_dataset(
        chosen.data, split=chosen.split, part="train", with_labels=True, rate_hz=chosen.rate_hz, kind="features"
    )
    config = with_model_rate(load_config("kinematics", settings), videos)
    recordings = read_recordings(videos, config.model.hz, None)
    truth = [recording.labels for recording in recordings if recording.labels is not None]
    unlabelled = [replace(recording, labels=None) for recording in recordings]
    starter = Starter.of(unlabelled, None, len(videos.labels), config, chosen.seed, lambda *_: None)
    vectors = [np.asarray(recording.inputs, np.float32) for recording in recordings]
    front_end = fitted_front_end(FrontEndSpec(vectors[0].shape[1], config.model.front_end_ticks), vectors)
    found = starter.align(vectors, front_end, learned=True)
    estimate = starter.worth(videos.videos, found, vectors, front_end, change=True)
    real = starter.worth(
        videos.videos, FirstAlignment(found.labels, found.evidence, [truth, truth]), vectors, front_end, change=True
    )
    assert estimate is not None and real is not None
    pairs = zip(estimate.gains, real.gains, strict=True)
    gains = [
        {
            "minutes": told.minutes,
            "at_least": round(told.frames_right - estimate.frames_right, 3),
            "at_most": round(told.at_most - estimate.frames_right, 3),
            "true": round(was.at_most - real.frames_right, 3),
        }
        for told, was in pairs
    ]
    cell = {"data": chosen.data.resolve().name, "split": chosen.split, "seed": chosen.seed, "restarts": chosen.restarts}
    now = {"estimated": estimate.frames_right, "true": real.frames_right}
    print(json.dumps({**cell, "now": now, "gains": gains, "videos": estimate.videos, **_origin()}))


if __name__ == "__main__":
    main()
