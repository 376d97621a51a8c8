"""How well lists are aligned on the vectors of a pretrained encoder, by what the alignment sees of them.

    python benchmarks/encoders.py demo/data --split 1 --encoder efficientnet-lite0@160 --seed 0 --restarts 16

It reads the frame labels of the training videos, for the scores only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.rates import FIRST_ALIGN_HZ
from edge_hal.learning.data.recordings import Labels, read_recordings
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.learning.encoders.pretrained import with_sizes
from edge_hal.learning.hmm.align import align_with_hmm
from edge_hal.learning.hmm.em import HmmConfig
from edge_hal.learning.hmm.first_alignment import binned_features
from edge_hal.learning.projection import discriminants, leading_components
from edge_hal.metrics import transcript_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.spec import FrontEndSpec

Vectors = Sequence[NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--videos", type=int, default=32, help="the first training videos")
    parser.add_argument("--encoder", default="efficientnet-lite0@160")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=16)
    options = parser.parse_args()

    config = load_config("tiny", [f"model.encoder.kind={options.encoder}"])
    assert config.model.encoder is not None
    encoder = open_pretrained(config.model.encoder)
    config = with_sizes(config, encoder)
    found = load_dataset(options.data, split=options.split, part="train", with_labels=True, kind="video")
    vectors: list[NDArray[np.float32]] = []
    truth: list[Labels] = []
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "encoder.onnx")
        encoder.write(graph)
        for video in found.videos[: options.videos]:  # one at a time: their pictures would fill the memory
            one = VideoSet(found.labels, (video,), found.rate_hz, found.background)
            [recording] = read_recordings(one, config.model.hz, encoder.spec)
            assert recording.labels is not None
            vectors.append(encode_pictures(graph, np.asarray(recording.inputs, np.uint8)))
            truth.append(recording.labels)
    lists = [transcript_of(labels) for labels in truth]
    period = round(config.model.hz / FIRST_ALIGN_HZ)

    def align(name: str, seen: Vectors, *, pause: bool, change: bool = False) -> list[Labels]:
        front_end = FrontEnd(FrontEndSpec(seen[0].shape[1], config.model.front_end_ticks))
        settings = HmmConfig(pause=pause, agreement=0.8)
        features = binned_features(seen, front_end, period, change=change)
        made = align_with_hmm(
            features, lists, len(found.labels), seed=options.seed, restarts=options.restarts, config=settings
        )
        labels: list[Labels] = [np.repeat(row, period)[: len(x)] for row, x in zip(made.labels, seen, strict=True)]
        right = np.concatenate([a == b for a, b in zip(labels, truth, strict=True)]).mean()
        print(f"{name:52s}{100 * right:6.1f} % of the frames right", flush=True)
        return labels

    for count in (12, 16, 32, 48):
        align(f"{count} components", leading_components(vectors, count), pause=True)
    components = leading_components(vectors, 24)
    align("24 components, no shared state", components, pause=False)
    rough = align("24 components (first alignment)", components, pause=True)
    sharper = discriminants(vectors, rough)
    align("discriminants, shared state", sharper, pause=True)
    align("discriminants, with change", sharper, pause=False, change=True)
    align("discriminants (second alignment)", sharper, pause=False)


if __name__ == "__main__":
    main()
