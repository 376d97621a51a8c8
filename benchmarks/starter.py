"""The starter alone against the frame labels of the training videos, which it never sees.

    python benchmarks/starter.py DATA --split 1 --rate-hz 30 [--look 0,0.6]
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --labelled 3 --iterations 0,30 [--stamps anywhere]
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --labelled 99 --iterations 2 --stamps proposed
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --each
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --basin 20 --restarts 24

The first says, for each look-ahead (in windows), how much of the alignment is right, how late its boundaries are, and
how far the guesses agree. The second labels some videos, wholly or (`--stamps`) one frame of each segment, and gives
the accuracy of the others and of all, by iterations of EM. The frame is drawn by the seed; with `proposed` it is the
one that `edge-hal correct` proposes after a training on the lists alone, if it shows the step. The third labels each
video in turn, and says how the ones that training would name compare. The fourth takes so many videos, and sets what
each guess comes to, by itself, beside what the search among them comes to and what EM begun at the truth does: log-
likelihood, margin over any order, accuracy. Feature streams only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.calib.fit_decoder import lateness_s
from edge_hal.config import Config, load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.rates import FIRST_ALIGN_HZ, with_model_rate
from edge_hal.learning.data.recordings import Labels, SampledRecording, read_recordings
from edge_hal.learning.data.video_set import Video
from edge_hal.learning.hmm import first_alignment
from edge_hal.learning.hmm.align import align_with_hmm, whitened
from edge_hal.learning.hmm.em import Candidate, HmmConfig, anneal, evaluate, initialise, refine
from edge_hal.learning.hmm.known_labels import bin_segments, choose_labelled, known_segments_of, worth_labelling
from edge_hal.learning.hmm.problem import Problem
from edge_hal.metrics import runs_of, transitions_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.spec import FrontEndSpec

PROPOSED = 0.1
"""How far from the end of a segment a frame is proposed: `EDGE` of `edge_hal/web/correct/page/marking.js`."""


@dataclass(frozen=True)
class Setting:
    """The training videos at the rate that training would choose for them."""

    config: Config
    recordings: list[SampledRecording]
    count: int
    seed: int

    @property
    def hz(self) -> float:
        return self.config.model.hz

    @property
    def period(self) -> int:
        return max(1, round(self.hz / FIRST_ALIGN_HZ))


def right(found: Sequence[Labels], truth: Sequence[Labels]) -> float:
    return 100 * float((np.concatenate(found) == np.concatenate(truth)).mean())


def vectors_of(recordings: Sequence[SampledRecording]) -> list[NDArray[np.float32]]:
    return [np.asarray(recording.inputs, np.float32) for recording in recordings]


def fitted_front_end(vectors: Sequence[NDArray[np.float32]], config: Config) -> FrontEnd:
    front_end = FrontEnd(FrontEndSpec(vectors[0].shape[1], config.model.front_end_ticks))
    front_end.fit(*first_alignment.statistics(vectors))
    return front_end


def truth_of(recordings: Sequence[SampledRecording]) -> list[Labels]:
    return [recording.labels for recording in recordings if recording.labels is not None]


def stamped(recording: SampledRecording, rng: np.random.Generator) -> SampledRecording:
    """Of its frame labels, one of each segment, anywhere in it."""
    assert recording.labels is not None
    _, begins, ends = runs_of(recording.labels)
    kept = rng.integers(begins, ends)
    labels = np.full_like(recording.labels, -1)
    labels[kept] = recording.labels[kept]
    return replace(recording, labels=labels)


def proposed(recording: SampledRecording, found: Labels, rng: np.random.Generator) -> tuple[SampledRecording, int]:
    """As a person marks them on the page of `edge-hal correct`: a tenth of the segment that was found from one of its
    ends, or if the step is not there, any frame that shows it. And how many of the proposals were right."""
    assert recording.labels is not None
    labels = stamped(recording, rng).labels
    assert labels is not None
    _, begins, ends = runs_of(recording.labels)
    _, firsts, stops = runs_of(found)
    if len(begins) != len(firsts):  # the video shows other steps than its list
        return replace(recording, labels=labels), 0
    share = np.where(rng.integers(0, 2, len(begins)) > 0, PROPOSED, 1 - PROPOSED)
    at = np.minimum(stops - 1, firsts + ((stops - firsts) * share).astype(int))
    right_ = (begins <= at) & (at < ends)
    for frame, begin, end in zip(at[right_], begins[right_], ends[right_], strict=True):
        labels[begin:end] = -1
        labels[frame] = recording.labels[frame]
    return replace(recording, labels=labels), int(right_.sum())


def marked(setting: Setting, stamps: str | None, restarts: int) -> list[SampledRecording]:
    """The videos with the labels that are told, if they are told any."""
    rng = np.random.default_rng(setting.seed)
    if stamps is None:
        return setting.recordings
    if stamps == "anywhere":
        return [stamped(recording, rng) for recording in setting.recordings]
    found = started(setting, setting.recordings, restarts).labels
    told = [proposed(recording, y, rng) for recording, y in zip(setting.recordings, found, strict=True)]
    count = sum(len(runs_of(y)[0]) for y in truth_of(setting.recordings))
    print(f"{sum(each for _, each in told)} of {count} proposed frames show the step", flush=True)
    return [recording for recording, _ in told]


def started(
    setting: Setting, told: Sequence[SampledRecording], restarts: int, known: frozenset[str] = frozenset()
) -> first_alignment.FirstAlignment:
    learning = setting.config.learning.model_copy(update={"restarts": restarts})
    vectors = vectors_of(setting.recordings)
    return first_alignment.find_first_alignment(
        vectors,
        [recording.transcript for recording in setting.recordings],
        setting.count,
        setting.hz,
        fitted_front_end(vectors, setting.config),
        learning,
        setting.seed,
        lambda *told: None,
        known_segments=[known_segments_of(recording) if recording.name in known else None for recording in told],
    )


def look_ahead(setting: Setting, restarts: int, looks: list[float]) -> None:
    truth, hz = truth_of(setting.recordings), setting.hz
    for look in looks:
        first_alignment.LOOK_AHEAD_WINDOWS = look
        found = started(setting, setting.recordings, restarts)
        late_s = lateness_s([transitions_of(f, hz) for f in found.labels], [transitions_of(y, hz) for y in truth])
        agreement = [video.agreement for video in found.evidence]
        each = [float((f == y).mean()) for f, y in zip(found.labels, truth, strict=True)]
        print(
            f"look-ahead {look:g} windows: {right(found.labels, truth):.1f} % right, boundaries {late_s:.2f} s late, "
            f"agreement {np.mean(agreement):.2f}, its correlation with accuracy over the {len(truth)} videos "
            f"{np.corrcoef(each, agreement)[0, 1]:.2f}",
            flush=True,
        )


def labelled(setting: Setting, wanted: int, iterations: list[int], stamps: str | None, restarts: int) -> None:
    known = choose_labelled([recording.name for recording in setting.recordings], wanted, setting.seed)
    others = [i for i, recording in enumerate(setting.recordings) if recording.name not in known]
    truth, told = truth_of(setting.recordings), marked(setting, stamps, restarts)
    for number in iterations:
        first_alignment.LABELLED_ITERATIONS = number
        found = started(setting, told, 1, known)
        text = f"{wanted} {'stamped' if stamps else 'labelled'}, {number} iterations: "
        if others:
            text += (
                f"{right([found.labels[i] for i in others], [truth[i] for i in others]):.1f} % of the others right, "
            )
        print(f"{text}{right(found.labels, truth):.1f} % of all right", flush=True)


def each(setting: Setting, videos: Sequence[Video]) -> None:
    truth = truth_of(setting.recordings)
    accuracy = {}
    for index, recording in enumerate(setting.recordings):
        found = started(setting, setting.recordings, 1, frozenset([recording.name])).labels
        others = [i for i in range(len(truth)) if i != index]
        accuracy[recording.name] = right([found[i] for i in others], [truth[i] for i in others])
    drawn = np.array(list(accuracy.values()))
    print(
        f"one labelled of {len(drawn)}: {drawn.mean():.1f} % of the others right on average, standard deviation "
        f"{drawn.std():.1f}, {drawn.min():.1f} to {drawn.max():.1f}"
    )
    named = worth_labelling(videos, 5)
    print("worth labelling, best first: " + ", ".join(f"{name} {accuracy[name]:.1f}" for name in named))


def basin(setting: Setting, restarts: int) -> Iterator[str]:
    recordings, config, count, period = setting.recordings, HmmConfig(), setting.count, setting.period
    truth = truth_of(recordings)
    transcripts = [tuple(recording.transcript) for recording in recordings]
    known_segments = [known_segments_of(recording) for recording in recordings]
    bins = [None if known is None else bin_segments(known, period) for known in known_segments]
    vectors = vectors_of(recordings)
    features = first_alignment.binned_features(vectors, fitted_front_end(vectors, setting.config), period)
    videos = whitened(features, config.components, config.normalise_videos)
    problem = Problem(videos, transcripts, [None] * len(videos), count, config)

    def told(name: str, model: Candidate, labels: Sequence[Labels]) -> str:
        at_ticks = [np.repeat(found, period)[: len(y)] for found, y in zip(labels, truth, strict=True)]
        measured = f"log-likelihood {model.log_likelihood:.4f} a bin, margin {model.margin:.4f}"
        return f"{name}: {measured}, {right(at_ticks, truth):.1f} % right"

    def alone(name: str, model: Candidate) -> str:
        return told(name, model, problem.labels([model], free))

    free, rng = problem.batches(), np.random.default_rng(setting.seed)
    for index in range(restarts):
        per_label = np.exp((config.duration_spread if index else 0.0) * rng.normal(size=count))
        counts = anneal(free, *initialise(free, count, config, per_label), count, config)
        yield alone(f"guess {index}", evaluate(free, counts, config))
    found = align_with_hmm(features, transcripts, count, seed=setting.seed, restarts=restarts, config=config)
    yield told("searched", found.best[0], found.labels)
    known, _ = initialise(replace(problem, known_segments=bins).batches(), count, config, np.ones(count))
    yield alone("from the truth", evaluate(free, refine(free, known, count, config, config.iterations), config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rate-hz", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=64, help="guesses")
    parser.add_argument("--look", default="0,0.6", help="look-aheads, in windows")
    parser.add_argument("--labelled", type=int)
    parser.add_argument("--iterations", default="0,30")
    parser.add_argument("--stamps", choices=("anywhere", "proposed"), help="one frame of each segment instead of all")
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--basin", type=int, help="so many videos")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    videos = load_dataset(
        chosen.data, split=chosen.split, part="train", with_labels=True, rate_hz=chosen.rate_hz, kind="features"
    )
    config = with_model_rate(load_config("kinematics"), videos)
    recordings = read_recordings(videos, config.model.hz, None)[: chosen.basin]
    setting = Setting(config, recordings, len(videos.labels), chosen.seed)
    if chosen.basin is not None:
        for line in basin(setting, chosen.restarts):
            print(line, flush=True)
    elif chosen.each:
        each(setting, videos.videos)
    elif chosen.labelled is not None:
        labelled(
            setting, chosen.labelled, [int(n) for n in chosen.iterations.split(",")], chosen.stamps, chosen.restarts
        )
    else:
        look_ahead(setting, chosen.restarts, [float(x) for x in chosen.look.split(",")])


if __name__ == "__main__":
    main()
