"""The recogniser of one stream: ticks in, events out. The loop and the Python API both run this.

A tick costs `encode` (if its frame is fresh), `step` and, where it is due, `decide`; the event leaves,
then `settle`. Several ticks may be stepped at once, as far as `room` says; that changes no result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.decoding.decoder import Decision, DecoderConfig, open_decoder
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Gap, Moment, Start, Transition
from edge_hal.preprocess import resize
from edge_hal.runtime.engines.choose import Engines, choose_engines

from .clock import Break
from .pyramid import PyramidStream
from .ring import TIME


class Recognizer:
    """One stream through one bundle.

    Args:
        stream: the name events carry; `/` separates topics and cannot be part of it.
        decoder: thresholds, default the bundle's own.
        decide_every: ticks between decisions, default a bin of the first level.
        next_seq: gives each durable event its number; default counts from 0.
        engines: those of every level and the encoder, default what `choose_engines` finds, on `threads` threads.

    Raises:
        EdgeHalError: a bad name or number, or a graph that does not fit the bundle's table.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        stream: str = "default",
        decoder: DecoderConfig | None = None,
        decide_every: int | None = None,
        next_seq: Callable[[], int] | None = None,
        engines: Engines | None = None,
        threads: int = 1,
    ) -> None:
        if not stream or "/" in stream:
            raise EdgeHalError(
                f"'{stream}' cannot name a stream",
                "a name is not empty and has no '/'",
                exit_code=2,
            )
        if decide_every is not None and decide_every < 1:
            raise EdgeHalError(f"decide_every = {decide_every}", "it must be at least 1 tick", exit_code=2)
        self.bundle, self.spec, self.stream = bundle, bundle.spec, stream
        spec, thresholds = bundle.spec, decoder or bundle.decoder
        self.engines = engines or choose_engines(bundle, threads=threads)
        self._encoder = self.engines.encoder
        self.pyramid = PyramidStream(spec, self.engines.levels)
        self._decoder = open_decoder(thresholds, spec)
        self._decoder_hash = thresholds.fingerprint()
        self._decide_every = decide_every or spec.first_stride
        self._next_seq = next_seq or itertools.count().__next__
        self._shown = np.zeros(self.pyramid.ring.capacity[0], np.int64)
        self._first = Moment(0, 0, 0)
        self._last = Moment(0, 0, 0)
        self.since: Moment | None = None

    @property
    def epoch(self) -> int:
        return self.pyramid.epoch

    @property
    def action(self) -> str | None:
        """What goes on now, since `since`; None before the first decision of an epoch."""
        label = self._decoder.label
        return None if label is None else self.spec.labels[label]

    # --- ticks ----------------------------------------------------------------------------------

    def encode(self, data: NDArray[Any]) -> NDArray[np.float32]:
        """A frame as the vector level 0 takes: (D,) float32.

        Args:
            data: a uint8 BGR picture (H, W, 3) of any size, or a vector (D,) of finite numbers.

        Raises:
            EdgeHalError: it is neither, or the bundle has no encoder for pictures.
        """
        self.check(data)
        if data.ndim == 1:
            return data.astype(np.float32)
        assert self._encoder is not None and self.spec.encoder is not None
        return self._encoder.encode(resize(data, self.spec.encoder.height, self.spec.encoder.width))

    def check(self, data: NDArray[Any]) -> None:
        """Raises EdgeHalError where `encode` would, without the work."""
        size, shape = self.spec.front_end.size, data.shape
        if data.ndim == 1:
            if shape != (size,) or data.dtype.kind not in "fiu":
                raise EdgeHalError(
                    f"a vector has shape {shape} and type {data.dtype}",
                    f"the bundle takes ({size},)",
                )
            if not np.isfinite(data).all():
                raise EdgeHalError(
                    "a vector holds a number that is not finite",
                    "it would spoil every tick that can still see it",
                    "leave the frame out: a short hole is bridged",
                )
        elif self._encoder is None:
            raise EdgeHalError(
                f"a frame has shape {shape}",
                f"the bundle has no encoder, it takes vectors ({size},)",
            )
        elif data.dtype != np.uint8 or data.ndim != 3 or shape[2] != 3 or 0 in shape:
            raise EdgeHalError(
                f"a frame has shape {shape} and type {data.dtype}",
                "the encoder takes uint8 BGR pictures (height, width, 3)",
            )

    @property
    def room(self) -> int:
        """Ticks until the next decision or the end of the bin: as many may be stepped at once."""
        due, bin_left = self._decide_every - self.pyramid.ticks % self._decide_every, self.pyramid.room
        return due if bin_left is None else min(due, bin_left)

    @property
    def decision_due(self) -> bool:
        """Whether the last step ended where decisions are made."""
        return self.pyramid.ticks > 0 and self.pyramid.ticks % self._decide_every == 0

    def step(self, vectors: NDArray[np.float32], moments: Sequence[Moment]) -> int:
        """Step level 0 once over the first of these ticks, as many as one step may take.

        Upper levels wait for `settle`: the event can leave first.

        Args:
            vectors: (n, D).

        Returns:
            How many ticks were stepped, at least 1.

        Raises:
            EdgeHalError: a tick was left out.
        """
        now = self.pyramid.ticks
        if moments[0].tick != now:
            raise EdgeHalError(f"tick {moments[0].tick} came where tick {now} was due", "ticks never skip")
        chunk = self.pyramid.legal_chunk(min(self.room, len(moments)))
        part = moments[:chunk]
        self.pyramid.step(vectors[:chunk], [moment.t_ns for moment in part])
        for moment in part:
            self._shown[moment.tick % len(self._shown)] = moment.frame
        if now == 0:
            self._first = part[0]
        self._last = part[-1]
        return chunk

    def decide(self) -> Transition | None:
        """Whether an action has begun, as of the last tick stepped."""
        tick = self.pyramid.ticks - 1
        decision = self._decoder.decide(tick, self.pyramid.posterior(len(self._shown)))
        return None if decision is None else self._transition(decision)

    def follow(self, vectors: NDArray[np.float32], moments: Sequence[Moment]) -> list[Transition]:
        """Step any number of ticks, (n, D), decide where that is due, and settle."""
        transitions: list[Transition] = []
        done = 0
        while done < len(moments):
            done += self.step(vectors[done:], moments[done:])
            if self.decision_due and (transition := self.decide()):
                transitions.append(transition)
            self.settle()
        return transitions

    def settle(self) -> None:
        """Step the upper levels whose bins completed; what they say serves the next tick."""
        self.pyramid.settle()

    def reset(self) -> None:
        """A new epoch: the model knows nothing, the next label comes from None."""
        self.pyramid.reset()
        self._decoder.reset()
        self.since = None

    # --- beginning where another left off -------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that the events to come depend on, beside the ticks: numbers and arrays, see `checkpoint`."""
        # A decoder's state is plain numbers and arrays; what else it holds are tables, which never change.
        decoder = {name: value for name, value in vars(self._decoder).items() if not is_dataclass(value)}
        moments = {name: asdict(getattr(self, name)) for name in ("_first", "_last")}
        since = None if self.since is None else asdict(self.since)
        return {"pyramid": self.pyramid.state(), "decoder": decoder, "shown": self._shown, "since": since, **moments}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, of a recogniser of the same bundle and thresholds."""
        self.pyramid.restore(state["pyramid"])
        vars(self._decoder).update(state["decoder"])
        self._shown[:] = state["shown"]
        self._first, self._last = Moment(**state["_first"]), Moment(**state["_last"])
        self.since = None if state["since"] is None else Moment(**state["since"])

    def succeed(self, other: Recognizer) -> None:
        """Take over from a recogniser of another bundle, whose epoch a `gap` is about to end."""
        self.pyramid.epoch, self._last = other.epoch, other._last

    # --- events ---------------------------------------------------------------------------------

    def start(self, source: str) -> Start:
        return Start(
            self.stream,
            self.epoch,
            seq=self._next_seq(),
            source=source,
            labels=self.spec.labels,
            model_hz=self.spec.model_hz,
            bundle=self.bundle.fingerprint,
            decoder=self._decoder_hash,
        )

    def gap(self, due: Break) -> Gap:
        """A break, told; the epoch that it ended is left behind."""
        gap = Gap(
            self.stream,
            self.epoch,
            seq=self._next_seq(),
            reason=due.reason,
            begin=due.begin,
            end=due.end,
            lost_ticks=due.lost_ticks,
            reset=due.reset,
            bundle=self.bundle.fingerprint,
            decoder=self._decoder_hash,
        )
        if due.reset:
            self.reset()
            self._last = due.end
        return gap

    def end(self, reason: str, counters: dict[str, Any]) -> End:
        """`reason`: `eof`, `signal`, `source` or `error`."""
        return End(
            self.stream,
            self.epoch,
            seq=self._next_seq(),
            reason=reason,
            last=self._last,
            counters=counters,
        )

    # --- inside ---------------------------------------------------------------------------------

    def _transition(self, decision: Decision) -> Transition:
        labels, tick = self.spec.labels, decision.decision_tick
        self.since = self._moment(decision.boundary_tick)
        return Transition(
            self.stream,
            self.epoch,
            seq=self._next_seq(),
            from_=None if decision.previous is None else labels[decision.previous],
            to=labels[decision.label],
            boundary=self.since,
            decision=self._moment(tick),
            confidence=decision.confidence,
            warm=tick + 1 >= self.spec.receptive_field,
            decoder=self._decoder_hash,
        )

    def _moment(self, tick: int) -> Moment:
        if tick == 0:  # the first label of an epoch may be found after its tick has left the ring
            return self._first
        frame, t_ns = self._shown[tick % len(self._shown)], self.pyramid.ring.at(0, TIME, tick)
        return Moment(tick, int(frame), int(t_ns))
