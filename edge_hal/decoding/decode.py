"""Open what decides for one stream, and run it over the posteriors of one recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_hal.spec import PyramidSpec

from .belief import Belief, Beliefs, BeliefTracker
from .belief_decoder import BeliefDecoder
from .decoder import Decision, Decoder
from .decoder_config import DecoderConfig
from .forward_filter import filter_tables
from .hysteresis import HysteresisDecoder
from .semi_markov import SemiMarkovDecoder

Rows = NDArray[np.float32]


def open_decoder(config: DecoderConfig, spec: PyramidSpec) -> Decoder:
    """The decoder that `config` asks for: the belief if it has a procedure and `decide_at` is above 0. Otherwise the
    Viterbi filter if it has a procedure and `evidence_hz` is above 0, and hysteresis if not."""
    if config.believes:
        return BeliefDecoder(config, spec.model_hz, memory_ticks(spec))
    hysteresis = config.procedure is None or config.evidence_hz == 0
    kind: type[Decoder] = HysteresisDecoder if hysteresis else SemiMarkovDecoder
    return kind(config, spec.model_hz, spec.lag_ticks)


def open_tracker(
    config: DecoderConfig, spec: PyramidSpec, lags_ticks: Sequence[int] | None = None
) -> BeliefTracker | None:
    """What follows the belief of one stream; None without a procedure. `lags_ticks`: of the heads, default all."""
    if config.procedure is None:
        return None
    tables = filter_tables(config.procedure, spec.model_hz, config.free_order)
    lags = lags_ticks or sorted({spec.lag_ticks, *spec.other_lags_ticks})
    # Before 0.3 nothing was decided by the belief, so only the reports need one.
    hz = (config.belief_hz, config.decide_hz if config.believes else config.belief_hz)
    evidence = (hz[0] / spec.model_hz, hz[1] / spec.model_hz)
    return BeliefTracker(tables, evidence, lags, config.now_temperature)


def memory_ticks(spec: PyramidSpec) -> int:
    """How far back a boundary may lie. A bin less than the ring holds: up to a bin may be stepped before a decision."""
    return spec.ring_capacity - spec.first_stride


def decide_every(config: DecoderConfig, spec: PyramidSpec) -> int:
    """Ticks between two decisions: the belief decides at each tick, the other decoders at the end of each bin."""
    return 1 if config.believes else spec.first_stride


def split_heads(log_posteriors: Rows, spec: PyramidSpec) -> dict[int, Rows]:
    """Lag in ticks -> (T, K) log posteriors of that head.

    Args:
        log_posteriors: (T, K) of the head with lag `spec.lag_ticks`, or (T, H K): after it, those with the lags
            `spec.other_lags_ticks`.
    """
    labels = len(spec.labels)
    heads = log_posteriors.reshape(len(log_posteriors), -1, labels)
    lags = (spec.lag_ticks, *spec.other_lags_ticks)[: heads.shape[1]]
    return {lag: heads[:, number] for number, lag in enumerate(lags)}


def decode_posteriors(log_posteriors: Rows, config: DecoderConfig, spec: PyramidSpec) -> list[Decision]:
    """The decisions that a stream takes on one epoch. `log_posteriors` as in `split_heads`."""
    return [decision for _, decision in follow_posteriors(log_posteriors, config, spec) if decision is not None]


def follow_posteriors(
    log_posteriors: Rows, config: DecoderConfig, spec: PyramidSpec
) -> Iterator[tuple[Belief | None, Decision | None]]:
    """Whenever a stream may decide: the belief, None where another decoder decides, and the decision, if one is taken.
    At most `spec.ring_capacity` rows are read at a time, as on a device."""
    decoder, belief = open_decoder(config, spec), None
    beliefs = beliefs_of(log_posteriors, config, spec) if config.believes else None
    main, every = split_heads(log_posteriors, spec)[spec.lag_ticks], decide_every(config, spec)
    for tick in range(every - 1, len(main), every):
        if beliefs is not None:
            belief = next(beliefs).steady
        yield belief, decoder.decide(tick, main[max(0, tick + 1 - spec.ring_capacity) : tick + 1], belief)


def beliefs_of(log_posteriors: Rows, config: DecoderConfig, spec: PyramidSpec) -> Iterator[Beliefs]:
    """The beliefs of a stream whenever a decision is due. `config` must have a procedure."""
    heads = split_heads(log_posteriors, spec)
    tracker = open_tracker(config, spec, sorted(heads))
    assert tracker is not None
    every = decide_every(config, spec)
    for tick in range(every - 1, len(log_posteriors), every):
        yield tracker.follow(tick, {lag: rows[: tick + 1] for lag, rows in heads.items()})
