"""One baseline on one split: train where there is something to train, stream, score.

    python -m benchmarks.baselines gru-full DATA --split 1 --seed 0 [--config C] [--set data.rate_hz=30]

Prints one JSON object: streamed scores of the test videos, of the alignment of the training videos, of the floor,
and `train_s`. Feature streams only.

uniform: no training. gru-full, tcn-full: causal networks with all frame labels. viterbi-em: the TCN and Viterbi
alignment take turns, from the uniform split; emissions are posteriors over the actions' shares of the alignment, as
in NN-Viterbi (arXiv 1805.06875). cdfl: with it a discriminative forward loss, after CDFL (arXiv 1909.13155).
offline-window: the architecture of our teacher, which sees both ways, trained on the alignment of `--run` and run
again at each of its tokens over the last receptive field of our model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from edge_hal.commands.options.train_inputs import choose_config, load_videos
from edge_hal.commands.progress import Stages
from edge_hal.config import Config
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.scores import floor_scores
from edge_hal.learning.networks.optimise import Stage
from edge_hal.progress import Progress

from .causal import learn_supervised
from .harness import Data, Learnt, aligned_scores, read_data, streamed_scores
from .offline import learn_offline
from .weak import learn_viterbi_em

METHODS = ("uniform", "viterbi-em", "cdfl", "offline-window", "gru-full", "tcn-full")


def learn(method: str, data: Data, stage: Stage, run: Path | None) -> Learnt:
    torch.manual_seed(stage.seed)
    if method in ("viterbi-em", "cdfl"):
        return learn_viterbi_em(data, stage, discriminative=method == "cdfl")
    if method != "offline-window":
        return learn_supervised(method, data, stage)
    if run is None:
        raise EdgeHalError(f"{method} needs --run", "it learns the alignment of a run", exit_code=2)
    return learn_offline(data, stage, run)


def score(method: str, root: Path, config: Config, split: int, seed: int, run: Path | None, report: Progress) -> Any:
    """The object that is printed."""
    test = load_videos(root, config, split, "test", with_labels=True)
    train = load_videos(root, config, split, "train", with_labels=True)
    floors = {"floor": floor_scores(test), "alignment_floor": floor_scores(train)}
    if method == "uniform":
        return {**floors, "test": floors["floor"], "alignment": floors["alignment_floor"], "train_s": 0.0}
    began_s = time.monotonic()
    data = read_data(root, config, split, with_labels=method.endswith("-full"))
    with tempfile.TemporaryDirectory() as folder:
        learnt = learn(method, data, Stage(method, Path(folder), seed, report), run)
    result = {**floors, "train_s": time.monotonic() - began_s}
    result["test"] = streamed_scores(learnt.look, learnt.decoder, data, test)
    labels, hz = learnt.labels, data.spec.model_hz
    result["alignment"] = None if labels is None else aligned_scores(labels, hz, train)
    if learnt.offline is not None:
        result["offline"] = streamed_scores(*learnt.offline, data, test)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", help="preset or YAML file, as of edge-hal train")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--run", type=Path, help="run directory of edge-hal train (offline-window)")
    chosen = parser.parse_args()
    try:
        config = choose_config(chosen.data, chosen.config, chosen.settings)
        with Stages() as report:
            result = score(chosen.method, chosen.data, config, chosen.split, chosen.seed, chosen.run, report)
    except EdgeHalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
