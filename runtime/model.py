"""A bundle opened for recognition, and its streams: what N streams share is here, what each has is a `Recognizer`.

Shared: the bundle, the opened graphs and the tables of the decoder. Of its own each stream has its engines' buffers and
state, the ring of recent outputs, the decoder's state, and (in `Session` or `EventStream`) the frame clock.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

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
        decoder: DecoderConfig | None = None,
        decide_every: int | None = None,
        next_seq: Callable[[], int] | None = None,
        procedure_events: bool = True,
        owns_model: bool = False,
    ) -> Recognizer:
        """A new stream. One thread at a time may use it.

        Args:
            name: the name that events carry.
            decoder: thresholds, default the bundle's own.
            decide_every, next_seq, procedure_events: see `Recognizer`.
            owns_model: closing the engines of the stream closes the model too.

        Raises:
            EdgeHalError: a bad name or number, the device lacks memory, or the model is closed.
        """
        engines = self.opened.open_stream()
        return Recognizer(
            self.bundle,
            engines.owning_model() if owns_model else engines,
            *self._decoder(decoder or self.bundle.decoder),
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
