"""Configuration: a preset or a YAML file, with keys replaced by `--set a.b=c`. An unknown key is refused, and the error
names the nearest known one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_hal.config_keys import in_words, nearest_key, replace_key
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.encoder_kind import OWN, parse_kind
from edge_hal.errors import EdgeHalError
from edge_hal.spec import EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec, lag_in_ticks
from edge_hal.yaml_file import read_yaml

PRESETS = Path(__file__).parent / "configs"

Positive = Annotated[float, Field(gt=0, le=1e6)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Components = Annotated[int, Field(ge=0)]
Lists = Literal["exact", "noisy", "sets"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Level(Section):
    """One level of a pyramid, as in `spec.LevelSpec`."""

    stride: int = 1
    window: int
    width: int
    heads: int = 4
    blocks: int = 2

    def spec(self) -> LevelSpec:
        return LevelSpec(self.stride, self.window, self.width, self.heads, self.blocks)


class Encoder(Section):
    """The frame encoder (docs/encoders.md): pictures of `height` x `width` pixels in, vectors of `size` numbers out.
    `kind` is `own` or the name of a pretrained one, which has its own sizes. `weights`: the file of the weights, for a
    model of torchvision or timm. For an ONNX file that does not read uint8 BGR pictures: `layout` of its input (None
    finds it from the shape), `channels`, and `mean` and `std` of pixels in 0..255. `int8`: the convolutions of a
    pretrained one run in 8 bits, for CPUs. The student learns from their vectors, so export changes no event.
    `moving_s`: what has rested for most of these seconds is greyed before (`moving.py`); 0 for never."""

    kind: str = OWN
    height: int = 48
    width: int = 64
    size: int = 64
    weights: Path | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    channels: Literal["bgr", "rgb"] = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    int8: bool = False
    moving_s: Weight = 0.0

    @model_validator(mode="before")
    @classmethod
    def _without_onnx(cls, data: Any) -> Any:
        """`onnx: FILE` of earlier versions is `kind: onnx:FILE`."""
        if not isinstance(data, dict) or "onnx" not in data:
            return data
        data = dict(data)
        file = data.pop("onnx")
        return data if file in (None, "") else {**data, "kind": f"onnx:{file}"}

    @model_validator(mode="after")
    def _int8_is_pretrained(self) -> Encoder:
        if self.int8 and not self.pretrained:
            raise ValueError("int8 is for a pretrained encoder; `edge-hal export --precision int8` quantises `own`")
        return self

    @property
    def pretrained(self) -> bool:
        return self.kind != OWN

    def spec(self, hz: float) -> EncoderSpec:
        moving = max(1, round(self.moving_s * hz)) if self.moving_s > 0 else 0
        return EncoderSpec(self.height, self.width, self.size, moving)


class Model(Section):
    """The causal pyramid that runs on the device. `model_hz`: ticks per second; with None, training chooses the rate
    (`learning/data/rates.py`). `lag_s`: the posteriors at tick t describe time t - lag_s. `other_lags_s`: lags of
    further heads; those that round to the same tick as another are left out. `projected`: the number of principal
    components that the front end keeps of a vector; 0 keeps the vector. `baseline_s`: the seconds whose mean and
    deviation standardise the vectors once more (`model/front_end.py`); 0 for none. The other fields are those of
    `spec.PyramidSpec`; `front_end_window_s` is the front end's window in seconds."""

    model_hz: Positive | None = 10.0
    front_end_window_s: Positive = 0.5
    clip: Positive = 5.0
    change_window_s: Positive = 0.5
    lookback_s: Positive = 30.0
    lag_s: Weight = 0.6
    other_lags_s: tuple[Weight, ...] = (0.0, 0.3)
    projected: Components = 0
    baseline_s: Weight = 0.0
    encoder: Encoder | None = None
    levels: tuple[Level, ...]

    @property
    def hz(self) -> float:
        """`model_hz`, or 10 if training will choose it: the checks of a configuration do not depend on the rate."""
        return 10.0 if self.model_hz is None else self.model_hz

    @property
    def reads(self) -> Literal["features", "video"]:
        """What the model is trained on and runs on."""
        return "features" if self.encoder is None else "video"

    @property
    def front_end_ticks(self) -> int:
        return max(1, round(self.front_end_window_s * self.hz))

    @property
    def baseline_ticks(self) -> int:
        return max(2, round(self.baseline_s * self.hz)) if self.baseline_s > 0 else 0

    def spec(self, labels: tuple[str, ...], background: str | None, size: int) -> PyramidSpec:
        """The table of shapes for these labels and for input vectors of `size` numbers."""
        hz, encoder = self.hz, self.encoder
        return PyramidSpec(
            model_hz=hz,
            labels=labels,
            background=background,
            front_end=FrontEndSpec(size, self.front_end_ticks, self.clip, self.projected, self.baseline_ticks),
            levels=tuple(level.spec() for level in self.levels),
            encoder=None if encoder is None else encoder.spec(hz),
            change_window_s=self.change_window_s,
            lookback_s=self.lookback_s,
            lag_s=self.lag_s,
            other_lags_s=distinct_lags_s(self.other_lags_s, self.lag_s, hz),
        )


