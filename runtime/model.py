"""A bundle opened for recognition, and its streams: what N streams share is here, what each has is a `Recognizer`.

Shared: the bundle, the opened graphs and the tables of the decoder. Of its own each stream has its engines' buffers and
state, the ring of recent outputs, the decoder's state, and (in `Session` or `EventStream`) the frame clock.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.decoding.belief import BeliefTracker
from edge_hal.decoding.decode import open_decoder, open_tracker
from edge_hal.decoding.decoder import Decoder
from edge_hal.decoding.decoder_config import DecoderConfig

from .engines import choose
from .engines.engine import EngineOptions
from .stream.recognizer import Recognizer


class Model:
    """The shared part of all streams of one bundle. Streams may be opened, and run, in several threads.

    Args:
        engine: `auto`, `onnxruntime` or `tensorrt`.
        threads: threads of ONNX Runtime, for one step.

    Raises:
        EdgeHalError: the engine cannot run the bundle, or a graph does not fit the bundle's table.
    """

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int = 1) -> None:
        self.bundle = bundle
        self.opened = choose.open_model(bundle, engine, EngineOptions(threads))
        self._decoders: dict[str, tuple[Decoder, BeliefTracker | None]] = {}
        self._lock = threading.Lock()

    def stream(
        self,
        name: str = "default",
        *,
        bundle: Bundle | None = None,
        decoder: DecoderConfig | None = None,
        decide_every: int | None = None,
        next_seq: Callable[[], int] | None = None,
        procedure_events: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> Recognizer:
        """A new stream. One thread at a time may use it.

        Args:
            name: the name that events carry.
            bundle: one with the same graphs, perhaps with other thresholds; default that of the model.
            decoder: thresholds, default the bundle's own.
            decide_every, next_seq, procedure_events: see `Recognizer`.
            on_close: called after the engines of the stream were closed.

        Raises:
            EdgeHalError: a bad name or number, the device lacks memory, or the model is closed.
        """
        engines, bundle = self.opened.open_stream(), bundle or self.bundle
        return Recognizer(
            bundle,
            engines if on_close is None else engines.closing(on_close),
            *self._decoder(decoder or bundle.decoder),
            stream=name,
            decide_every=decide_every,
            next_seq=next_seq,
            procedure_events=procedure_events,
        )

    def close(self) -> None:
        """Free what the model holds on a device. Streams that are open stay usable."""
        self.opened.close()

    def _decoder(self, config: DecoderConfig) -> tuple[Decoder, BeliefTracker | None]:
        """A decoder and a belief whose tables are shared with all streams of the same configuration."""
        key = json.dumps(config.to_dict(), sort_keys=True)
        with self._lock:
            if key not in self._decoders:
                self._decoders[key] = open_decoder(config, self.bundle.spec), open_tracker(config, self.bundle.spec)
            decoder, tracker = self._decoders[key]
            return decoder.another(), None if tracker is None else tracker.another()


class Models:
    """The models of one process. Streams of the same graphs share one, which is closed after the last of them."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, int], Model] = {}
        self._streams: Counter[tuple[str, str, int]] = Counter()
        self._lock = threading.Lock()

    def stream(self, bundle: Bundle, engine: str, threads: int, name: str, **how: Any) -> Recognizer:
        """A stream of the model of `bundle`, which is opened if no other stream has opened it; see `Model` and
        `Model.stream`. Closing its engines gives the model back."""
        key = (bundle.fingerprint, engine, threads)
        with self._lock:  # several streams of a bundle start at once, and one of them opens it
            if key not in self._open:
                self._open[key] = Model(bundle, engine, threads)
            self._streams[key] += 1
        try:
            return self._open[key].stream(name, bundle=bundle, on_close=partial(self._leave, key), **how)
        except BaseException:
            self._leave(key)
            raise

    def _leave(self, key: tuple[str, str, int]) -> None:
        with self._lock:
            self._streams[key] -= 1
            if not self._streams[key]:
                self._open.pop(key).close()


def open_model(bundle: str | Path, *, engine: str = "auto", threads: int = 1, allow_uncertified: bool = False) -> Model:
    """Open a bundle for any number of streams.

    Args:
        bundle: the directory that `edge-hal export` wrote.
        engine: `auto`, `onnxruntime` or `tensorrt`.
        threads: threads of ONNX Runtime, for one step.

    Raises:
        EdgeHalError: the bundle is damaged, uncertified or of another version, or the engine cannot run it.
    """
    return Model(load_bundle(Path(bundle), allow_uncertified=allow_uncertified), engine, threads)
