"""How far the input is from that of training, and how often averages of that distance exceed a level.

A vector is compared with a mixture of Gaussians (`vector_mixture.py`). The encoder learns what tells the steps apart,
so a foreign thing may change its numbers little. A coarse copy of the picture may follow them, which has a mixture of
its own. Its distances are brought to the mean and spread of the others, and the larger distance counts.

The mean of the logarithm of the distance over a trailing window is judged: a hand that passes before the lens for a
moment changes it little. The tail of these means in normal videos is a generalised Pareto distribution (Pickands 1975;
Coles, *An Introduction to Statistical Modeling of Extreme Values*, chapter 4), so a rate of false alarms gives a limit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import parse_json

from .decoder_config import DecoderConfig
from .vector_mixture import FIELDS, Array, VectorMixture

FILE = "familiarity.json"
COARSE = "coarse."
"""Before the names of what belongs to the coarse copy."""
LARGEST_TICK = 1 << 60


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What input vectors of training look like, and the tail of their distances in normal videos.

    Attributes:
        vector: of the numbers that the model reads.
        window_s: length of the average.
        usual: mean of the logarithm of the squared distance in normal videos.
        level, peaks_per_h, tail, shape: averages in normal videos exceed `level` in `peaks_per_h` runs an hour. The
            excess of their peaks is distributed as a generalised Pareto with scale `tail` and this shape.
        coarse: of the numbers behind them; None if there are none.
        offset, gain: bring the logarithms of its squared distances to the mean and spread of those of `vector`.
    """

    vector: VectorMixture
    window_s: float
    usual: float
    level: float
    peaks_per_h: float
    tail: float
    shape: float
    coarse: VectorMixture | None = None
    offset: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        numbers = [getattr(self, name) for name in (*NUMBERS, *OF_COARSE)]
        if not np.isfinite(numbers).all():
            raise ValueError("a number is not finite")
        if min(self.window_s, self.tail, self.peaks_per_h, self.gain) <= 0:
            raise ValueError("a number is not positive")
        if self.window_s > 600 or not -1 < self.shape < 1:
            raise ValueError("a number is out of range")

    @property
    def size(self) -> int:
        """D, the numbers of an input vector."""
        return self.vector.size + (0 if self.coarse is None else self.coarse.size)

    def distances(self, x: NDArray[np.floating]) -> Array:
        """(n, D) -> (n,): logarithm of the squared distance."""
        found = self.vector.distances(x[:, : self.vector.size])
        if self.coarse is None:
            return found
        coarse = self.coarse.distances(x[:, self.vector.size :])
        larger: Array = np.maximum(found, self.offset + self.gain * coarse)
        return larger

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
        found = self.vector.tensors() | {name: np.float32(getattr(self, name)) for name in NUMBERS}
        if self.coarse is not None:
            found |= self.coarse.tensors(COARSE)
            found |= {COARSE + name: np.float32(getattr(self, name)) for name in OF_COARSE}
        return {name: np.asarray(value, np.float32) for name, value in found.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Familiarity:
        """Inverse of `tensors`, from arrays or lists. Raises ValueError if they do not belong together."""
        coarse = any(name.startswith(COARSE) for name in tensors)
        of_coarse = [COARSE + name for name in (*FIELDS, *OF_COARSE)] if coarse else []
        odd = sorted(tensors.keys() ^ {*FIELDS, *NUMBERS, *of_coarse})
        if odd:
            raise ValueError(f"see '{odd[0]}'")
        found: dict[str, Any] = {}
        for name, value in tensors.items():
            array = np.asarray(value, np.float32).astype(np.float64)
            number = name.removeprefix(COARSE) in (*NUMBERS, *OF_COARSE, "rest")
            if number and array.ndim:
                raise ValueError("an array stands for a number")
            found[name] = float(array) if number else array
        return cls(
            vector=VectorMixture.from_arrays(found),
            **{name: found[name] for name in NUMBERS},
            coarse=VectorMixture.from_arrays(found, COARSE) if coarse else None,
            **({name: found[COARSE + name] for name in OF_COARSE} if coarse else {}),
        )

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


NUMBERS = ("window_s", "usual", "level", "peaks_per_h", "tail", "shape")
OF_COARSE = ("offset", "gain")


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
