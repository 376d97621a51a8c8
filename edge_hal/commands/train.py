"""`edge-hal train`: ordered step lists in, a run directory out."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_hal.commands.extras import require

if TYPE_CHECKING:
    from edge_hal.config import Config
    from edge_hal.learning.dataset import VideoSet


def train(
    data: Annotated[Path, typer.Argument(help="Folder with features/ or videos/, and step lists.")],
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
    split: Annotated[int | None, typer.Option(help="Train on its train part (default: all videos).")] = None,
    config: Annotated[
        str | None, typer.Option(help="Preset or YAML file (default: kinematics for features, else tiny).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: data.rate_hz=30 (repeatable).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every random number.")] = 0,
    supervision: Annotated[
        str | None, typer.Option(help="transcripts: ordered step lists alone; frames: frame labels.")
    ] = None,
) -> None:
    """Learn from ordered step lists. Interrupted, the same command goes on where it stopped."""
    began_s = time.monotonic()
    chosen = choose_config(data, config, [*(settings or []), *_supervised(supervision)])
    videos = load_videos(data, chosen, split, "train", with_labels=chosen.learning.supervision == "frames")
    require("torch", "safetensors")
    if chosen.model.encoder is not None:
        require("onnx", "onnxscript")
    from edge_hal.commands.progress import Stages
    from edge_hal.learning.train import train as learn

    try:
        with Stages() as report:
            learn(videos, chosen, out, seed, report)
    except KeyboardInterrupt:
        again = shlex.join(["edge-hal", *sys.argv[1:]])
        print(f"interrupted; go on with the same command:\n  {again}", file=sys.stderr)
        raise typer.Exit(130) from None
    minutes, seconds = divmod(round(time.monotonic() - began_s), 60)
    print(f"trained on {len(videos)} videos in {minutes}:{seconds:02d}: {out}")
    print(f"next: edge-hal export --ckpt {shlex.quote(str(out))}")


def choose_config(data: Path, config: str | None, overrides: list[str]) -> Config:
    """The named configuration, or the preset that fits what `data` holds."""
    from edge_hal.config import load_config
    from edge_hal.learning.files import find_kind

    if config is None:
        config = "kinematics" if find_kind(data) == "features" else "tiny"
    return load_config(config, overrides)


def load_videos(
    data: Path,
    config: Config,
    split: int | None,
    part: Literal["train", "valid", "test"],
    *,
    with_labels: bool,
) -> VideoSet:
    """The videos the configuration asks for; what was assumed about them goes to standard error."""
    from edge_hal.learning.dataset import load_dataset

    videos = load_dataset(
        data,
        split=split,
        part=part,
        with_labels=with_labels,
        background=config.data.background,
        rate_hz=config.data.rate_hz,
        layout=config.data.layout,
        kind="features" if config.model.encoder is None else "video",
    )
    for note in videos.notes:
        print(f"note: {note}", file=sys.stderr)
    return videos


def _supervised(supervision: str | None) -> list[str]:
    return [] if supervision is None else [f"learning.supervision={supervision}"]