def distinct_lags_s(lags_s: Sequence[float], other_than_s: float, hz: float) -> tuple[float, ...]:
    """The lags in ascending order, without those that are the same number of ticks as another or as `other_than_s`."""
    first: dict[int, float] = {}
    for lag_s in sorted(lags_s):
        first.setdefault(lag_in_ticks(lag_s, hz), lag_s)
    return tuple(lag_s for ticks, lag_s in first.items() if ticks != lag_in_ticks(other_than_s, hz))


class Data(Section):
    """How the data are read. `rate_hz`: vectors per second of feature files (video files hold their own rate).
    `background`: the label that means no step. `layout`: axes of the feature arrays, DT or TD (features, time); None
    finds it from the shapes."""

    rate_hz: Positive | None = None
    background: str | None = None
    layout: Literal["DT", "TD"] | None = None


class Weights(Section):
    """Weights of the losses. The first six are those of arXiv 2602.24275. `lagged` is that of the mean of the heads
    with other lags."""

    video: Weight = 1.0
    frame: Weight = 1.0
    contrast: Weight = 0.1
    reconstruction: Weight = 0.1
    kl: Weight = 1e-3
    sparse: Weight = 1e-3
    action: Weight = 0.5
    change: Weight = 0.2
    distil: Weight = 0.5
    smooth: Weight = 0.15
    lagged: Weight = 0.5


class EncoderLearning(Section):
    """Training of the frame encoder on the labels of the starter, with `hz` frames per second."""

    epochs: Epochs = 8
    dropout: Share = 0.3
    hz: Positive = 2.0
    batch: Count = 64
    lr: Positive = 1e-3


class TeacherLearning(Section):
    """Training of the offline teacher at the alignment rate: `warm_epochs` on the labels of the starter, then `epochs`
    with a boundary alignment every `realign_every` epochs. With None the labels of the starter stay."""

    levels: tuple[Level, ...] = (
        Level(window=8, width=64),
        Level(stride=3, window=8, width=96),
    )
    warm_epochs: Epochs = 6
    epochs: Epochs = 14
    realign_every: Count | None = None
    batch: Count = 8
    lr: Positive = 1e-3


SHUFFLED = 0.5


class StudentLearning(Section):
    """Training of the causal pyramid on crops of `crop_s` seconds, with the labels of the teacher's alignment. It runs
    for `epochs`, and longer if the optimiser has then made fewer than `least_steps` steps (few videos give few steps
    per epoch). `noise` and `offset` augment the inputs. `shuffled`: the share of crops from videos whose segments are
    in random order; None is `SHUFFLED` for an encoder that sees moving parts, else 0. `copies`: how many augmented
    copies of each video it also sees (`learning/data/augmentation.py`); None is 1 for a pretrained encoder and 0 for
    `own`."""

    epochs: Epochs = 20
    least_steps: Epochs = 300
    batch: Count = 8
    crop_s: Positive = 40.0
    lr: Positive = 2e-3
    noise: Weight = 0.5
    offset: Weight = 0.0
    shuffled: Annotated[float, Field(ge=0, le=1)] | None = None
    copies: Components | None = None


