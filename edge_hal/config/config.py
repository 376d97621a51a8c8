"""A whole configuration: model, data, learning and decoder."""

from __future__ import annotations

from typing import Literal

import yaml

from edge_hal.errors import EdgeHalError

from .learning import LEAST_MOVED, OFFSET, SHUFFLED, Learning
from .model import Model
from .section import Positive, Section


class Data(Section):
    """How the data are read. `rate_hz`: vectors per second of feature files (video files hold their own rate).
    `background`: the label that means no step. `layout`: axes of the feature arrays, DT or TD (features, time); None
    finds it from the shapes. `mistakes`: training videos in which the procedure was not followed. The steps are learned
    from them, the procedure is not."""

    rate_hz: Positive | None = None
    background: str | None = None
    layout: Literal["DT", "TD"] | None = None
    mistakes: tuple[str, ...] = ()


class Decoder(Section):
    """Thresholds of the decoder, as in `decoding.decoder_config.DecoderConfig`. Of those that are None some are fitted
    on the training alignment: `min_duration_s`, `decide_at` and `decide_hz` of the belief; `min_duration_s`, `lead_s`,
    `confirm_s` and `evidence_hz` of the Viterbi filter; `min_duration_s`, `lead_s`, `confirm_s` and `smooth_s` of
    hysteresis. All others have their default."""

    smooth_s: float | None = None
    confirm_s: float | None = None
    margin: float | None = None
    min_duration_s: float | None = None
    lead_s: float | None = None
    temperature: float | None = None
    evidence_hz: float | None = None
    decide_at: float | None = None
    decide_hz: float | None = None
    belief_hz: float | None = None
    free_order: float | None = None
    now_temperature: float | None = None
    unfamiliar_per_h: float | None = None

    def given(self) -> dict[str, float]:
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Config(Section):
    model: Model
    data: Data = Data()
    learning: Learning = Learning()
    decoder: Decoder = Decoder()

    def check(self) -> None:
        """Raises EdgeHalError (exit code 2) for a setting that has no effect beside another one."""
        if self.model.encoder is None and self.learning.student.copies:
            why = "augmented copies are made of pictures, and these are features"
            raise EdgeHalError("learning.student.copies has no effect here", why, "leave it out", exit_code=2)
        if self.learning.swap_backgrounds and not self._own_whole:
            why = "it is for an encoder of kind `own` that sees whole pictures"
            raise EdgeHalError("learning.swap_backgrounds has no effect here", why, "leave it out", exit_code=2)

    @property
    def _own_whole(self) -> bool:
        """Whether an encoder is trained here, and sees whole pictures."""
        encoder = self.model.encoder
        return encoder is not None and not encoder.pretrained and not encoder.moving_s

    @property
    def swap_backgrounds(self) -> bool:
        """Whether the model also learns from pictures with the background of another time."""
        given = self.learning.swap_backgrounds
        return self._own_whole if given is None else given

    @property
    def copies(self) -> int:
        """How many augmented copies of each video the student also sees."""
        given, encoder = self.learning.student.copies, self.model.encoder
        return int(encoder is not None and encoder.pretrained) if given is None else given

    @property
    def shuffled(self) -> float:
        """The share of the student's crops whose segments are in random order."""
        given, encoder = self.learning.student.shuffled, self.model.encoder
        return SHUFFLED * (encoder is not None and encoder.moving_s > 0) if given is None else given

    def complete(self, videos: int) -> Config:
        """With the settings of the student that depend on the encoder and the number of training videos."""
        encoder, given = self.model.encoder, self.learning.student.offset
        whole = encoder is not None and encoder.pretrained and not encoder.moving_s and not self.model.baseline_s
        moved = OFFSET * (whole and self.copies > 0 and videos >= LEAST_MOVED)
        found = {"copies": self.copies, "shuffled": self.shuffled, "offset": moved if given is None else given}
        student = self.learning.student.model_copy(update=found)
        learning = self.learning.model_copy(update={"student": student, "swap_backgrounds": self.swap_backgrounds})
        return self.model_copy(update={"learning": learning})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
