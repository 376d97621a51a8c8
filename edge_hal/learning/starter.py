"""The first alignment of the training videos, on whatever vectors there are, with the labels that the user gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Config
from edge_hal.model.front_end import FrontEnd
from edge_hal.parallel import Workers
from edge_hal.progress import Progress

from .data.check_videos import check_lengths
from .data.recordings import Labels, SampledRecording
from .data.video_set import Video
from .hmm.first_alignment import FirstAlignment, find_first_alignment
from .hmm.known_labels import KnownSegments, known_segments_of, with_known
from .hmm.trust import Evidence
from .label_worth import HYPOTHESES, LabelWorth, label_worth
from .networks.world import ALONE, World


@dataclass(frozen=True)
class Starter:
    """Aligns the training videos.

    Attributes:
        transcripts: the step list of each video.
        user_labels: (T,) of each video that is labelled in full, else None.
        known_segments: (T,) of each video with labels, else None; None if all videos are labelled in full.
        stored: an alignment that was given; nothing is searched then.
        count: number of steps.
    """

    transcripts: Sequence[tuple[int, ...]]
    user_labels: Sequence[Labels | None]
    known_segments: Sequence[KnownSegments | None] | None
    stored: FirstAlignment | None
    count: int
    config: Config
    seed: int
    progress: Progress
    world: World = ALONE
    workers: Workers | None = None

    @classmethod
    def of(
        cls,
        recordings: Sequence[SampledRecording],
        stored: FirstAlignment | None,
        count: int,
        config: Config,
        seed: int,
        progress: Progress,
        world: World = ALONE,
        workers: Workers | None = None,
    ) -> Starter:
        """For these recordings.

        Raises:
            EdgeHalError: a video is too short for its step list, or its labels do not follow the list.
        """
        transcripts = [recording.transcript for recording in recordings]
        user_labels = [r.labels if r.labels is not None and (r.labels >= 0).all() else None for r in recordings]
        known_segments = None
        if any(labels is None for labels in user_labels):
            ticks = {recording.name: len(recording.inputs) for recording in recordings}
            check_lengths(ticks, {recording.name: recording.transcript for recording in recordings}, config)
            known_segments = [known_segments_of(recording) for recording in recordings]
        return cls(transcripts, user_labels, known_segments, stored, count, config, seed, progress, world, workers)

    @property
    def fully_labelled(self) -> bool:
        """Whether there is nothing to align."""
        return self.known_segments is None

    def with_user_labels(self, labels: Sequence[Labels]) -> list[Labels]:
        """`labels`, but those of the user where there are any."""
        found = [each if known is None else known for each, known in zip(labels, self.user_labels, strict=True)]
        for index, known in enumerate(self.known_segments or []):
            if known is not None and self.user_labels[index] is None:
                found[index] = with_known(found[index], self.transcripts[index], known)
        return found

    @property
    def searches(self) -> bool:
        """Whether `align` looks at the vectors: not all labels are known, and no alignment was given."""
        return self.stored is None and not self.fully_labelled

    def align(
        self, vectors: list[NDArray[np.float32]], front_end: FrontEnd, *, learned: bool, change: bool = True
    ) -> FirstAlignment:
        """Labels (T,) of each video, from vectors (T, D). The other arguments: as for `find_first_alignment`."""
        if self.fully_labelled:
            known = [labels for labels in self.user_labels if labels is not None]
            return FirstAlignment(known, [Evidence()] * len(known))
        found = self.stored or self.world.from_first(
            lambda: self._searched(
                vectors, front_end, self.known_segments, self.progress, learned=learned, change=change
            )
        )
        return replace(found, labels=self.with_user_labels(found.labels))

    def worth(
        self,
        videos: Sequence[Video],
        found: FirstAlignment,
        vectors: list[NDArray[np.float32]],
        front_end: FrontEnd,
        *,
        change: bool,
    ) -> LabelWorth | None:
        """What labels would add to `found`, which `align` made of the same arguments; None if there are no restarts
        to compare, and in all processes but the first."""
        if not self.world.first or len(found.restarts) < 2 or self.config.learning.lists != "exact":
            return None

        def align(known: Sequence[KnownSegments | None]) -> list[Labels]:
            given = self.known_segments or known
            both = [mine if mine is not None else theirs for mine, theirs in zip(known, given, strict=True)]
            return self._searched(vectors, front_end, both, _silent, learned=True, change=change).labels

        return label_worth(videos, found.labels, found.restarts[:HYPOTHESES], align, self.config.model.hz)

    def _searched(
        self,
        vectors: list[NDArray[np.float32]],
        front_end: FrontEnd,
        known: Sequence[KnownSegments | None] | None,
        progress: Progress,
        *,
        learned: bool,
        change: bool,
    ) -> FirstAlignment:
        return find_first_alignment(
            vectors,
            self.transcripts,
            self.count,
            self.config.model.hz,
            front_end,
            self.config.learning,
            self.seed,
            progress,
            known_segments=known,
            learned=learned,
            change=change,
            workers=self.workers,
        )


def _silent(*_: object) -> None:
    pass
