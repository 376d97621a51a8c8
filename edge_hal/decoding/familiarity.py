"""How far the input is from that of training: a mixture of Gaussians with one covariance, and how often its averages
exceed a level.

The distance of a vector is that of Mahalanobis to the nearest of M centres (Lee et al., arXiv 1807.03888, there with
one centre for each class). Of long vectors it looks at the first principal components and at what they leave out. The
mean of its logarithm over a trailing window is judged: a hand that passes before the lens for a moment changes it
little. The tail of these means in normal videos is a generalised Pareto distribution (Pickands 1975; Coles, *An
Introduction to Statistical Modeling of Extreme Values*, chapter 4), so a rate of false alarms gives a limit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import parse_json

from .decoder_config import DecoderConfig

FILE = "familiarity.json"
MOST_COMPONENTS = 64
LEAST_DISTANCE = 1e-9
LARGEST_TICK = 1 << 60

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What input vectors (D,) of training look like, and the tail of their distances in normal videos.

    Attributes:
        mean, scale: (D,) of each number.
        components: (D, k) orthonormal: the principal components, k at most `MOST_COMPONENTS`.
        whiten: (k, k) makes the distance to a centre Euclidean.
        centres: (M, k), whitened.
        rest: mean square of what the components leave out; 0 if they leave nothing out.
        window_s: length of the average.
        usual: mean of the logarithm of the squared distance in normal videos.
        level, peaks_per_h, tail, shape: averages in normal videos exceed `level` in `peaks_per_h` runs an hour. The
            excess of their peaks is distributed as a generalised Pareto with scale `tail` and this shape.
    """

    mean: Array
    scale: Array
    components: Array
    whiten: Array
    centres: Array
    rest: float
    window_s: float
    usual: float
    level: float
    peaks_per_h: float
    tail: float
    shape: float

    def __post_init__(self) -> None:
        size, count = self.components.shape if self.components.ndim == 2 else (0, 0)
        shapes = {"mean": (size,), "scale": (size,), "whiten": (count, count), "centres": (len(self.centres), count)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        numbers = (*(getattr(self, name) for name in ARRAYS), *(getattr(self, name) for name in NUMBERS))
        if not 0 < count <= MOST_COMPONENTS or not len(self.centres) or not all(np.isfinite(x).all() for x in numbers):
            raise ValueError("it has no components or centres, or a number is not finite")
        if self.scale.min() <= 0 or min(self.window_s, self.tail, self.peaks_per_h) <= 0 or self.rest < 0:
            raise ValueError("a number is not positive")
        if self.window_s > 600 or not -1 < self.shape < 1:
            raise ValueError("a number is out of range")

    @cached_property
    def _map(self) -> Array:
        whitened: Array = self.components @ self.whiten / self.scale[:, None]
        return whitened

    @cached_property
    def _pull(self) -> Array:
        pull: Array = np.ascontiguousarray(-2 * self.centres.T)
        return pull

    @cached_property
    def _squares(self) -> Array:
        squares: Array = (self.centres**2).sum(axis=1)
        return squares

    def distances(self, x: NDArray[np.floating]) -> Array:
        """(n, D) -> (n,): logarithm of the squared distance, per component."""
        centred = x - self.mean
        white = centred @ self._map
        nearest = (white * white).sum(axis=1) + (self._squares + white @ self._pull).min(axis=1)
        found = nearest / len(self.whiten)
        if self.rest > 0:
            scaled = centred / self.scale
            outside = (scaled**2).sum(axis=1) - ((scaled @ self.components) ** 2).sum(axis=1)
            found = (found + outside / self.rest) / 2
        result: Array = np.log(np.maximum(found, LEAST_DISTANCE))
        return result

    def rate_per_h(self, average: float) -> float:
        """How often an hour averages in normal videos exceed `average`, which is at least `level`."""
        over = max(0.0, average - self.level) / self.tail
        if abs(self.shape) < 1e-6:
            return self.peaks_per_h * math.exp(-over)
        left = max(0.0, 1 + self.shape * over)
        return self.peaks_per_h * math.pow(left, -1 / self.shape)

    def limit(self, per_h: float) -> float:
        """The average that normal videos exceed `per_h` times an hour; `level` if it is exceeded less often."""
        ratio = max(1.0, self.peaks_per_h / per_h)
        if abs(self.shape) < 1e-6:
            return self.level + self.tail * math.log(ratio)
        return float(self.level + self.tail / self.shape * (ratio**self.shape - 1))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For a checkpoint: float32 arrays by name."""
        return {name: np.asarray(getattr(self, name), np.float32) for name in (*ARRAYS, *NUMBERS)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Familiarity:
        """Inverse of `tensors`, from arrays or lists. Raises ValueError if they do not belong together."""
        odd = sorted(tensors.keys() ^ {*ARRAYS, *NUMBERS})
        if odd:
            raise ValueError(f"see '{odd[0]}'")
        found = {name: np.asarray(tensors[name], np.float32).astype(np.float64) for name in tensors}
        if any(found[name].ndim for name in NUMBERS):
            raise ValueError("an array stands for a number")
        return cls(**{name: float(found[name]) if name in NUMBERS else found[name] for name in found})  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The contents of `familiarity.json`: the tensors as lists."""
        # The shortest text that gives the same float32.
        body = {name: json.loads(_text(array)) for name, array in self.tensors().items()}
        return json.dumps(body) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Familiarity:
        """Inverse of `to_json`. Raises ValueError for other text."""
        body = parse_json(text)
        if not isinstance(body, dict):
            raise ValueError("it is no JSON object")
        try:
            return cls.from_tensors(body)
        except (TypeError, IndexError, OverflowError) as error:
            raise ValueError(str(error)) from error


ARRAYS = ("mean", "scale", "components", "whiten", "centres")
NUMBERS = ("rest", "window_s", "usual", "level", "peaks_per_h", "tail", "shape")


def _text(array: NDArray[np.float32]) -> str:
    if not array.ndim:
        return str(array)
    return "[" + ",".join(_text(each) for each in array) + "]"


def check_unfamiliar(config: DecoderConfig, familiarity: Familiarity | None) -> None:
    """Raises EdgeHalError (exit code 2) if the thresholds ask for what the bundle has not learned."""
    if config.unfamiliar_per_h > 0 and familiarity is None:
        why = f"the bundle has no {FILE}: it is of a version before 0.3, or had too few training videos"
        raise EdgeHalError("decoder.unfamiliar_per_h has no effect here", why, "set it to 0", exit_code=2)


@dataclass(frozen=True)
class Unfamiliar:
    """The input has been unlike that of training since `boundary_tick`.

    Attributes:
        times: how far it is from training, by the usual distance. `limit_times`: the same for the limit.
        seconds: since `boundary_tick`.
        confidence: 0.5 at the limit, and 1 where normal videos never come.
    """

    boundary_tick: int
    decision_tick: int
    times: float
    limit_times: float
    seconds: float
    confidence: float


class FamiliarityTracker:
    """Follows one epoch of one stream: `add` the vectors of ticks, then ask `decide` at each tick that is due.

    An episode begins when the average exceeds the limit and ends when it has stayed below it for a window. It is
    reported once, when it begins. The first average is due after a whole window.

    Args:
        per_h: false alarms an hour that are accepted.
        most_ticks: the most that one `add` brings.
    """

    def __init__(self, familiarity: Familiarity, per_h: float, model_hz: float, most_ticks: int) -> None:
        self._familiarity, self._hz, self._per_h = familiarity, model_hz, per_h
        self._window = max(1, round(familiarity.window_s * model_hz))
        self._limit = familiarity.limit(per_h)
        self._ring = np.zeros(self._window + most_ticks)
        self._counts = np.zeros(2, np.int64)
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        self._ring[:] = 0.0
        self._counts[:] = 0, -self._window  # ticks so far; the newest one that was above the limit

    def add(self, vectors: NDArray[np.float32]) -> None:
        """The vectors (n, D) of the next ticks."""
        ticks = int(self._counts[0])
        for tick, distance in enumerate(self._familiarity.distances(vectors).tolist(), start=ticks):
            self._ring[tick % len(self._ring)] = distance
        self._counts[0] = ticks + len(vectors)

    def decide(self, tick: int) -> Unfamiliar | None:
        """Whether an episode begins at `tick`, one of those of the newest `add`."""
        begin = tick + 1 - self._window
        if begin < 0:
            return None
        first, stop = begin % len(self._ring), (tick + 1) % len(self._ring)
        whole = first < stop
        values = self._ring[first:stop] if whole else np.concatenate((self._ring[first:], self._ring[:stop]))
        if values.sum() <= self._limit * self._window:
            return None
        before, self._counts[1] = self._counts[1], tick
        if tick - before <= self._window:
            return None
        # The change is most likely where what follows exceeds the limit by most in sum.
        over = np.cumsum((values - self._limit)[::-1])
        length = int(np.argmax(over)) + 1
        average = self._limit + float(over[length - 1]) / length
        usual = self._familiarity.usual
        chance = self._familiarity.rate_per_h(average) / min(self._per_h, self._familiarity.peaks_per_h)
        return Unfamiliar(
            boundary_tick=tick + 1 - length,
            decision_tick=tick,
            times=math.exp(min(100.0, (average - usual) / 2)),
            limit_times=math.exp(min(100.0, (self._limit - usual) / 2)),
            seconds=length / self._hz,
            confidence=round(1 - 0.5 * min(1.0, chance), 6),
        )

    def state(self) -> dict[str, Any]:
        return {"distances": self._ring.copy(), "counts": self._counts.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a number is out of range."""
        ticks, above = state["counts"].tolist()
        if not (0 <= ticks < LARGEST_TICK and -self._window <= above < max(1, ticks)):
            raise ValueError("the counts of the distances are out of range")
        if not np.isfinite(state["distances"]).all():
            raise ValueError("a distance is not finite")
        self._ring[:], self._counts[:] = state["distances"], state["counts"]
