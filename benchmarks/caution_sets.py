"""Generated data sets for `benchmarks/caution.py`: features, step lists and true labels of many kinds of procedures.

A set is drawn from its `Kind` and a seed. A step has a mean path through its features, in three phases. Each segment
is that path with a deviation of its own, noise that is correlated in time, and the drift of the video. Features are
numbers at 2 Hz, as the alignment sees them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Lists

Rng = np.random.Generator
Steps = list[int]
Order = Callable[[Rng, int], Steps]

PHASES = 3
SHORTEST = 3  # bins of a segment: one for each sub-state of the alignment's model
WIDTH = 14
MEMORY = 0.7  # correlation of the noise of neighbouring bins


@dataclass(frozen=True)
class Kind:
    """Attributes:
    order: the true steps of one video, from a random generator and the number of labels.
    separation: distance of the paths of two steps, in standard deviations of the noise of one feature.
    style: standard deviation of what distinguishes one segment of a step from another, in the same unit.
    drift: the same for what moves the features of a video slowly.
    spread: standard deviation of the log of the mean durations of the steps.
    jitter: standard deviation of the log of the duration of a segment.
    idle_share: share of the time that label 0 takes; None if it is a step like all others.
    idle_style: as `style`, of label 0; None if it is the same.
    ends: how many times longer the first and the last segment last than they would.
    echo: how much an idle segment looks like the step before it, 0 to 1.
    alike: how much all steps but label 0 look like one another, 0 to 1.
    wrong: share of the neighbours that are swapped in each list, after the video was made.
    shuffled: the lists belong to other videos.
    videos, labels: numbers.
    segment: mean duration of a segment, in bins.
    """

    order: Order
    separation: float = 3.0
    style: float = 0.5
    drift: float = 0.5
    spread: float = 0.5
    jitter: float = 0.3
    idle_share: float | None = None
    idle_style: float | None = None
    ends: float = 1.0
    echo: float = 0.0
    alike: float = 0.0
    wrong: float = 0.0
    shuffled: bool = False
    videos: int = 12
    labels: int = 6
    segment: float = 9.0
    lists: Lists = "exact"


@dataclass(frozen=True)
class GeneratedSet:
    """`features`: (T_i, D) at 2 Hz, `lists`, and `truth` (T_i,) of each video."""

    features: list[NDArray[np.float32]]
    lists: list[Steps]
    truth: list[NDArray[np.int64]]


def shuffled(rng: Rng, labels: int) -> Steps:
    """Every step once, in any order."""
    return [int(each) for each in rng.permutation(labels)]


def walk(length: int) -> Order:
    """Any step may follow any other."""

    def order(rng: Rng, labels: int) -> Steps:
        steps = [int(rng.integers(labels))]
        while len(steps) < length:
            steps.append(int(rng.choice([each for each in range(labels) if each != steps[-1]])))
        return steps

    return order


def same(rng: Rng, labels: int) -> Steps:
    """One list for all videos: every step once."""
    return list(range(labels))


def cycle(least: int, most: int, *, anywhere: bool = False) -> Order:
    """Round the same cycle, `least` to `most` steps, from the first step or from anywhere."""

    def order(rng: Rng, labels: int) -> Steps:
        begin = int(rng.integers(labels)) if anywhere else 0
        return [(begin + each) % labels for each in range(int(rng.integers(least, most + 1)))]

    return order


def nearly(swaps: int, *, rounds: int = 1) -> Order:
    """The same list, `rounds` times over, with `swaps` neighbours exchanged in every second video."""

    def order(rng: Rng, labels: int) -> Steps:
        steps = list(range(labels)) * rounds
        for _ in range(swaps if rng.random() < 0.5 else 0):
            at = int(rng.integers(len(steps) - 1))
            steps[at], steps[at + 1] = steps[at + 1], steps[at]
        return [each for at, each in enumerate(steps) if at == 0 or each != steps[at - 1]]

    return order


def between(work: Order) -> Order:
    """Label 0, the idle one, before, between and after the steps that `work` orders."""

    def order(rng: Rng, labels: int) -> Steps:
        steps = [0]
        for each in work(rng, labels - 1):
            steps += [each + 1, 0]
        return steps

    return order


def sometimes(work: Order, share: float = 0.8) -> Order:
    """As `between`, but the idle label is left out between two steps with a chance of 1 - `share`."""

    def order(rng: Rng, labels: int) -> Steps:
        steps = between(work)(rng, labels)
        last = len(steps) - 1
        return [each for at, each in enumerate(steps) if each or at in (0, last) or rng.random() < share]

    return order


def draw(name: str, kind: Kind, seed: int) -> GeneratedSet:
    """The set of a kind. The same name and seed give the same set."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    path = rng.normal(size=(kind.labels, 1, WIDTH)) + 0.5 * rng.normal(size=(kind.labels, PHASES, WIDTH))
    path *= kind.separation / np.sqrt(2 * 1.25 * WIDTH)
    busy = path[1:] if kind.alike == 0 else (1 - kind.alike) * path[1:] + kind.alike * path[1:2]
    place = path  # where an idle segment after the step is
    path = np.concatenate([path[:1], busy])
    typical = np.exp(kind.spread * rng.normal(size=kind.labels))
    typical *= kind.segment / typical.mean()
    mixture = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    found = GeneratedSet([], [], [])
    for _ in range(kind.videos):
        steps = kind.order(rng, kind.labels)
        lasts = typical[steps] * np.exp(kind.jitter * rng.normal(size=len(steps)))
        idle = np.array(steps) == 0
        lasts[[0, -1]] *= kind.ends
        if kind.idle_share is not None:
            lasts[idle] *= lasts[~idle].sum() / lasts[idle].sum() * kind.idle_share / (1 - kind.idle_share)
        lengths = np.maximum(lasts.round().astype(int), SHORTEST)
        labels = np.repeat(steps, lengths)
        phase = np.concatenate([np.arange(n) * PHASES // n for n in lengths])
        style = np.where(idle, kind.style if kind.idle_style is None else kind.idle_style, kind.style)
        own = np.repeat(rng.normal(size=(len(steps), WIDTH)) * style[:, None], lengths, axis=0)
        mean = path[labels, phase]
        before = np.repeat([steps[max(at - 1, 0)] for at in range(len(steps))], lengths)
        echoes = kind.echo * (labels == 0)[:, None]
        mean = (1 - echoes) * mean + echoes * place[before, PHASES - 1]
        slow = np.cumsum(rng.normal(size=(len(labels), WIDTH)), axis=0) * kind.drift / np.sqrt(len(labels))
        noise = rng.normal(size=(len(labels), WIDTH))
        for t in range(1, len(noise)):
            noise[t] = MEMORY * noise[t - 1] + np.sqrt(1 - MEMORY**2) * noise[t]
        found.features.append(((mean + own + slow + noise) @ mixture).astype(np.float32))
        found.lists.append(_with_errors(steps, kind.wrong, rng))
        found.truth.append(labels.astype(np.int64))
    if kind.shuffled:
        found.lists[:] = found.lists[1:] + found.lists[:1]
    return found


def _with_errors(steps: Sequence[int], share: float, rng: Rng) -> Steps:
    """The list with this share of its neighbours swapped."""
    listed = list(steps)
    for at in range(len(listed) - 1):
        if rng.random() < share:
            listed[at], listed[at + 1] = listed[at + 1], listed[at]
    return [each for at, each in enumerate(listed) if at == 0 or each != listed[at - 1]]


_IDLE = Kind(between(same), idle_share=0.5, separation=4.0, style=1.0)

KINDS: dict[str, Kind] = {
    # Steps in many orders.
    "permuted": Kind(shuffled),
    "permuted, strong": Kind(shuffled, separation=8.0, style=1.5),
    "permuted, weak": Kind(shuffled, separation=1.2),
    "permuted, five videos": Kind(shuffled, videos=5, separation=5.0),
    "permuted, noise only": Kind(shuffled, separation=0.0, jitter=0.8),
    "permuted, fourteen labels": Kind(shuffled, labels=14, segment=6, separation=4.0),
    "permuted, three labels": Kind(shuffled, labels=3, segment=20),
    "walk": Kind(walk(10)),
    "walk, weak": Kind(walk(12), separation=1.0, style=1.0, jitter=0.6),
    "walk, many videos": Kind(walk(8), separation=2.0, videos=24),
    "walk, swapped neighbours": Kind(walk(10), wrong=0.15),
    "walk, lists of other videos": Kind(walk(10), shuffled=True),
    "walk, strong, lists of other videos": Kind(walk(8), shuffled=True, separation=8.0),
    "walk, irregular": Kind(walk(10), separation=4.0, jitter=0.9),
    # One list, or nearly.
    "one list": Kind(same, labels=10, separation=4.0, videos=16),
    "one list, strong, many videos": Kind(same, labels=10, separation=8.0, style=1.5, videos=30),
    "one list, weak": Kind(same, labels=10, separation=1.2, jitter=0.6),
    "one list, noise only": Kind(same, labels=8, separation=0.0, jitter=0.8),
    "one list, uneven": Kind(same, labels=8, spread=1.0, separation=5.0),
    "one list, long ends": Kind(same, labels=8, ends=4.0, separation=5.0, style=1.0),
    "nearly one list": Kind(nearly(1), labels=8),
    "nearly one list, strong": Kind(nearly(2), labels=9, separation=8.0, style=2.0, videos=20),
    "nearly one list, twice": Kind(nearly(1, rounds=2), separation=1.5, style=1.0, spread=0.8),
    # Round and round.
    "cycle": Kind(cycle(8, 14), separation=4.0),
    "cycle, weak": Kind(cycle(8, 14), separation=1.5, spread=0.9),
    "cycle, strong, uneven": Kind(cycle(8, 14), separation=8.0, spread=1.0, style=1.5),
    "cycle from anywhere": Kind(cycle(8, 14, anywhere=True), separation=3.0, spread=0.9),
    "cycle, long ends": Kind(cycle(8, 12), separation=5.0, ends=4.0),
    "cycle, two videos": Kind(cycle(12, 16), videos=2, separation=3.0),
    # An idle label that takes half of the time.
    "idle, permuted": replace(_IDLE, order=between(shuffled)),
    "idle, permuted, mixed": replace(_IDLE, order=between(shuffled), idle_style=3.0, ends=3.0),
    "idle, one list": _IDLE,
    "idle, one list, mixed": replace(_IDLE, idle_style=3.0, ends=3.0),
    "idle, one list, many videos": replace(_IDLE, videos=30, separation=8.0, labels=8),
    "idle, nearly one list": replace(_IDLE, order=between(nearly(1)), separation=2.0),
    "idle, nearly one list, mixed": replace(_IDLE, order=between(nearly(1)), idle_style=4.0, ends=4.0),
    "idle, nearly one list, echo": replace(_IDLE, order=between(nearly(1)), echo=0.6, ends=3.0),
    "idle, nearly one list, uneven": replace(_IDLE, order=between(nearly(1)), spread=1.2, jitter=0.7, ends=4.0),
    "idle, nearly one list, twice": replace(_IDLE, order=between(nearly(1, rounds=2)), separation=2.0, idle_style=2.0),
    "idle, cycle": replace(_IDLE, order=between(cycle(7, 11))),
    "idle, cycle, echo": replace(_IDLE, order=between(cycle(7, 11)), echo=0.6, ends=3.0),
    "idle, cycle from anywhere": replace(_IDLE, order=between(cycle(7, 11, anywhere=True)), idle_style=2.0),
    "idle, weak, few videos": replace(_IDLE, order=between(nearly(2)), separation=1.2, videos=5, ends=3.0),
    "idle sometimes, cycle": replace(_IDLE, order=sometimes(cycle(8, 12)), separation=3.0),
    "idle sometimes, nearly one list": replace(_IDLE, order=sometimes(nearly(1)), idle_style=3.0, ends=3.0),
    "idle, one list, alike": replace(_IDLE, alike=0.8, echo=0.7, separation=6.0),
    "idle, nearly one list, alike": replace(_IDLE, order=between(nearly(1)), alike=0.8, echo=0.7, separation=6.0),
    "idle, nearly one list, alike, short": replace(
        _IDLE, order=between(nearly(1)), alike=0.9, echo=0.9, idle_share=0.6, separation=8.0, segment=7
    ),
    "idle, one list, alike, short": replace(_IDLE, alike=0.9, echo=0.9, separation=8.0, segment=7),
    "idle, permuted, alike, short": replace(
        _IDLE, order=between(shuffled), alike=0.9, echo=0.9, separation=8.0, segment=7
    ),
    "idle, nearly one list, a little alike": replace(
        _IDLE, order=between(nearly(1)), alike=0.3, echo=0.2, separation=8.0, videos=20
    ),
    "idle, cycle, alike": replace(_IDLE, order=between(cycle(6, 9)), alike=0.9, echo=0.8, separation=6.0),
    "idle, noise only": replace(_IDLE, order=between(nearly(1)), separation=0.0, style=0.0, ends=3.0),
    "idle, lists of other videos": replace(_IDLE, order=between(walk(5)), shuffled=True),
    # Lists without order.
    "sets": Kind(lambda rng, labels: shuffled(rng, labels)[:4], labels=8, lists="sets", segment=14, separation=6.0),
    "sets, weak": Kind(lambda rng, labels: shuffled(rng, labels)[:4], labels=8, lists="sets", separation=1.0),
}


UNSEEN: dict[str, Kind] = {
    "rounds of pairs": Kind(lambda rng, labels: [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5], separation=4.0),
    "two lists, one backwards": Kind(
        lambda rng, labels: list(range(labels))[:: int(rng.choice([-1, 1]))], labels=8, separation=4.0
    ),
    "one list, five labels": Kind(same, labels=5, separation=6.0, segment=14),
    "one list, forty videos": Kind(same, labels=9, separation=10.0, videos=40, spread=0.3),
    "one list, wrong in half": Kind(same, labels=8, separation=5.0, wrong=0.5),
    "walk, four videos, eight labels": Kind(walk(10), labels=8, videos=4, separation=4.0),
    "walk, a third swapped": Kind(walk(10), wrong=0.35, separation=4.0),
    "walk, much style": Kind(walk(9), separation=4.0, style=4.0),
    "permuted, much drift": Kind(shuffled, separation=4.0, drift=4.0),
    "permuted, long ends": Kind(shuffled, separation=4.0, ends=3.0),
    "cycle, four labels, long": Kind(cycle(5, 9), labels=4, segment=16, separation=3.0),
    "idle, walk": Kind(between(walk(4)), idle_share=0.4, separation=6.0),
    "idle, walk, alike": Kind(between(walk(4)), idle_share=0.55, separation=6.0, alike=0.7, echo=0.7),
    "idle, one list, weak": Kind(between(same), idle_share=0.5, separation=1.5, jitter=0.6),
    "idle, one list, ten labels": Kind(between(same), idle_share=0.5, labels=10, separation=6.0, segment=7),
    "idle, nearly one list, strong": Kind(between(nearly(1)), idle_share=0.5, separation=8.0, style=1.0, videos=16),
    "idle, nearly one list, looks like what was": Kind(
        between(nearly(1)), idle_share=0.6, separation=5.0, echo=0.9, alike=0.5, videos=8
    ),
    "idle sometimes, permuted": Kind(sometimes(shuffled, 0.5), idle_share=0.4, separation=5.0),
}
"""Kinds that were made after the limits of the caution were fixed."""
