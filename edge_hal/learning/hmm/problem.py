"""What a hidden Markov model is fitted to: whitened videos, the list of each, and where it is pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .em import Candidate, StartConfig, beliefs, decode
from .transcript_chain import Batch

Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
Steps = tuple[int, ...]

BATCH = 12  # videos padded together: small enough for the cache
BATCH_CELLS = 4_000_000  # frames x chain positions of a padded batch: a long video stands alone
SEARCH_CELLS = 4_000_000  # of a video that a search can afford to fit hundreds of times


@dataclass(frozen=True)
class Problem:
    """`videos` (T_i, d), `lists` of steps 0 .. count - 1; `pins` (T_i,) per video: the segment of the list that each
    frame is known to be in, -1 where unknown, or None for the whole video."""

    videos: Sequence[Array]
    lists: Sequence[Steps]
    pins: Sequence[IndexArray | None]
    count: int
    config: StartConfig

    def batches(self, chosen: Sequence[int] | None = None) -> list[Batch]:
        """The chosen videos (None: all), padded together in a few batches."""
        config = self.config
        pinned = any(pin is not None for pin in self.pins)
        return [
            Batch(
                [self.videos[i] for i in ids],
                [self.lists[i] for i in ids],
                config.sub_states,
                self.count * config.sub_states if config.pause else None,
                [self.pins[i] for i in ids] if pinned else None,
            )
            for ids in self._groups(range(len(self.videos)) if chosen is None else chosen)
        ]

    def short(self) -> list[int]:
        """The videos to search with: all but those too long for it; where that leaves fewer than two, the two
        shortest."""
        cells = [self._cells(i) for i in range(len(self.videos))]
        found = [i for i, each in enumerate(cells) if each <= SEARCH_CELLS]
        return found if len(found) >= 2 else sorted(np.argsort(cells, kind="stable")[:2].tolist())

    def labels(self, models: Sequence[Candidate], batches: Sequence[Batch]) -> list[IndexArray]:
        """Labels (T_i,) of every video, by the sum of what the models believe; `batches` are those of all videos."""
        believed = zip(*(beliefs(batches, each.counts, self.config) for each in models), strict=True)
        found: list[IndexArray] = [np.zeros(0, np.int64)] * len(self.videos)
        order = (i for ids in self._groups(range(len(self.videos))) for i in ids)
        for i, one in zip(order, believed, strict=True):
            found[i] = np.asarray(self.lists[i], np.int64)[decode(*one)]
        return found

    def _cells(self, video: int) -> int:
        states = self.config.sub_states + self.config.pause
        return len(self.videos[video]) * states * len(self.lists[video])

    def _groups(self, chosen: Sequence[int]) -> list[list[int]]:
        """Videos by length, in groups of at most `BATCH` whose padded arrays stay within `BATCH_CELLS`, or of one."""
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
