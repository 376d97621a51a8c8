"""Training, from ordered step lists to a run directory.

The steps: read the videos, find a first alignment (of thumbnails, to train the frame encoder; of the vectors of a
pretrained one, to find the directions that tell the steps apart), encode the pictures, find an alignment of the
vectors, train the teacher, which improves it, train the causal student, and fit the decoder.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.calib.fit_decoder import check_given, fit_decoder
from edge_hal.calib.fit_familiarity import LEAST_VIDEOS, PER_H, fit_familiarity
from edge_hal.config import Config
from edge_hal.decoding.decode import split_heads
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.features import first_pictures
from edge_hal.held_out_file import HeldOut
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import ENCODER_FILE
from edge_hal.parallel import Workers
from edge_hal.progress import Progress
from edge_hal.spec import FrontEndSpec, PyramidSpec

from .alignment_file import StoredAlignment, alignment_entries, first_alignment_from
from .data.check_features import check_features
from .data.dataset import VideoSet, without_order
from .data.extraction import Sampling
from .data.rates import with_model_rate
from .data.recordings import SampledRecording
from .data.video_cache import VideoCache
from .encoders.int8_encoder import quantise_encoder
from .encoders.pretrained import PretrainedEncoder, open_pretrained, with_sizes
from .encoders.train_encoder import learn_encoder
from .hmm.first_alignment import thumbnail_vectors
from .inputs import copies_of, encode_together, read_together
from .networks.held_out import held_out_posteriors, streamed_posteriors
from .networks.optimise import Stage
from .networks.student import learn_student
from .networks.teacher import learn_alignment
from .networks.world import ALONE, World
from .parent import Parent, slower
from .projection import STARTER_COMPONENTS, discriminants, fitted_front_end, leading_components
from .run_directory import RunDirectory, identity_of, run_to_write
from .starter import Starter

log = logging.getLogger("edge_hal.data")

REFERENCE_TICKS = 3000
REFERENCE_PICTURES = 64
FITTED_VIDEOS = 24
"""The thresholds are fitted on at most this many training videos. The procedure is learned from all."""
LEAST_HELD_OUT = 4
"""With fewer videos none is held out, and the settings of `--decide` are not fitted."""


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
    config = with_model_rate(config, videos)
    encoder, pretrained = config.model.encoder, None
    if encoder is None and config.learning.student.copies:
        why = "augmented copies are made of pictures, and these are features"
        raise EdgeHalError("learning.student.copies has no effect here", why, "leave it out", exit_code=2)
    if parent is not None:
        parent.check_encoder(encoder)
    if encoder is not None and encoder.pretrained:
        pretrained = open_pretrained(encoder) if parent is None else parent.encoder(encoder.kind)
        config = with_sizes(config, pretrained)
    if parent is not None:  # the length of feature vectors is not known yet
        size = parent.spec.front_end.size if config.model.encoder is None else config.model.encoder.size
        parent.check(config.model.spec(videos.labels, None, size))
    begun = None if parent is None else parent.sha256
    if out is None:
        assert task is not None
        out = world.from_first(partial(run_to_write, task, config, seed, videos, alignment, begun))
    world.check_same(f"{__version__} {torch.__version__} {identity_of(config, seed, videos, alignment, begun)}")
    run, learning = RunDirectory(out, config, seed, videos, alignment, begun), config.learning

    def stage(name: str) -> Stage:
        return Stage(name, run.last, seed, progress, world=world)

    picture = None if config.model.encoder is None else config.model.encoder.spec()
    with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:
        graph = None
        if pretrained is not None:
            graph = Path(folder, ENCODER_FILE)
            pretrained.write(graph)
            if parent is None and config.model.encoder is not None and config.model.encoder.int8:
                quantise_encoder(graph, pretrained.spec, videos.videos, config.model.hz)
        recordings = read_together(
            videos, config.model.hz, picture, graph, cache, progress, world, workers, accept_damaged=accept_damaged
        )
        if picture is None:
            for note in check_features(videos, recordings):
                log.warning(note)
        background = None if videos.background is None else videos.labels[videos.background]
        size = recordings[0].inputs.shape[1] if picture is None else picture.size
        spec = config.model.spec(videos.labels, background, size)
        if parent is not None:
            parent.check(spec)
        stored = None if alignment is None else first_alignment_from(alignment, recordings, videos.labels)
        starter = Starter.of(recordings, stored, len(videos.labels), config, seed, progress, world, workers)
        world.from_first(run.begin)
        run.check_begun()
        if graph is not None and world.first:
            shutil.copyfile(graph, run.path / ENCODER_FILE)

    def unscaled(vectors: list[NDArray[np.float32]]) -> FrontEnd:
        return FrontEnd(FrontEndSpec(vectors[0].shape[1], config.model.front_end_ticks))

    if picture is None or pretrained is not None:
        vectors = [np.asarray(recording.inputs, np.float32) for recording in recordings]
    elif parent is not None:
        assert config.model.encoder is not None
        own = parent.encoder(config.model.encoder.kind)
        world.from_first(lambda: own.write(run.path / ENCODER_FILE))
        vectors = encode_together(recordings, run.path / ENCODER_FILE, progress, world)
    else:
        from edge_hal.export.graphs import export_encoder  # needs onnx, which features do not

        thumbnails = thumbnail_vectors(recordings)
        rough = starter.align(thumbnails, unscaled(thumbnails), learned=False).labels
        module = learn_encoder(recordings, rough, picture, starter.count, config.model.hz, learning, stage("encoder"))
        world.from_first(lambda: export_encoder(module, picture, run.path / ENCODER_FILE))
        vectors = encode_together(recordings, run.path / ENCODER_FILE, progress, world)
    familiarity = _familiarity(recordings, vectors, config)
    front_end = fitted_front_end(spec.front_end, vectors) if parent is None else parent.front_end
    features = [front_end(torch.from_numpy(x)) for x in vectors]

    recalled = None
    if parent is not None and stored is None and learning.lists == "exact" and not starter.fully_labelled:
        recalled = parent.recalled(vectors, videos.labels, starter.transcripts, starter.known_segments)
    if recalled is not None:
        starter = replace(starter, stored=recalled.alignment)
    if pretrained is not None and recalled is None:  # the starter sees what the model sees
        components = leading_components(vectors, STARTER_COMPONENTS)
        rough = starter.align(components, unscaled(components), learned=False).labels
        sharper = discriminants(vectors, rough)
        seen, scaled, change = sharper, unscaled(sharper), False
    else:
        # The last layer of our own encoder normalises its vectors. All others have the scale of their source.
        seen, scaled, change = vectors, front_end if picture is None else unscaled(vectors), True
    found = starter.align(seen, scaled, learned=True, change=change)
    worth = starter.worth(videos.videos, found, seen, scaled, change=change)
    labels, posteriors = found.labels, None if recalled is None else recalled.log_posteriors
    if recalled is None and not starter.fully_labelled:
        if learning.lists != "exact" or stored is not None:
            starter = replace(starter, transcripts=[transcript_of(label) for label in labels])
        taught = learn_alignment(
            features, starter.transcripts, labels, spec, learning, stage("teacher"), starter.known_segments
        )
        labels, posteriors = starter.with_user_labels(taught.labels), taught.log_posteriors
    copies = []
    if picture is not None:
        sampling = Sampling(config.model.hz, picture.height, picture.width, run.path / ENCODER_FILE)
        made = copies_of(videos, recordings, sampling, config.copies, cache, progress, world, workers)
        copies = [[front_end(torch.from_numpy(x)) for x in copy] for copy in made]
    begin = None if parent is None else parent.begin
    if recalled is None:
        pyramid = learn_student(features, labels, posteriors, spec, learning, stage("student"), copies, begin)
    else:
        learning = slower(learning)
        shown = recalled.shown(features, labels, copies)
        pyramid = learn_student(**shown, spec=spec, config=learning, stage=stage("student"), begin=begin)

    progress("decoder", 0, 1, "")
    held_out = len(features) >= LEAST_HELD_OUT
    if held_out:
        streamed = held_out_posteriors(features, labels, posteriors, spec, learning, stage, copies, begin)
    else:
        streamed = streamed_posteriors(pyramid, features, world)
    if not world.first:
        return run.path
    some = np.linspace(0, len(features) - 1, min(FITTED_VIDEOS, len(features))).round().astype(int)
    decoder = fit_decoder(
        [streamed[i] for i in some],
        [labels[i] for i in some],
        spec,
        config.decoder.given(),
        procedure=labels_of_whole(labels, videos),
        held_out=held_out,
    )
    if familiarity is not None:
        decoder = replace(decoder, unfamiliar_per_h=config.decoder.given().get("unfamiliar_per_h", PER_H))
    progress("decoder", 1, 1, "")
    run.complete(
        config,
        pyramid,
        front_end,
        decoder,
        _provenance(config, seed, videos, stage("student").device)
        | _encoder_of(config, pretrained, run.path)
        | ({} if parent is None else parent.provenance),
        _reference(videos, config, recordings, vectors),
        alignment_entries(recordings, labels, videos.labels, found.evidence),
        familiarity,
        _held_out(spec, [recordings[i].name for i in some], [streamed[i] for i in some], [labels[i] for i in some])
        if held_out
        else None,
        worth,
    )
    return run.path


def _held_out(
    spec: PyramidSpec,
    names: Sequence[str],
    log_posteriors: Sequence[NDArray[np.float32]],
    labels: Sequence[IntArray],
) -> HeldOut:
    main = (split_heads(rows, spec)[spec.lag_ticks] for rows in log_posteriors)
    rows = dict(zip(names, main, strict=True))
    return HeldOut(spec.labels, spec.model_hz, spec.lag_ticks, rows, dict(zip(names, labels, strict=True)))


def labels_of_whole(labels: Sequence[IntArray], videos: VideoSet) -> list[IntArray]:
    """The labels of the whole videos, from which the procedure is learned; all labels, if those lack a step."""
    whole = [found for found, video in zip(labels, videos.videos, strict=True) if video.whole]
    if not whole or set(np.unique(np.concatenate(list(labels)))) - set(np.unique(np.concatenate(whole))):
        return list(labels)
    return whole


def _familiarity(
    recordings: Sequence[SampledRecording], vectors: Sequence[NDArray[np.float32]], config: Config
) -> Familiarity | None:
    """The model of the vectors of training. Raises EdgeHalError if its rate is given and nothing can be fitted."""
    found = fit_familiarity({r.name: x for r, x in zip(recordings, vectors, strict=True)}, config.model.hz)
    if found is None:
        why = f"it needs {LEAST_VIDEOS} videos that are long enough"
        if config.decoder.unfamiliar_per_h:
            what = "decoder.unfamiliar_per_h has no effect here"
            raise EdgeHalError(what, why, "leave it out", exit_code=2)
        log.warning("unfamiliar input will not be reported: %s", why)
    return found


def _encoder_of(config: Config, pretrained: PretrainedEncoder | None, run: Path) -> dict[str, Any]:
    """For the provenance: which encoder made the vectors, and under which licence its weights are."""
    if config.model.encoder is None:
        return {}
    licence = {} if pretrained is None else {"licence": pretrained.licence}
    precision = {"precision": "int8"} if config.model.encoder.int8 else {}
    digest = hashlib.sha256((run / ENCODER_FILE).read_bytes()).hexdigest()
    return {"encoder": {"kind": config.model.encoder.kind, "sha256": digest, **licence, **precision}}


def _reference(
    videos: VideoSet, config: Config, recordings: Sequence[SampledRecording], vectors: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    reference: dict[str, NDArray[Any]] = {"x": np.concatenate(vectors)[:REFERENCE_TICKS]}
    if recordings[0].inputs.ndim == 4:
        reference["pictures"] = recordings[0].inputs[:REFERENCE_PICTURES]
    elif config.model.encoder is not None:
        eye, first = config.model.encoder, videos.videos[0]
        pictures = first_pictures(first.path, config.model.hz, eye.height, eye.width, REFERENCE_PICTURES, first.rate_hz)
        reference["pictures"] = pictures[: len(vectors[0])]
    return reference


def _provenance(config: Config, seed: int, videos: VideoSet, device: torch.device) -> dict[str, Any]:
    return {
        "edge_hal": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "supervision": config.learning.supervision,
        "seed": seed,
        "device": device.type,
        "videos": len(videos),
        "labelled": sum(video.labels is not None for video in videos.videos),
    }
