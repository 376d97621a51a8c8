"""The starter alone against the frame labels of the training videos, which it never sees.

    python benchmarks/starter.py DATA --split 1 --rate-hz 30 [--look 0,0.6]
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --labelled 3 --iterations 0,30
    python benchmarks/starter.py DATA --split 1 --rate-hz 30 --basin 20 --restarts 24

The first says, for each look-ahead (in windows), how much of the alignment is right, how late its boundaries are, and
how far the restarts agree. The second labels some videos, and gives the accuracy of the others by iterations of EM. The
third takes so many videos, and sets the log-likelihood and accuracy of each restart beside those of EM begun at the
truth. Feature streams only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.calib.decoder import lateness_s
from edge_hal.config import load_config
from edge_hal.learning import starter
from edge_hal.learning.chains import Batch, Counts
from edge_hal.learning.dataset import load_dataset
from edge_hal.learning.hmm import BATCH, StartConfig, decode, guess, improve, whitened
from edge_hal.learning.pins import binned, choose_labelled, pins_of
from edge_hal.learning.recordings import Recording, read_recordings
from edge_hal.metrics import transitions_of

CONFIG = load_config("kinematics")
HZ = CONFIG.model.model_hz
WINDOW = round(CONFIG.model.front_end_window_s * HZ)
PERIOD = round(HZ / starter.START_HZ)


def right(found: Sequence[NDArray[np.int64]], truth: Sequence[NDArray[np.int64]]) -> float:
    return 100 * float((np.concatenate(found) == np.concatenate(truth)).mean())


def vectors_of(recordings: Sequence[Recording]) -> list[NDArray[np.float32]]:
    return [np.asarray(recording.inputs, np.float32) for recording in recordings]


def truth_of(recordings: Sequence[Recording]) -> list[NDArray[np.int64]]:
    return [recording.labels for recording in recordings if recording.labels is not None]


def started(
    recordings: Sequence[Recording], count: int, restarts: int, seed: int, known: frozenset[str] = frozenset()
) -> starter.Started:
    learning = CONFIG.learning.model_copy(update={"restarts": restarts})
    return starter.start(
        vectors_of(recordings),
        [recording.transcript for recording in recordings],
        count,
        HZ,
        WINDOW,
        learning,
        seed,
        lambda *told: None,
        pins=[pins_of(recording) if recording.name in known else None for recording in recordings],
    )


def look_ahead(recordings: Sequence[Recording], count: int, restarts: int, seed: int, looks: list[float]) -> None:
    truth = truth_of(recordings)
    for look in looks:
        starter.LOOK_AHEAD_WINDOWS = look
        found = started(recordings, count, restarts, seed)
        late_s = lateness_s([transitions_of(f, HZ) for f in found.labels], [transitions_of(y, HZ) for y in truth])
        each = [float((f == y).mean()) for f, y in zip(found.labels, truth, strict=True)]
        print(
            f"look-ahead {look:g} windows: {right(found.labels, truth):.1f} % right, boundaries {late_s:.2f} s late, "
            f"agreement {np.mean(found.agreement):.2f}, its correlation with accuracy over the {len(truth)} videos "
            f"{np.corrcoef(each, found.agreement)[0, 1]:.2f}",
            flush=True,
        )


def labelled(recordings: Sequence[Recording], count: int, seed: int, wanted: int, iterations: list[int]) -> None:
    known = choose_labelled([recording.name for recording in recordings], wanted, seed)
    for number in iterations:
        starter.PINNED_ITERATIONS = number
        found = started(recordings, count, 1, seed, known)
        others = [i for i, recording in enumerate(recordings) if recording.name not in known]
        truth = truth_of(recordings)
        accuracy = right([found.labels[i] for i in others], [truth[i] for i in others])
        print(f"{wanted} labelled, {number} iterations: {accuracy:.1f} % of the others right", flush=True)


def basin(recordings: Sequence[Recording], count: int, restarts: int, seed: int) -> Iterator[str]:
    recordings = sorted(recordings, key=lambda recording: len(recording.inputs))
    truth, config = truth_of(recordings), StartConfig()
    transcripts = [recording.transcript for recording in recordings]
    pins = [pins_of(recording) for recording in recordings]
    bins = [None if pin is None else binned(pin, PERIOD) for pin in pins]
    videos = whitened(starter.binned_features(vectors_of(recordings), WINDOW, PERIOD), config.components, True)

    def batches(known: Sequence[NDArray[np.int64] | None]) -> list[Batch]:
        parts = [slice(a, a + BATCH) for a in range(0, len(videos), BATCH)]
        return [Batch(videos[p], transcripts[p], config.sub_states, None, known[p]) for p in parts]

    def told(name: str, made: list[Batch], first: tuple[Counts, list[NDArray[np.float64]]]) -> str:
        restart, beliefs = improve(made, count, config, *first)
        labels = [np.repeat(np.asarray(t)[decode(b)], PERIOD) for t, b in zip(transcripts, beliefs, strict=True)]
        accuracy = right([found[: len(y)] for found, y in zip(labels, truth, strict=True)], truth)
        return f"{name}: log-likelihood {restart.log_likelihood:.4f} a bin, {accuracy:.1f} % right"

    free, rng = batches([None] * len(videos)), np.random.default_rng(seed)
    for index in range(restarts):
        per_label = np.exp((config.duration_spread if index else 0.0) * rng.normal(size=count))
        yield told(f"restart {index}", free, guess(free, count, config, per_label))
    begun = batches(bins)
    first = guess(begun, count, config, np.ones(count))
    yield told("from the truth", free, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rate-hz", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--look", default="0,0.6", help="look-aheads, in windows")
    parser.add_argument("--labelled", type=int)
    parser.add_argument("--iterations", default="0,30")
    parser.add_argument("--basin", type=int, help="so many videos")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    videos = load_dataset(
        chosen.data, split=chosen.split, part="train", with_labels=True, rate_hz=chosen.rate_hz, kind="features"
    )
    recordings, count = read_recordings(videos, HZ, None), len(videos.labels)
    if chosen.basin is not None:
        for line in basin(recordings[: chosen.basin], count, chosen.restarts, chosen.seed):
            print(line, flush=True)
    elif chosen.labelled is not None:
        labelled(recordings, count, chosen.seed, chosen.labelled, [int(n) for n in chosen.iterations.split(",")])
    else:
        look_ahead(recordings, count, chosen.restarts, chosen.seed, [float(x) for x in chosen.look.split(",")])


if __name__ == "__main__":
    main()
