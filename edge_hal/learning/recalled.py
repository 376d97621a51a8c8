"""What the run that a training begins with says of the new videos, if it knows all their steps, and what the student
rehearses of the run's own videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .data.recordings import Labels
from .hmm.first_alignment import FirstAlignment
from .hmm.known_labels import KnownSegments, align_between
from .hmm.trust import Evidence
from .networks.held_out import streamed_posteriors
from .parent import Parent

UNKNOWN_LOG_P = -30.0


@dataclass(frozen=True)
class Shown:
    """What the student learns from; see `learn_student`."""

    features: Sequence[Tensor]
    labels: Sequence[Labels]
    teacher: Sequence[NDArray[np.float32]] | None
    copies: Sequence[Sequence[Tensor]]


@dataclass(frozen=True)
class Recalled:
    """What a run says of videos whose steps it knows.

    Attributes:
        log_posteriors: (T, K) per video.
        rehearsed: front-end features (T, 3 D) of the part of its own training videos that it kept, and its log
            posteriors (T, K) of them; None if they have steps that are no steps now.
    """

    alignment: FirstAlignment
    log_posteriors: list[NDArray[np.float32]]
    rehearsed: tuple[Tensor, NDArray[np.float32]] | None

    def with_rehearsed(self, shown: Shown) -> Shown:
        """With what is rehearsed. The posteriors are those of the run."""
        known = [] if self.rehearsed is None else [self.rehearsed]
        seen = [x for x, _ in known]
        return Shown(
            [*shown.features, *seen],
            [*shown.labels, *(log_p.argmax(1) for _, log_p in known)],
            [*self.log_posteriors, *(log_p for _, log_p in known)],
            [[*views, *seen] for views in shown.copies],
        )


@torch.inference_mode()
def recall(
    parent: Parent,
    vectors: Sequence[NDArray[np.float32]],
    labels: tuple[str, ...],
    lists: Sequence[Sequence[int]],
    known_segments: Sequence[KnownSegments | None] | None,
) -> Recalled | None:
    """What the run says of videos whose steps it knows; None if it does not know all of them.

    Args:
        vectors: (T, D) per video. labels: names of the steps. lists: the step list of each video.
        known_segments: (T,) per video, see `known_labels.py`.
    """
    known = parent.known(labels)
    if any(step not in known for steps in lists for step in steps):
        return None
    posteriors = [_log_posteriors(parent, x, known, len(labels)) for x in vectors]
    aligned, evidence = [], []
    for index, (log_p, steps) in enumerate(zip(posteriors, lists, strict=True)):
        segments = None if known_segments is None else known_segments[index]
        found = align_between(log_p, steps, np.full(len(log_p), -1) if segments is None else segments)
        aligned.append(found)
        evidence.append(Evidence(agreement=float((log_p.argmax(1) == found).mean())))
    seen = parent.checkpoint.reference.get("x")
    rehearsed = None
    if seen is not None and set(parent.spec.labels) <= set(labels):
        rehearsed = parent.front_end(torch.from_numpy(seen)), _log_posteriors(parent, seen, known, len(labels))
    return Recalled(FirstAlignment(aligned, evidence), posteriors, rehearsed)


def _log_posteriors(
    parent: Parent, x: NDArray[np.float32], known: Mapping[int, int], count: int
) -> NDArray[np.float32]:
    """(T, count) of vectors (T, D), at the time that they describe."""
    (heads,) = streamed_posteriors(parent.checkpoint.pyramid, [parent.front_end(torch.from_numpy(x))])
    frame = heads[:, : len(parent.spec.labels)]
    at = np.minimum(np.arange(len(x)) + parent.spec.lag_ticks, len(x) - 1)
    log_p = np.full((len(x), count), UNKNOWN_LOG_P, np.float32)
    log_p[:, list(known)] = frame[at][:, list(known.values())]
    return np.asarray(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
