"""The steps of a training. `train.py` says in which order they follow each other."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_hal.calib.fit_familiarity import LEAST_VIDEOS, fit_familiarity
from edge_hal.config import Config, Learning
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.metrics import transcript_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import ENCODER_FILE
from edge_hal.model.pyramid import Pyramid
from edge_hal.parallel import Workers
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.progress import Progress
from edge_hal.spec import EncoderSpec, FrontEndSpec, PyramidSpec

from .data.background_swap import SwappedBackground, swapped_backgrounds
from .data.check_features import check_features
from .data.extraction import Sampling
from .data.recordings import Labels, SampledRecording
from .data.step_texts import count_of
from .data.video_cache import VideoCache
from .data.video_set import VideoSet
from .encoders.int8_encoder import quantise_encoder
from .encoders.pretrained import PretrainedEncoder
from .encoders.small_encoder import LEAST_REFINED, small_encoder_vectors
from .encoders.train_encoder import learn_encoder
from .fitted_decoder import fitted_decoder
from .handed_on import Aligned, Seen, Vectors
from .hmm.alignment_file import StoredAlignment, first_alignment_from
from .hmm.first_alignment import thumbnail_vectors
from .inputs import copies_of, encode_together, read_together
from .networks.held_out import held_out_posteriors, streamed_posteriors
from .networks.optimise import Stage
from .networks.student import learn_student
from .networks.teacher import learn_alignment
from .networks.world import World
from .parent import Parent, slower
from .projection import STARTER_COMPONENTS, discriminants, fitted_front_end, leading_components
from .recalled import Shown, recall
from .run_directory import RunDirectory
from .starter import Starter

log = logging.getLogger("edge_hal.data")

LEAST_HELD_OUT = 4
"""With fewer videos none is held out, and the settings of `--decide` are not fitted."""


@dataclass(frozen=True)
class Training:
    """One training. Each step takes what the earlier ones found.

    Attributes:
        config: complete, see `settled`.
        pretrained: the encoder that was given, which may be that of `parent`; None if it is trained here, or if there
            is none.
        The others: as for `train`.
    """

    videos: VideoSet
    config: Config
    run: RunDirectory
    seed: int
    progress: Progress
    cache: VideoCache | None
    world: World
    workers: Workers | None
    pretrained: PretrainedEncoder | None
    parent: Parent | None

    def stage(self, name: str) -> Stage:
        return Stage(name, self.run.last, self.seed, self.progress, world=self.world)

    # --- what the model sees --------------------------------------------------------------------

    def look(self, alignment: StoredAlignment | None, *, accept_damaged: bool) -> Seen:
        """Read the videos, begin the run, and compute the vectors. Our own encoder is trained for that, on the labels
        of a first alignment of thumbnails."""
        recordings, spec, starter = self._read(alignment, accept_damaged=accept_damaged)
        swapped = swapped_backgrounds(recordings, self.config, self.seed)
        vectors, shown = self._vectors(recordings, swapped, starter)
        familiarity = self._familiarity(recordings, vectors, spec.front_end.unread)
        parent = self.parent
        front_end = fitted_front_end(spec.front_end, vectors) if parent is None else parent.front_end
        features = [front_end(torch.from_numpy(x)) for x in vectors]
        return Seen(recordings, swapped, spec, starter, vectors, shown, front_end, features, familiarity)

    def _read(
        self, alignment: StoredAlignment | None, *, accept_damaged: bool
    ) -> tuple[list[SampledRecording], PyramidSpec, Starter]:
        videos, config, world, encoder = self.videos, self.config, self.world, self.config.model.encoder
        picture, graph = None if encoder is None else encoder.spec(config.model.hz), None
        with tempfile.TemporaryDirectory(prefix="edge-hal.") as folder:
            if self.pretrained is not None:
                graph = Path(folder, ENCODER_FILE)
                self.pretrained.write(graph)
                if self.parent is None and picture is not None and encoder is not None and encoder.int8:
                    quantise_encoder(graph, picture, videos.videos, config.model.hz)
            recordings = read_together(
                *(videos, config.model.hz, picture, graph, self.cache, self.progress, world, self.workers),
                accept_damaged=accept_damaged,
            )
            if picture is None:
                for note in check_features(videos, recordings):
                    log.warning(note)
            background = None if videos.background is None else videos.labels[videos.background]
            spec = config.model.spec(videos.labels, background, recordings[0].inputs.shape[1])
            if self.parent is not None:
                self.parent.check(spec)
            stored = None if alignment is None else first_alignment_from(alignment, recordings, videos.labels)
            count, more = len(videos.labels), (self.progress, world, self.workers)
            starter = Starter.of(recordings, stored, count, config, self.seed, *more)
            world.from_first(self.run.begin)
            self.run.check_begun()
            if graph is not None and world.first:
                shutil.copyfile(graph, self.run.path / ENCODER_FILE)
        return recordings, spec, starter

    def _vectors(
        self, recordings: list[SampledRecording], swapped: list[SwappedBackground], starter: Starter
    ) -> tuple[list[Vectors], list[Vectors]]:
        """The vectors of the recordings, and those that the alignment looks at."""
        encoder, world, graph = self.config.model.encoder, self.world, self.run.path / ENCODER_FILE
        if encoder is None or self.pretrained is not None:
            vectors = [np.asarray(recording.inputs, np.float32) for recording in recordings]
            return vectors, vectors
        picture, shown = encoder.spec(self.config.model.hz), None
        if self.parent is not None:
            own = self.parent.encoder(encoder.kind)
            world.from_first(lambda: own.write(graph))
        else:
            from edge_hal.export.graphs import export_encoder  # needs onnx, which features do not

            labels, shown = self._rough(recordings, starter, picture)
            rest = (starter.count, self.config.model.hz, self.config.learning, self.stage("encoder"))
            module = learn_encoder(recordings, labels, picture, *rest, swapped)
            world.from_first(lambda: export_encoder(module, picture, graph))
        vectors = encode_together(recordings, graph, self.progress, world)
        return vectors, [x[:, : picture.size] for x in vectors] if shown is None else shown

    def _rough(
        self, recordings: list[SampledRecording], starter: Starter, picture: EncoderSpec
    ) -> tuple[list[Labels], list[Vectors] | None]:
        """Labels for our own encoder: an alignment of thumbnails, and with enough videos one of the discriminants of a
        small encoder's vectors. And these discriminants; None if there are none."""
        if not starter.searches:
            return starter.align([], FrontEnd(FrontEndSpec(1, 1)), learned=False).labels, None
        hz, learning = self.config.model.hz, self.config.learning
        whole = self._whole(picture) if picture.moving else recordings
        thumbnails = thumbnail_vectors(whole)
        rough = starter.align(thumbnails, self._unscaled(thumbnails), learned=False).labels
        if len(recordings) < LEAST_REFINED:
            return rough, None
        rest = (picture, starter.count, hz, learning, self.stage("small-encoder"), self.world)
        shown = discriminants(small_encoder_vectors(whole, rough, *rest), rough)
        return starter.align(shown, self._unscaled(shown), learned=True, change=False).labels, shown

    def _unscaled(self, vectors: list[Vectors]) -> FrontEnd:
        return FrontEnd(FrontEndSpec(vectors[0].shape[1], self.config.model.front_end_ticks))

    def _familiarity(
        self, recordings: Sequence[SampledRecording], vectors: Sequence[Vectors], unread: int
    ) -> Familiarity | None:
        """Raises EdgeHalError if its rate is given and nothing can be fitted."""
        named = {r.name: x for r, x in zip(recordings, vectors, strict=True)}
        found = fit_familiarity(named, self.config.model.hz, unread)
        if found is None:
            why = f"too little video for its limit; it needs {LEAST_VIDEOS} videos or more, several minutes together"
            if self.config.decoder.unfamiliar_per_h:
                what = "decoder.unfamiliar_per_h has no effect here"
                raise EdgeHalError(what, why, "leave it out", exit_code=2)
            log.warning("unfamiliar input will not be reported: %s", why)
        return found

    # --- which step it is -----------------------------------------------------------------------

    def align(self, seen: Seen) -> Aligned:
        """The steps at each tick. The parent says them, if it knows all steps. Otherwise they are searched, and the
        teacher improves them."""
        learning, starter, recalled = self.config.learning, seen.starter, None
        if self.parent is not None and starter.searches and learning.lists == "exact":
            lists = starter.transcripts
            recalled = recall(self.parent, seen.vectors, self.videos.labels, lists, starter.known_segments)
        if recalled is not None:
            starter = replace(starter, stored=recalled.alignment)
        if self.pretrained is not None and starter.searches:
            vectors = self._with_bench(seen.shown)
            components = leading_components(vectors, STARTER_COMPONENTS)
            rough = starter.align(components, self._unscaled(components), learned=False).labels
            shown = discriminants(vectors, rough)
            scaled, change = self._unscaled(shown), False
        else:
            # Our own encoder shows what tells the steps apart, and that is aligned without its change, as above.
            own = self.config.model.encoder is not None and self.parent is None
            shown, change = seen.shown, not (own and starter.searches)
            scaled = seen.front_end if self.config.model.encoder is None else self._unscaled(shown)
        found = starter.align(shown, scaled, learned=True, change=change)
        worth = starter.worth(self.videos.videos, found, shown, scaled, change=change)
        labels, posteriors = found.labels, None if recalled is None else recalled.log_posteriors
        if recalled is None and not starter.fully_labelled:
            if learning.lists != "exact" or starter.stored is not None:
                starter = replace(starter, transcripts=[transcript_of(label) for label in labels])
            known, stage = starter.known_segments, self.stage("teacher")
            taught = learn_alignment(seen.features, starter.transcripts, labels, seen.spec, learning, stage, known)
            labels, posteriors = starter.with_user_labels(taught.labels), taught.log_posteriors
        return Aligned(labels, posteriors, found.evidence, worth, recalled)

    def _with_bench(self, vectors: list[Vectors]) -> list[Vectors]:
        """The vectors of the pictures as they are, by the encoder that was given. The list says which step comes next,
        so here the state of the bench does not mislead: it tells when a step was done."""
        encoder = self.config.model.encoder
        assert encoder is not None
        picture = encoder.spec(self.config.model.hz)
        if picture.moving:
            whole = self._whole(picture, self.run.path / ENCODER_FILE)
            vectors = [np.asarray(recording.inputs, np.float32) for recording in whole]
        return [x[:, : picture.size] for x in vectors]

    def _whole(self, picture: EncoderSpec, graph: Path | None = None) -> list[SampledRecording]:
        """The recordings with nothing greyed."""
        rest = (graph, self.cache, self.progress, self.world, self.workers)
        return read_together(self.videos, self.config.model.hz, replace(picture, moving=0), *rest, accept_damaged=True)

    # --- the model ------------------------------------------------------------------------------

    def copies(self, seen: Seen) -> list[list[Tensor]]:
        """Features (T, 3 D) of each video in each augmented copy, and in one with swapped backgrounds."""
        encoder, config, graph = self.config.model.encoder, self.config, self.run.path / ENCODER_FILE
        if encoder is None:
            return []
        sampling = Sampling.of(config.model.hz, encoder.spec(config.model.hz), graph)
        more = (self.cache, self.progress, self.world, self.workers)
        made = copies_of(self.videos, seen.recordings, sampling, config.copies, *more)
        if seen.swapped:
            made.append(self.world.each(lambda pictures: encode_pictures(graph, pictures), seen.swapped))
        return [[seen.front_end(torch.from_numpy(x)) for x in copy] for copy in made]

    def learn(self, seen: Seen, aligned: Aligned, copies: list[list[Tensor]]) -> Pyramid:
        """The student, trained."""
        learning, begin = self._taught(aligned)
        shown = Shown(seen.features, aligned.labels, aligned.log_posteriors, copies)
        if aligned.recalled is not None:
            shown = aligned.recalled.with_rehearsed(shown)
        rest = (seen.spec, learning, self.stage("student"))
        return learn_student(shown.features, shown.labels, shown.teacher, *rest, shown.copies, begin)

    def stream(self, pyramid: Pyramid, seen: Seen, aligned: Aligned, copies: list[list[Tensor]]) -> list[Vectors]:
        """Log posteriors (T, H K) of each video, of students that have not seen it; with few videos, of `pyramid`."""
        if not self.holds_out:
            return streamed_posteriors(pyramid, seen.features, self.world)
        learning, begin = self._taught(aligned)
        if self.parent is not None and (again := self.parent.trained_on(self.videos.videos)):
            log.warning(
                f"{self.parent.name} was trained on {count_of(again, 'video')} of these. Decisions are fitted "
                "on students that do not begin with it"
            )
            learning, begin = self.config.learning, None
        known = (aligned.labels, aligned.log_posteriors, seen.spec, learning, self.stage)
        return held_out_posteriors(seen.features, *known, copies, begin)

    def decide(self, seen: Seen, aligned: Aligned, streamed: Sequence[Vectors]) -> DecoderConfig:
        """The decoder, fitted on what the model says of some of the videos."""
        more = {"held_out": self.holds_out, "familiar": seen.familiarity is not None}
        return fitted_decoder(self.videos, seen.spec, self.config.decoder.given(), aligned.labels, streamed, **more)

    @property
    def holds_out(self) -> bool:
        """Whether videos are held out for the decoder."""
        return len(self.videos.videos) >= LEAST_HELD_OUT

    def _taught(self, aligned: Aligned) -> tuple[Learning, Callable[[Pyramid], None] | None]:
        """How students learn, and the weights that they begin with."""
        learning = self.config.learning
        if aligned.recalled is not None:
            learning = slower(learning)
        return learning, None if self.parent is None else self.parent.begin