class Learning(Section):
    """`supervision`: with `transcripts` training sees only ordered step lists, with `frames` a label for every frame.
    `labelled`: how many training videos (chosen with the seed), or which ones, have frame labels in addition; with
    `timestamps` one labelled frame per step. `align_hz`: rate of the teacher; None chooses it from the transcripts.
    `starter`: the method for the first labels; `hmm` searches from `restarts` initial guesses in `workers` processes
    (None: one per core). `lists`: `exact`; `noisy` if steps may be missing, additional or swapped; `sets` if order and
    repeats carry no information."""

    supervision: Literal["transcripts", "frames"] = "transcripts"
    lists: Lists = "exact"
    labelled: int | tuple[str, ...] = 0
    timestamps: bool = False
    starter: Literal["hmm", "uniform"] = "hmm"
    restarts: Count = 64
    workers: Count | None = None
    align_hz: Positive | None = None
    dropout: Share = 0.3
    weight_decay: Weight = 1e-2
    weights: Weights = Weights()
    encoder: EncoderLearning = EncoderLearning()
    teacher: TeacherLearning = TeacherLearning()
    student: StudentLearning = StudentLearning()


class Decoder(Section):
    """Thresholds of the decoder (`decoding.hysteresis.DecoderConfig`). Those that are None are fitted on the training
    alignment."""

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
    unfamiliar_per_h: float | None = None

    def given(self) -> dict[str, float]:
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Config(Section):
    model: Model
    data: Data = Data()
    learning: Learning = Learning()
    decoder: Decoder = Decoder()

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

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(source: str, overrides: Iterable[str] = (), model: Model | None = None) -> Config:
    """Load a preset (by name) or a YAML file, put `model` in the place of its own, and replace keys given as
    `a.b=value`.

    Raises:
        EdgeHalError: no such preset or file, bad YAML, an unknown key (named, with the nearest valid one), a
            value of the wrong type or out of range. Exit code 2.
    """
    path = PRESETS / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise EdgeHalError(f"no preset and no file '{source}'", "", f"presets: {names}", exit_code=2)
    data, _ = read_yaml(path, "learning: {restarts: 4}")
    if model is not None:
        data["model"] = model.model_dump(mode="json")
    overrides = list(overrides)
    for override in overrides:
        replace_key(Config, data, override)
    return parse_config(data, f"{source} with --set" if overrides else source)


def parse_config(data: Mapping[str, Any], where: str) -> Config:
    """Check a configuration. `where` names its source at the start of each error; see `load_config`."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A misspelt required key gives two errors, "missing" and "unknown key". The second one is more useful.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            todo = nearest_key(Config, first["loc"])
            raise EdgeHalError(f"{where}: unknown key '{key}'", "", todo, exit_code=2) from error
        raise EdgeHalError(f"{where}: '{key}'", in_words(first["msg"]), exit_code=2) from error
    # No default stride above level 0: a forgotten stride would silently be 1.
    for name, levels in (("model", config.model.levels), ("learning.teacher", config.learning.teacher.levels)):
        for index, level in enumerate(levels[1:], 1):
            if "stride" not in level.model_fields_set:
                raise EdgeHalError(f"{where}: {name}.levels[{index}] has no stride", "", "give it", exit_code=2)
    # Contradictions are reported now, not after minutes of training.
    encoder, model = config.model.encoder, config.model
    try:
        if encoder is not None and encoder.pretrained:  # its sizes are known when it is opened
            parse_kind(encoder.kind)
            model = model.model_copy(update={"encoder": None})
        size = max(1, model.projected) if model.encoder is None else model.encoder.size
        spec = model.spec(("any",), None, size)
        replace(spec, encoder=None, levels=tuple(level.spec() for level in config.learning.teacher.levels))
        DecoderConfig().changed(config.decoder.given())
    except EdgeHalError as error:
        raise EdgeHalError(f"{where}: {error.what}", error.why, error.todo, exit_code=2) from error
    return config
