"""The training data of the hidden Markov model: whitened videos, their step lists, and their known segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .em import Candidate, HmmConfig, most_likely_segments, segment_posteriors
from .transcript_chain import Batch

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Steps = tuple[int, ...]

BATCH = 12  # videos padded together: small enough for the cache
BATCH_CELLS = 4_000_000  # limit of frames x chain positions of a padded batch; a long video is a batch of its own
SEARCH_CELLS = 4_000_000  # limit of a video that the search fits hundreds of times


@dataclass(frozen=True)
class Problem:
    """Attributes:
    videos: (T_i, d) per video.
    lists: the step list of each video, labels 0 .. count - 1.
    known_segments: per video None, or (T_i,) the index in its list of the segment that each frame is known to belong
        to, -1 if it is not known.
    """

    videos: Sequence[Array]
    lists: Sequence[Steps]
    known_segments: Sequence[IndexArray | None]
    count: int
    config: HmmConfig

    def batches(self, chosen: Sequence[int] | None = None) -> list[Batch]:
        """The chosen videos (None: all) in a few padded batches."""
        config = self.config
        labelled = any(known is not None for known in self.known_segments)
        return [
            Batch(
                [self.videos[i] for i in ids],
                [self.lists[i] for i in ids],
                config.sub_states,
                self.count * config.sub_states if config.pause else None,
                [self.known_segments[i] for i in ids] if labelled else None,
            )
            for ids in self._groups(range(len(self.videos)) if chosen is None else chosen)
        ]

    def batch_order(self) -> list[int]:
        """Indices of the videos in the order in which the batches of all videos hold them."""
        return [i for ids in self._groups(range(len(self.videos))) for i in ids]

    def short(self) -> list[int]:
        """Indices of the videos that the search uses: all but those that are too long; if fewer than two remain, the
        two shortest."""
        cells = [self._cells(i) for i in range(len(self.videos))]
        found = [i for i, each in enumerate(cells) if each <= SEARCH_CELLS]
        return found if len(found) >= 2 else sorted(np.argsort(cells, kind="stable")[:2].tolist())

    def labels(self, models: Sequence[Candidate], batches: Sequence[Batch]) -> list[IndexArray]:
        """Labels (T_i,) of every video, by the sum of the segment posteriors of the models. `batches`: all videos."""
        posteriors = zip(*(segment_posteriors(batches, each.counts, self.config) for each in models), strict=True)
        found: list[IndexArray] = [np.zeros(0, np.int64)] * len(self.videos)
        for i, one in zip(self.batch_order(), posteriors, strict=True):
            found[i] = np.asarray(self.lists[i], np.int64)[most_likely_segments(*one)]
        return found

    def _cells(self, video: int) -> int:
        states = self.config.sub_states + self.config.pause
        return len(self.videos[video]) * states * len(self.lists[video])

    def _groups(self, chosen: Sequence[int]) -> list[list[int]]:
        """Videos sorted by length, in groups of at most `BATCH` videos and `BATCH_CELLS` cells, or of one video."""
        states = self.config.sub_states + self.config.pause
        groups: list[list[int]] = []
        for i in sorted(chosen, key=lambda i: len(self.videos[i])):
            group = [*groups[-1], int(i)] if groups else []
            longest = max((len(self.lists[j]) for j in group), default=0)
            cells = len(group) * len(self.videos[i]) * states * longest
            if group and len(group) <= BATCH and cells <= BATCH_CELLS:
                groups[-1] = group
            else:
                groups.append([int(i)])
        return groups
