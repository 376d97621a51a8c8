"""Training, from ordered step lists to a run directory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_hal.calib.fit_decoder import check_given
from edge_hal.config import Config
from edge_hal.parallel import Workers
from edge_hal.progress import Progress

from .data.rates import with_model_rate
from .data.video_cache import VideoCache
from .data.video_set import VideoSet, without_order
from .encoders.choose import open_pretrained
from .encoders.pretrained import PretrainedEncoder, with_sizes
from .hmm.alignment_file import StoredAlignment, alignment_entries
from .networks.world import ALONE, World
from .outcome import encoder_of, held_out_of, provenance_of, reference_of
from .parent import Parent
from .run_directory import RunDirectory, identity_of, run_to_write
from .training import Training


def train(
    videos: VideoSet,
    config: Config,
    out: Path | None,
    seed: int,
    progress: Progress,
    alignment: StoredAlignment | None = None,
    *,
    task: Path | None = None,
    accept_damaged: bool = False,
    cache: VideoCache | None = None,
    world: World = ALONE,
    workers: Workers | None = None,
    parent: Parent | None = None,
) -> Path:
    """Train on `videos` and write a run directory, which is returned. An interrupted training resumes.

    A video may have labels of all its frames or of some; the rest is aligned with the transcripts.
    If all frames of all videos are labelled, nothing is aligned. With several processes, each returns when it is no
    longer needed; the run is complete when the first one returns.

    Args:
        out: the run directory. None: one in the task folder `task`, see `run_to_write`.
        alignment: the first alignment of the videos without labels; by default it is searched.
        accept_damaged: use video files whatever share of their frames is missing.
        cache: what was extracted from video files, and where to keep it; None: in temporary files.
        world: the processes of this training. All are called with the same arguments.
        workers: what searches the first alignment and extracts videos, in the first process; None: see
            `find_first_alignment` and `extract`.
        parent: the run that this one begins with.

    Raises:
        EdgeHalError: the data or the configuration are bad, `out` cannot be used, or `parent` is another model.
    """
    if config.learning.lists == "sets":
        videos = without_order(videos)
    check_given(config.decoder.given())
    config, pretrained = settled(config, videos, parent)
    begun = None if parent is None else parent.sha256
    if out is None:
        assert task is not None
        out = world.from_first(partial(run_to_write, task, config, seed, videos, alignment, begun))
    world.check_same(identity_of(config, seed, videos, alignment, begun))
    with RunDirectory(out, config, seed, videos, alignment, begun) as run:
        world.wait()  # all have looked at the directory before the first one writes into it

        training = Training(videos, config, run, seed, progress, cache, world, workers, pretrained, parent)
        seen = training.look(alignment, accept_damaged=accept_damaged)
        aligned = training.align(seen)
        copies = training.copies(seen)
        pyramid = training.learn(seen, aligned, copies)
        progress("decoder", 0, 1, "")
        streamed = training.stream(pyramid, seen, aligned, copies)
        if not world.first:
            return run.path
        decoder = training.decide(seen, aligned, streamed)
        progress("decoder", 1, 1, "")

        names = [recording.name for recording in seen.recordings]
        run.complete(
            config,
            pyramid,
            seen.front_end,
            decoder,
            provenance_of(config, seed, videos, training.stage("student").device)
            | encoder_of(config, pretrained, run.path)
            | ({} if parent is None else parent.provenance),
            reference_of(videos, config, seen.recordings, seen.vectors),
            alignment_entries(seen.recordings, aligned.labels, videos.labels, aligned.evidence),
            seen.familiarity,
            held_out_of(seen.spec, names, streamed, aligned.labels) if training.holds_out else None,
            aligned.worth,
        )
        return run.path


def settled(config: Config, videos: VideoSet, parent: Parent | None) -> tuple[Config, PretrainedEncoder | None]:
    """The configuration with everything that depends on the videos and the encoder, and the encoder if it is given.

    Raises:
        EdgeHalError: settings that contradict the videos, the encoder or the parent.
    """
    config.check()
    config = with_model_rate(config, videos)
    encoder, pretrained = config.model.encoder, None
    if parent is not None:
        parent.check_encoder(encoder)
    if encoder is not None and encoder.pretrained:
        pretrained = open_pretrained(encoder) if parent is None else parent.encoder(encoder.kind)
        config = with_sizes(config, pretrained)
    if parent is not None:
        parent.check_config(config, videos.labels)
    return config.complete(len(videos.videos)), pretrained
