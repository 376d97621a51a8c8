"""What the steps of a training hand on: what the model sees, and which step that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.decoding.familiarity import Familiarity
from edge_hal.model.front_end import FrontEnd
from edge_hal.spec import PyramidSpec

from .data.background_swap import SwappedBackground
from .data.recordings import Labels, SampledRecording
from .hmm.trust import Evidence
from .label_worth import LabelWorth
from .recalled import Recalled
from .starter import Starter

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What the model sees of the training videos.

    Attributes:
        recordings: pictures, or vectors, at the ticks of the model.
        swapped: the pictures with swapped backgrounds, per video; none if the model does not learn from such.
        starter: finds the first alignment of them.
        vectors: (T, D) per video. features: (T, 3 D) of the front end per video.
        shown: the vectors that the alignment looks at.
        familiarity: the model of these vectors; None if it could not be fitted.
    """

    recordings: Sequence[SampledRecording]
    swapped: Sequence[SwappedBackground]
    spec: PyramidSpec
    starter: Starter
    vectors: list[Vectors]
    shown: list[Vectors]
    front_end: FrontEnd
    features: list[Tensor]
    familiarity: Familiarity | None


@dataclass(frozen=True)
class Aligned:
    """The steps of the training videos.

    Attributes:
        labels: (T,) per video.
        log_posteriors: (T, K) per video, of the teacher or of `recalled`; None if all labels were given.
        evidence: how well each video was aligned.
        worth: what labels would add.
        recalled: what the parent says of these videos, if it knows their steps.
    """

    labels: list[Labels]
    log_posteriors: list[Vectors] | None
    evidence: Sequence[Evidence]
    worth: LabelWorth | None
    recalled: Recalled | None
