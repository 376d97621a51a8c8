"""The offline teacher made to run live, as people do who have an offline model: again and again on a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.learning.hmm.alignment_file import first_alignment_from, read_alignment
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.teacher import learn_alignment, padded, pooled
from edge_hal.model.pyramid import Pyramid
from tests.helpers.lagging import lagging

from .harness import Data, Learnt, Look

FITTED_VIDEOS = 20
"""The thresholds are fitted on so many training videos: a pass for each token is slow."""
WINDOWS = 64


def learn_offline(data: Data, stage: Stage, run: Path) -> Learnt:
    """The product's teacher, trained on the alignment of `run`."""
    spec, learning = data.spec, data.config.learning
    labels = first_alignment_from(read_alignment(run / "alignment.json"), data.recordings, spec.labels).labels
    transcripts = [recording.transcript for recording in data.recordings]
    taught = {"realign_every": None, "warm_epochs": 6, "epochs": 14}  # whatever the preset makes of its teacher
    kept = learning.model_copy(update={"teacher": learning.teacher.model_copy(update=taught)})
    found = learn_alignment(data.features, transcripts, labels, spec, kept, stage)
    pyramid, period = found.teacher, found.period
    window = max(1, round(spec.receptive_field / period))

    def stream(x: Tensor) -> NDArray[np.float32]:
        return lagging(held(windowed(pyramid, pooled(x, period), window), period, len(x)), spec.lag_ticks)

    def offline(x: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            known = torch.log_softmax(pyramid(pooled(x, period)[None]).frame[0], -1).numpy()
        return lagging(np.repeat(known, period, 0)[: len(x)], spec.lag_ticks)

    def fitted(look: Look) -> DecoderConfig:
        some = data.features[:FITTED_VIDEOS]
        return fit_decoder([look(x) for x in some], labels[:FITTED_VIDEOS], spec, data.config.decoder.given())

    return Learnt(stream, fitted(stream), labels, (offline, fitted(offline)))


@torch.inference_mode()
def windowed(pyramid: Pyramid, tokens: Tensor, window: int) -> NDArray[np.float32]:
    """(n, F) -> log posteriors (n, K): token j from a pass of its own over the last `window` tokens, j included."""
    rows: list[Tensor] = []
    for first in range(0, len(tokens), WINDOWS):
        ends = range(first, min(first + WINDOWS, len(tokens)))
        x, exists = padded([tokens[max(0, end + 1 - window) : end + 1] for end in ends])
        newest = exists.sum(1) - 1
        rows.append(pyramid(x, exists).frame[torch.arange(len(x)), newest])
    return torch.log_softmax(torch.cat(rows), -1).numpy()


def held(log_p: NDArray[np.float32], period: int, ticks: int) -> NDArray[np.float32]:
    """(n, K) at tokens of `period` ticks -> (ticks, K): each tick sees the newest token complete at it; before the
    first nothing is known. (The token of an incomplete last bin is never seen.)"""
    newest = (np.arange(ticks) + 1) // period - 1
    unknown = np.full(log_p.shape[1], -np.log(log_p.shape[1]), np.float32)
    return np.where((newest >= 0)[:, None], log_p[np.maximum(newest, 0)], unknown)
