"""One run of a fused stream. It is a run like any other: its source delivers fused posteriors, and its model passes
them on, so clock, decoder, events, journal and counters are those of every stream."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.decoding.decode import open_decoder, open_tracker
from edge_hal.decoding.fusion import EQUAL, check_fusable, fused_fingerprint, fused_spec
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.engine import Engines
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.runner import OpenedRun, check_run, decoder_of, open_journal
from edge_hal.runtime.stop import Stop
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.spec import PyramidSpec

from .fused_source import FusedSource
from .options import FusedOptions
from .views import Views

log = logging.getLogger("edge_hal.run")


class PosteriorEngine:
    """A level that passes its input on: vectors (n, H K) are the log posteriors of all heads."""

    def __init__(self, spec: PyramidSpec) -> None:
        self._labels = len(spec.labels)

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        x = inputs["x"]
        return {"frame": x[:, : self._labels], "lagged": x[:, self._labels :], "change": np.zeros((len(x), 1), x.dtype)}

    def reset(self) -> None:
        """It has no state."""

    def state(self) -> dict[str, NDArray[Any]]:
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """It has no state."""


@dataclass(frozen=True)
class FusedModel:
    """The model of a fused stream, which has no graphs."""

    why: str
    spec: PyramidSpec
    kind: str = "fusion"
    opens_in_background: bool = True

    def open_stream(self) -> Engines:
        return Engines(self, (PosteriorEngine(self.spec),), None)

    def close(self) -> None:
        """It holds nothing."""


def fused_bundle(bundles: Sequence[Bundle], weights: Sequence[float], labels: Sequence[str]) -> Bundle:
    """What events tell of the bundles of the views. Its decoder is that of the first view whose labels have the order
    of the source, `labels`, without `unfamiliar`: a view tells that of its own input."""
    first = next(bundle for bundle in bundles if bundle.spec.labels == labels)
    return replace(
        first,
        spec=fused_spec([first.spec, *(bundle.spec for bundle in bundles)]),
        decoder=replace(first.decoder, unfamiliar_per_h=0.0),
        fingerprint=fused_fingerprint([bundle.fingerprint for bundle in bundles], weights),
        certified=all(bundle.certified for bundle in bundles),
        familiarity=None,
    )


def fits(spec: PyramidSpec, bundle: Bundle) -> bool:
    """Whether posteriors of this bundle can be fused with those of `spec`. The source counts others as unfit."""
    try:
        check_fusable(("", ""), (spec, bundle.spec))
    except EdgeHalError:
        return False
    return True


def fitting(names: Sequence[str], bundles: Sequence[Bundle]) -> list[Bundle | None]:
    """The bundles that can be fused with the first one that fits another; None for a view that is left out.

    Raises:
        EdgeHalError: no two of them fit.
    """
    for first in bundles:
        found = [bundle if fits(first.spec, bundle) else None for bundle in bundles]
        if sum(bundle is not None for bundle in found) > 1:
            return found
    check_fusable(names, [bundle.spec for bundle in bundles])
    raise AssertionError("a view alone is refused before")


class FusedSuccession:
    """Follows the bundles of the views: if one of them has taken over another, the fused stream does so too. One that
    does not fit changes nothing: the source leaves its view out.

    Args:
        spec: that of the source.
        opened: of each view; None for one that is left out.
        bundles: those in use now, by view; a view that has not begun is missing.
    """

    def __init__(
        self,
        names: Sequence[str],
        spec: PyramidSpec,
        opened: Sequence[Bundle | None],
        bundles: Callable[[], Mapping[str, Bundle]],
        make: Callable[[Sequence[Bundle | None]], Recognizer],
    ) -> None:
        self._names, self._spec, self._bundles, self._make = names, spec, bundles, make
        self._used = tuple(opened)
        self._seen: Sequence[Bundle | None] = self._used

    def poll(self, current: Recognizer) -> Recognizer | None:
        found = self._bundles()
        seen = [found.get(name) for name in self._names]
        if all(one is other for one, other in zip(seen, self._seen, strict=True)):
            return None
        self._seen = seen
        now = tuple(
            one if one is not None and fits(self._spec, one) else used
            for one, used in zip(seen, self._used, strict=True)
        )
        if all(_alike(one, other) for one, other in zip(now, self._used, strict=True)):
            return None
        if not any(one is not None and one.spec.labels == self._spec.labels for one in now):
            return None  # the posteriors of the source keep their order, and no decoder has it any more
        self._used = now
        return self._make(now)

    def health(self) -> dict[str, Any]:
        return {}


def _alike(one: Bundle | None, other: Bundle | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.fingerprint == other.fingerprint and one.decoder == other.decoder


@contextmanager
def open_fused(
    fused: FusedOptions,
    streams: Mapping[str, RunOptions],
    views: Views,
    stop: Stop,
    bundles: Callable[[], Mapping[str, Bundle]],
) -> Iterator[OpenedRun]:
    """Open what one run of a fused stream needs, and close it afterwards; as `open_run`.

    Args:
        streams: the options of each stream of the station.
        views: what the streams hand over.
        bundles: those that the views use now.
    """
    options, names = fused.run, fused.views
    weights = [EQUAL if fused.weights is None else fused.weights[name] for name in names]
    try:
        opened = fitting(names, [check_run(streams[name]) for name in names])
        spec = next(bundle.spec for bundle in opened if bundle is not None)
        source = FusedSource(names, spec, weights, fused.wait_s, live=options.pace != "asap")
        with open_journal(options) as journal, ExitStack() as closing:
            closing.callback(source.close)  # a view at full pace may wait for it
            next_seq = itertools.count(0 if journal is None else journal.next_seq).__next__

            def recognizer(used: Sequence[Bundle | None]) -> Recognizer:
                there = [(each, weight) for each, weight in zip(used, weights, strict=True) if each is not None]
                bundle = fused_bundle([each for each, _ in there], [weight for _, weight in there], spec.labels)
                decoder, model = decoder_of(bundle, options), FusedModel(f"views {', '.join(names)}", bundle.spec)
                return Recognizer(
                    bundle,
                    model.open_stream(),
                    open_decoder(decoder, bundle.spec),
                    open_tracker(decoder, bundle.spec),
                    stream=options.stream,
                    decide_every=options.decide_every,
                    next_seq=next_seq,
                    procedure_events=options.events == "all",
                )

            told = ", ".join(f"{name} {weight:g}" for name, weight in zip(names, weights, strict=True))
            equal = " (equal: none were given)" if fused.weights is None else ""
            log.info("views and weights: %s%s", told, equal, extra={"fields": {"views": names, "weights": weights}})
            succession = FusedSuccession(names, spec, opened, bundles, recognizer)
            made = OpenedRun(options, stop, source, journal, recognizer(opened), succession, Latency(), closing)
            views.begin(source)
            yield made
    finally:
        views.begin(None)
        stop.forget_wakers()
