"""The run that a training begins with: its encoder and its pyramid are taken over, and learn other steps.

What depends on the steps is taken over for steps of the same name only: the rows of the heads. Everything else of the
pyramid is taken over whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from edge_hal.config import Config, Encoder, Learning, Level, Model
from edge_hal.encoder_kind import OWN
from edge_hal.errors import EdgeHalError
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import Checkpoint, load_checkpoint
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import PyramidSpec
from edge_hal.task_folder import MODEL_FILE

from .data.video_set import Video, VideoSet
from .encoders.pretrained import PretrainedEncoder
from .hmm.alignment_file import ALIGNMENT_FILE, StoredAlignment, read_alignment

HEADS = ("frame", "lagged", "action")
"""Layers whose rows belong to steps."""


NAMES = {"features": "features", "video": "video files"}
SLOWER = 0.5
"""Factor of the learning rate of the student where all steps are known: a high rate would overwrite what the run
knows."""
SAME = "the model is that of the run: leave out --config, --encoder and --set model..., also in task.yaml"


@dataclass(frozen=True)
class Parent:
    """Attributes:
    name: what is told of it later: the last two parts of its path at most.
    sha256: of its model file.
    """

    checkpoint: Checkpoint
    name: str
    sha256: str

    @property
    def spec(self) -> PyramidSpec:
        return self.checkpoint.spec

    @property
    def front_end(self) -> FrontEnd:
        return self.checkpoint.front_end

    def encoder(self, kind: str) -> PretrainedEncoder:
        """The frame encoder, as one that needs no training."""
        graph, spec = self.checkpoint.encoder, self.spec.encoder
        assert graph is not None and spec is not None

        def write(path: Path) -> None:
            shutil.copyfile(graph, path)

        return PretrainedEncoder(kind, spec, str(self._made_by.get("licence", "")), write)

    def trained_on(self, videos: Sequence[Video]) -> list[str]:
        """Names of the videos that the run was trained on: those of the same name and about the same length, since
        labels may have cut them. Raises EdgeHalError if its alignment cannot be read."""
        known = _aligned(self.checkpoint)

        def same(video: Video) -> bool:
            frames = known.get(video.name, {}).get("frames")
            hz = video.rate_hz or 0.0
            about = max(hz, 0.02 * video.length) + hz / self.spec.model_hz  # what labels cut, and the frames of a tick
            return isinstance(frames, int) and abs(frames - video.length) <= about

        return [video.name for video in videos if same(video)]

    @property
    def provenance(self) -> dict[str, Any]:
        """For the provenance of the new run."""
        return {"init": self.name, "init_sha256": self.sha256}

    @property
    def model(self) -> Model:
        """The section of the configuration that gives the same model."""
        spec = self.spec
        encoder = None
        if spec.encoder is not None:
            seen = asdict(spec.encoder)
            moving_s = seen.pop("moving") / spec.model_hz
            encoder = Encoder(kind=self.kind, int8=self.int8, moving_s=moving_s, **seen)
        return Model(
            model_hz=spec.model_hz,
            front_end_window_s=spec.front_end.window / spec.model_hz,
            clip=spec.front_end.clip,
            change_window_s=spec.change_window_s,
            lookback_s=spec.lookback_s,
            lag_s=spec.lag_s,
            other_lags_s=spec.other_lags_s,
            projected=spec.front_end.projected,
            baseline_s=spec.front_end.baseline / spec.model_hz,
            encoder=encoder,
            levels=tuple(Level(**asdict(level)) for level in spec.levels),
        )

    @property
    def _made_by(self) -> Mapping[str, Any]:
        """What the provenance says of the encoder."""
        found = self.checkpoint.provenance.get("encoder")
        return found if isinstance(found, dict) else {}

    @property
    def kind(self) -> str:
        """Of the frame encoder."""
        return str(self._made_by.get("kind", OWN))

    @property
    def int8(self) -> bool:
        """Whether the convolutions of the frame encoder are in 8 bits already."""
        return self._made_by.get("precision") == "int8"

    def check_kind(self, kind: str, data: Path) -> None:
        """Raises EdgeHalError if `data` has only recordings of a kind (features, video) that the run does not read."""
        reads = "features" if self.spec.encoder is None else "video"
        if kind != reads and not (data / ("features" if reads == "features" else "videos")).is_dir():
            why = f"it reads {NAMES[reads]}, and {data} has {NAMES[kind]}"
            raise EdgeHalError(f"cannot begin with {self.name}", why, "give a run of the same input", exit_code=2)

    def check_encoder(self, encoder: Encoder | None) -> None:
        """Raises EdgeHalError if the configuration asks for another encoder than that of the run."""
        own = None if self.spec.encoder is None else _precise(self.kind, self.int8)
        asked = None if encoder is None else _precise(encoder.kind, encoder.int8)
        if own != asked:
            there, here = (f"the encoder {kind}" if kind else "no encoder" for kind in (own, asked))
            why = f"it has {there}, and the configuration {here}"
            raise EdgeHalError(f"cannot begin with {self.name}", why, SAME, exit_code=2)

    def check(self, spec: PyramidSpec) -> None:
        """Raises EdgeHalError if a model of this table cannot take over the weights."""
        differing = _difference(self.spec, replace(spec, labels=self.spec.labels, background=self.spec.background))
        if differing is None:
            return
        size, own = spec.front_end.size, self.spec.front_end.size
        if size != own and spec.encoder is None:
            why = f"it reads vectors of {own} numbers, and these have {size}"
            raise EdgeHalError(f"cannot begin with {self.name}", why, "give a run of the same input", exit_code=2)
        name, there, here = differing
        raise EdgeHalError(
            f"cannot begin with {self.name}: it is another model",
            f"{name} is {_told(there)} there, and {_told(here)} here",
            SAME,
            exit_code=2,
        )

    def check_config(self, config: Config, labels: tuple[str, ...]) -> None:
        """As `check`, for features too, whose length is not known yet. The rate of the model is in `config`."""
        self.check(config.model.spec(labels, None, self.spec.front_end.size))

    def known(self, labels: tuple[str, ...]) -> dict[int, int]:
        """Number of each of `labels` that the run knows -> its number there."""
        return {new: self.spec.labels.index(name) for new, name in enumerate(labels) if name in self.spec.labels}

    def knows(self, videos: VideoSet) -> bool:
        """Whether it knows all steps of the lists."""
        known = self.known(videos.labels)
        return all(step in known for video in videos.videos for step in video.transcript)

    def begin(self, pyramid: Pyramid) -> None:
        """Copy the weights into a new pyramid. Rows of the heads of unknown steps keep their values."""
        old, new = self.checkpoint.pyramid.state_dict(), pyramid.state_dict()
        known = self.known(pyramid.spec.labels)
        for key, value in new.items():
            if key.split(".")[-2] not in HEADS:
                value.copy_(old[key])
                continue
            rows = value.unflatten(0, (-1, len(pyramid.spec.labels)))  # a row of each label for each lag
            kept = old[key].unflatten(0, (-1, len(self.spec.labels)))
            for to, of in known.items():
                rows[:, to] = kept[:, of]
        pyramid.load_state_dict(new)


def open_parent(run: Path) -> Parent:
    """The run directory `run`.

    Raises:
        EdgeHalError: it is no complete run, or it is damaged.
    """
    try:
        checkpoint = load_checkpoint(run)
        _aligned(checkpoint)
    except EdgeHalError as error:
        todo = "give the folder of a complete run, or a task folder that has one"
        raise EdgeHalError(f"cannot begin with {run}", f"{error.what}: {error.why}", todo, exit_code=2) from error
    folder = checkpoint.path.resolve()
    name = "/".join(folder.parts[-2:] if folder.name.isdecimal() else folder.parts[-1:])
    if folder.parent.name == "runs":
        name = "/".join(folder.parts[-3:])
    digest = hashlib.sha256((checkpoint.path / MODEL_FILE).read_bytes()).hexdigest()
    return Parent(checkpoint, name, digest)


def _aligned(checkpoint: Checkpoint) -> StoredAlignment:
    """The alignment of its videos, if it kept one. Raises EdgeHalError if it cannot be read."""
    path = checkpoint.path / ALIGNMENT_FILE
    return read_alignment(path) if path.is_file() else {}


def slower(learning: Learning) -> Learning:
    """With the learning rate for steps that are known."""
    student = learning.student
    return learning.model_copy(update={"student": student.model_copy(update={"lr": SLOWER * student.lr})})


def _precise(kind: str, int8: bool) -> str:
    return f"{kind} in int8" if int8 else kind


def _difference(one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """The first field in which two tables differ, with its value in both: of a table within a table, a field of that
    one."""
    for name in (field.name for field in fields(one)):
        first, second = getattr(one, name), getattr(other, name)
        if first == second:
            continue
        if is_dataclass(first) and type(first) is type(second):
            inner = _difference(first, second)
            assert inner is not None, "they differ"
            return f"{name}.{inner[0]}", inner[1], inner[2]
        return name, first, second
    return None


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_told(each) for each in value) or "none"
    return str(value)
