"""`edge-hal extract`: write into the cache what a model sees of the videos of a folder."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.extras import require
from edge_hal.commands.options.workers import workers_of
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, no_folder

if TYPE_CHECKING:
    from edge_hal.config import Config
    from edge_hal.learning.data.extraction import Sampling
    from edge_hal.learning.data.video_set import Video
    from edge_hal.learning.parent import Parent


def extract(
    data: Annotated[Path, typer.Argument(readable=False, help="Task folder, or another folder with videos/.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A pretrained encoder, such as efficientnet-lite0@160 or onnx:FILE: extract its vectors (default: "
            "that of the configuration; for own, pictures).",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Preset or YAML file of the training: picture size and rate (default: as in train)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a key of the configuration, as in `edge-hal train`. Repeatable."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Videos that are read at once, or the address of a dask scheduler, tcp://HOST:8786, whose workers "
            "read them (default: one video for each core)."
        ),
    ] = None,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear",
            help="Empty the cache instead: .cache/ of a task folder, else the cache of all other folders.",
        ),
    ] = False,
) -> None:
    """Read all videos of a folder once, as the device will see them, and keep the result.

    `train`, `eval` and `calibrate` read it, and do the same for what is missing. With a pretrained encoder the
    augmented copies for training are extracted too, and `init` of task.yaml counts as in `train`. An interrupted
    extraction continues when the same command is run again. Memory does not grow with the length of a video.
    """
    from edge_hal.commands.options.train_inputs import choose_config, parent_of
    from edge_hal.commands.progress import Stages
    from edge_hal.learning.data.extraction import Sampling
    from edge_hal.learning.data.extraction import extract as read
    from edge_hal.learning.data.video_cache import cache_of

    if clear:
        given = {"--encoder": encoder, "--config": config, "--set": settings, "--workers": workers}
        for option, value in given.items():
            if value is not None:
                raise EdgeHalError(f"{option} with --clear", "nothing is extracted", "leave it out", exit_code=2)
    check_readable(data)
    if not data.is_dir():  # the cache of all other folders would be emptied
        raise EdgeHalError(f"{data} is no folder", no_folder(data), "name a folder with videos/", exit_code=2)
    cache = cache_of(data)
    if cache is None:
        raise EdgeHalError("there is no place for the cache", "see the warning above", "make the folder writable")
    if clear:
        print(f"{cache.clear() / 1e6:.1f} MB deleted: {cache.folder}")
        return
    overrides = [*(settings or []), *([] if encoder is None else [f"model.encoder.kind={encoder}"])]
    parent = parent_of(data, None)
    chosen = choose_config(data, config, overrides, None if parent is None else parent.model)
    if chosen.model.encoder is None:
        todo = "choose one with an encoder: --config tiny"
        raise EdgeHalError("the configuration has no frame encoder", "it reads features, not videos", todo, exit_code=2)
    videos, chosen = _videos(data, chosen)
    chosen_encoder = chosen.model.encoder
    assert chosen_encoder is not None
    if parent is not None:
        parent.check_encoder(chosen_encoder)
    elif chosen_encoder.int8:
        why = "train makes the int8 encoder from its training videos, so its vectors cannot be known before"
        raise EdgeHalError("model.encoder.int8 with extract", why, "run train, which keeps them", exit_code=2)
    with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:
        sampling = Sampling.of(chosen.model.hz, chosen_encoder.spec(chosen.model.hz))
        if chosen_encoder.pretrained:
            sampling = _sampling(chosen, Path(folder), parent)
        try:
            with workers_of(workers) as others, Stages() as report:
                found = read(videos, sampling, cache, partial(report, "extract", remark="ticks"), workers=others)
                for look in sampling.looks(chosen.copies)[1:]:
                    stage, remark = ("augment", f"copy {look.copy}") if look.copy else ("extract", "whole pictures")
                    read(videos, look, cache, partial(report, stage, remark=remark), workers=others)
        except KeyboardInterrupt:
            again = shlex.join(["edge-hal", *sys.argv[1:]])
            print(f"interrupted; run the same command again to continue:\n  {again}", file=sys.stderr)
            raise typer.Exit(130) from None
    shape = " x ".join(map(str, found[0].values.shape[1:]))
    kind = "vectors" if chosen_encoder.pretrained else "pictures"
    ticks = sum(len(each.values) for each in found)
    print(
        f"{len(videos)} videos, {ticks} ticks at {chosen.model.hz:g} a second, {kind} of {shape}: "
        f"{cache.folder} ({cache.bytes / 1e6:.1f} MB in all)"
    )
    for video, each in zip(videos, found, strict=True):
        if each.missing.share:
            print(f"warning: video {video.name}: {each.missing}", file=sys.stderr)


def _videos(data: Path, config: Config) -> tuple[list[Video], Config]:
    """All videos of the folder, whether they have step lists or not, and the configuration with the model's rate."""
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.media_files import read_times
    from edge_hal.learning.data.mstcn_files import index_media
    from edge_hal.learning.data.rates import with_model_rate
    from edge_hal.learning.data.video_set import Video

    files = index_media(data, "video")
    if config.model.model_hz is None:
        config = with_model_rate(config, load_dataset(data, split=None, part="train", rate_hz=config.data.rate_hz))
    times = {name: read_times(path, config.data.rate_hz) for name, path in sorted(files.items())}
    videos = [Video(name, files[name], "video", (), found.length, found.rate_hz) for name, found in times.items()]
    return videos, config


def _sampling(config: Config, folder: Path, parent: Parent | None) -> Sampling:
    """How the model sees videos, with the graph of the encoder as a run directory holds it, so that training finds its
    vectors. `parent`: the run that the training begins with, whose encoder it takes over."""
    require("torch", "onnx", "onnxscript")
    from edge_hal.learning.data.extraction import Sampling
    from edge_hal.learning.encoders.choose import open_pretrained

    assert config.model.encoder is not None
    encoder = config.model.encoder
    found = open_pretrained(encoder) if parent is None else parent.encoder(encoder.kind)
    graph = folder / "encoder.onnx"
    found.write(graph)
    seen = replace(encoder.spec(config.model.hz), height=found.spec.height, width=found.spec.width)
    return Sampling.of(config.model.hz, seen, graph)
