"""The choice of the layers to quantise, by the effect on the events.

The error of a tensor says little: 3 % in one layer may move no event, and 0.5 % in another may move many. So the
calibration recordings are streamed with each candidate set of layers, and the events are compared with those of
float32. The `Budget` says how much they may differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import decode_posteriors, split_heads
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import labels_of, transition_points
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.files.untrusted import read_json
from edge_hal.metrics import IntArray, match_transitions, score_videos
from edge_hal.progress import Progress
from edge_hal.spec import PyramidSpec

Posteriors = Sequence[NDArray[np.float32]]
Evaluate = Callable[[frozenset[str]], "Shift"]

MIN_TRANSITIONS = 10
"""The fewest transitions of float32 on the calibration recordings. The budget always allows one of them to differ, so
with few transitions it would allow everything."""


@dataclass(frozen=True)
class Budget:
    """How far the events of a lower precision may differ from those of float32.

    Attributes:
        f1_points: F1@50 of the segments, with those of float32 as truth, may be lower than 100 by this much.
        within: the share of the transitions of float32 that must be present.
        ticks: how far their boundaries may be apart.

    One transition may always differ, even if that exceeds 1 - `within`: rounding can decide a tie either way.
    """

    f1_points: float = 0.5
    within: float = 0.99
    ticks: int = 1

    def allows(self, shift: Shift) -> bool:
        moved = max(1, int(np.floor((1 - self.within) * shift.transitions)))
        one_segment = 100.0 / max(1, shift.transitions)
        return shift.moved <= moved and 100.0 - shift.f1_50 <= max(self.f1_points, one_segment) + 1e-9


@dataclass(frozen=True)
class Shift:
    """The difference between a precision and float32 over some recordings.

    Attributes:
        transitions: of float32, including the first label of each stream.
        moved: transitions without a partner within the ticks of the budget: of the stream that has more of them.
        f1_50: of the segments in per cent, with those of float32 as truth.
        frame_agreement: share of ticks with the same most likely label.
        posterior_rms: root mean square of the difference of probabilities.
        decision_ticks_max: the largest distance between the decision ticks of partners.
    """

    transitions: int
    moved: int
    f1_50: float
    frame_agreement: float
    posterior_rms: float
    decision_ticks_max: int

    @property
    def within(self) -> float:
        return 1.0 - self.moved / max(1, self.transitions)


def compare_events(
    found: Posteriors, expected: Posteriors, decoder: DecoderConfig, spec: PyramidSpec, budget: Budget | None = None
) -> Shift:
    """Decode log posteriors (T, H K) of each recording as on the device, and compare `found` with `expected`
    (float32)."""
    tolerance_s = ((budget or Budget()).ticks + 0.5) / spec.model_hz
    transitions, moved, late = 0, 0, 0
    labels: tuple[list[IntArray], list[IntArray]] = ([], [])
    for p, q in zip(found, expected, strict=True):
        a, b = decode_posteriors(p, decoder, spec), decode_posteriors(q, decoder, spec)
        points, expected_points = (transition_points(each, spec.model_hz, with_first=True) for each in (a, b))
        pairs = match_transitions(points, expected_points, tolerance_s)
        transitions += len(b)
        moved += max(len(a), len(b)) - len(pairs)
        late = max([late, *(abs(a[i].decision_tick - b[j].decision_tick) for i, j in pairs)])
        labels[0].append(labels_of(a, len(p)))
        labels[1].append(labels_of(b, len(q)))
    found, expected = ([split_heads(p, spec)[spec.lag_ticks] for p in each] for each in (found, expected))
    rms = np.sqrt(np.mean([np.mean((np.exp(p) - np.exp(q)) ** 2) for p, q in zip(found, expected, strict=True)]))
    same = [(p.argmax(1) == q.argmax(1)).mean() for p, q in zip(found, expected, strict=True)]
    return Shift(
        transitions=transitions,
        moved=moved,
        f1_50=score_videos(labels[0], labels[1], background=None).f1_50,
        frame_agreement=float(np.mean(same)),
        posterior_rms=float(rms),
        decision_ticks_max=late,
    )


@dataclass(frozen=True)
class Verdict:
    """`layers`: those to quantise. `costs`: of each layer alone. `shift`: of the chosen layers, `all_shift`: of all."""

    layers: frozenset[str]
    costs: dict[str, Shift]
    shift: Shift
    all_shift: Shift

    def to_dict(self) -> dict[str, Any]:
        return {
            "shift": {**asdict(self.shift), "within": self.shift.within},
            "all_quantised": {**asdict(self.all_shift), "within": self.all_shift.within},
            "layers": {
                name: {
                    "verdict": "int8" if name in self.layers else "float",
                    "moved": cost.moved,
                    "f1_50": cost.f1_50,
                    "posterior_rms": cost.posterior_rms,
                }
                for name, cost in sorted(self.costs.items())
            },
        }


@dataclass
class Memory:
    """Evaluations kept on disk, so that an interrupted search repeats none. They are reused only if `key` is the
    same."""

    path: Path
    key: str
    known: dict[str, Shift] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            data = read_json(self.path)
            if data["key"] == self.key:
                self.known = {name: Shift(**shift) for name, shift in data["known"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # nothing kept, or not usable: evaluate again

    def through(self, evaluate: Evaluate, method: str) -> Evaluate:
        """`evaluate`, with its results kept."""

        def remembered(layers: frozenset[str]) -> Shift:
            text = f"{method} {' '.join(sorted(layers))}"
            name = hashlib.sha256(text.encode()).hexdigest()[:24]
            if name not in self.known:
                self.known[name] = evaluate(layers)
                shifts = {key: asdict(shift) for key, shift in self.known.items()}
                text = json.dumps({"key": self.key, "known": shifts}, indent=1) + "\n"
                write_file(self.path, text, todo="choose another --work")
            return self.known[name]

        return remembered


def search(layers: Sequence[str], evaluate: Evaluate, budget: Budget, progress: Progress) -> Verdict:
    """A large set of layers whose events stay within the budget.

    Layers are sorted by their cost alone. Bisection finds how many of the cheapest can be quantised together; then each
    remaining layer is tried in addition.

    Raises:
        EdgeHalError: even the cheapest layer alone exceeds the budget.
    """
    total = len(layers) + 1
    progress("sensitivity", 0, total, "all layers")
    everything = evaluate(frozenset(layers))
    costs = {}
    for number, layer in enumerate(layers):
        progress("sensitivity", 1 + number, total, layer)
        costs[layer] = evaluate(frozenset([layer]))
    progress("sensitivity", total, total, "")
    cheap = sorted(layers, key=lambda name: (not budget.allows(costs[name]), costs[name].posterior_rms, name))

    def first(count: int) -> tuple[frozenset[str], Shift]:
        chosen = frozenset(cheap[:count])
        return chosen, everything if count == len(cheap) else evaluate(chosen)

    # Costs need not be monotone in the number of layers, so the set that is found has been evaluated itself.
    low, high = 0, len(cheap) + 1
    while high - low > 1:
        middle = (low + high) // 2 if high <= len(cheap) else len(cheap)
        progress("search", len(cheap) - (high - low) + 1, len(cheap), f"{middle} of {len(cheap)} layers in int8")
        if budget.allows(first(middle)[1]):
            low = middle
        else:
            high = middle
    if low == 0:
        worst = costs[cheap[0]]
        raise EdgeHalError(
            "no layer can be quantised within the budget",
            f"the cheapest, {cheap[0]}, moves {worst.moved} of {worst.transitions} transitions",
            "use --precision fp16, or give more calibration recordings",
        )
    chosen, shift = first(low)
    # A costly layer may block cheaper combinations with the layers behind it, so each of them is tried in addition.
    for layer in cheap[low:]:
        more = evaluate(chosen | {layer})
        progress("search", len(chosen), len(cheap), f"{len(chosen)} of {len(cheap)} layers in int8, and {layer}?")
        if budget.allows(more):
            chosen, shift = chosen | {layer}, more
    progress("search", len(cheap), len(cheap), f"{len(chosen)} of {len(cheap)} layers in int8")
    return Verdict(chosen, costs, shift, everything)
