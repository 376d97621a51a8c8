"""One run of one stream: open everything it needs, run the session, close everything.

A station runs several of them at one address (`station/`).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.decoding.decode import open_decoder, open_tracker
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import check_unfamiliar
from edge_hal.events import Event
from edge_hal.files import check_readable, check_writable

from .checks.selfcheck import open_selfcheck
from .delivery.journal import Journal, default_path
from .delivery.prometheus import MetricsServer
from .delivery.publisher import Publisher
from .model import Models
from .network.descriptors import raise_limit
from .observer import EventCallback, Observer
from .open_source import open_source
from .options import RunOptions, Summary
from .preview import Preview
from .recording.event_ring import open_recording
from .reload import Reloader, Succession
from .session import Session
from .sources.base import Source
from .sources.credentials import read_auth
from .stop import Stop, signals
from .stream.latency import Latency
from .stream.recognizer import Recognizer

__all__ = ["RunOptions", "Stop", "Summary", "run"]


SWITCH_S = 0.0005
"""How long a thread that computes may keep the interpreter from a thread that has a frame or an event. Python's default
of 5 ms would set the tail of every latency."""


def run(
    options: RunOptions,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Recognise one source until it ends, `stop` is asked for, or SIGINT or SIGTERM arrives.

    Args:
        on_ready: called with the endpoint once it is bound, before the first frame is captured.
        on_event: called in this thread with each durable event once the publisher has it.

    Raises:
        EdgeHalError: something named in the options cannot be used, or failed during the run; in the second case an
            `end` event with reason `error` was published.
    """
    stop = stop or Stop()
    raise_limit()
    with (
        signals(stop),  # from the first moment: opening takes seconds, for TensorRT minutes
        open_run(options, Models(), stop) as opened,
        quick_switches(),
        Publisher(
            options.endpoint,
            options.stream,
            journal=opened.journal,
            replay=options.replay,
            keys=options.keys,
            insecure=options.insecure,
            latency=opened.latency,
        ) as publisher,
    ):
        if options.metrics is not None:
            metrics = MetricsServer(options.metrics, publisher.vitals, insecure=options.insecure)
            opened.closing.enter_context(metrics)
        if on_ready is not None:
            on_ready(publisher.endpoint)
        return opened.run(publisher, [] if on_event is None else [EventCallback(on_event)])


@contextmanager
def quick_switches() -> Iterator[None]:
    """Python asks a running thread to release the interpreter after `SWITCH_S`."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def check_run(options: RunOptions) -> Bundle:
    """The bundle of a run whose options can work, as far as that can be known before anything is opened.

    Raises:
        EdgeHalError: what cannot work, and why.
    """
    bundle = load_bundle(options.bundle, allow_uncertified=options.allow_uncertified, trusted=options.trusted)
    options.check(bundle)
    check_unfamiliar(decoder_of(bundle, options), bundle.familiarity)
    if options.record is not None:
        check_writable(options.record, f"cannot record into {options.record}", "choose another --record")
    return bundle


def check_source(options: RunOptions, bundle: Bundle) -> None:
    """Open the source of a run and close it again. A camera is not opened.

    Raises:
        EdgeHalError: it cannot be opened, for example because the file does not exist.
    """
    _open_source(options, bundle).close()


def _open_source(options: RunOptions, bundle: Bundle) -> Source:
    return open_source(
        options.source,
        options.pace,
        vector_size=bundle.spec.front_end.size,
        fps=options.fps,
        size=options.size,
        fourcc=options.fourcc,
        auth=read_auth(options.camera_auth),
        limits=options.limits,
    )


@contextmanager
def open_run(options: RunOptions, models: Models, stop: Stop, *, reload_same: bool = True) -> Iterator[OpenedRun]:
    """Open what one run of one stream needs, and close it afterwards.

    Args:
        models: those that the streams of this process share.
        stop: ends the run, or reloads its bundle.
        reload_same: a reload of a bundle that has not changed begins a new epoch too.

    Raises:
        EdgeHalError: something cannot be opened; then nothing stays open.
    """
    bundle = check_run(options)
    source = _open_source(options, bundle)
    try:
        with open_journal(options) as journal, ExitStack() as closing:
            next_seq = itertools.count(0 if journal is None else journal.next_seq).__next__
            recognizer = _open_stream(models, bundle, options.engine, options, next_seq)
            engine = recognizer.engines.kind
            reloader = Reloader(
                options,
                stop,
                make=lambda bundle: _open_stream(models, bundle, engine, options, next_seq),
                keep=lambda bundle, current: _on_engines_of(current, bundle, options, next_seq),
                reload_same=reload_same,
            )
            opened = OpenedRun(options, stop, source, journal, recognizer, reloader, Latency(), closing)
            closing.callback(opened.close_engines)
            closing.callback(reloader.close)
            yield opened
    finally:
        stop.forget_wakers()
        source.close()


@dataclass
class OpenedRun:
    """What one run of one stream has opened."""

    options: RunOptions
    stop: Stop
    source: Source
    journal: Journal | None
    recognizer: Recognizer
    reloader: Succession
    latency: Latency
    closing: ExitStack
    session: Session | None = None

    def run(
        self,
        publisher: Publisher,
        more: Sequence[Observer] = (),
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Summary:
        """From the event `start` to the event `end`. `more`: observers besides those that the options ask for; `turn`:
        see `Session`."""
        options, stop = self.options, self.stop
        stop.on_ask(self.source.wake)
        stop.on_ask(publisher.wake)
        publisher.wait_subscribers(options.wait_subscribers, lambda: stop.asked)
        observers = [*_observers(options, self.recognizer, self.source), *more]
        with ExitStack() as undo:
            for each in observers:
                undo.callback(each.close)
            self.session = session = Session(
                options, self.recognizer, self.source, publisher, self.latency, stop, self.reloader, observers, turn
            )
            undo.pop_all()  # from here on the session closes them
        reason, counters, elapsed_s = session.run()
        ticks_per_s = counters["ticks"] / elapsed_s if elapsed_s > 0 else 0.0
        latency_ms = self.latency.summary()
        return Summary(reason, counters, session.events, round(ticks_per_s, 2), latency_ms, session.health())

    def close_engines(self) -> None:
        """Those in use: a reload may have replaced them."""
        current = self.recognizer if self.session is None else self.session.recognizer
        current.engines.close()


def _open_stream(
    models: Models, bundle: Bundle, engine: str, options: RunOptions, next_seq: Callable[[], int]
) -> Recognizer:
    return models.stream(
        bundle,
        engine,
        options.threads,
        options.stream,
        decoder=decoder_of(bundle, options),
        decide_every=options.decide_every,
        next_seq=next_seq,
        procedure_events=options.events == "all",
    )


def decoder_of(bundle: Bundle, options: RunOptions) -> DecoderConfig:
    """The thresholds of the bundle, as the options change them."""
    return bundle.decoder.with_decide(options.decide).with_thresholds(options.decoder)


def _on_engines_of(current: Recognizer, bundle: Bundle, options: RunOptions, next_seq: Callable[[], int]) -> Recognizer:
    """A recogniser of a bundle with the same graphs and another decoder. `current` may go on until it takes over."""
    decoder = decoder_of(bundle, options)
    return Recognizer(
        bundle,
        current.engines,
        open_decoder(decoder, bundle.spec),
        open_tracker(decoder, bundle.spec),
        stream=options.stream,
        decide_every=options.decide_every,
        next_seq=next_seq,
        procedure_events=options.events == "all",
    )


def _observers(options: RunOptions, recognizer: Recognizer, source: Source) -> list[Observer]:
    """Those that the options ask for, in the order in which they are told. To add one, append it here."""
    observers: list[Observer] = []
    try:
        if options.preview is not None:
            observers.append(Preview(options.preview, options.stream, keys=options.keys, insecure=options.insecure))
        if options.record is not None:
            observers.append(open_recording(options.record, options, recognizer, source))
        if options.selfcheck_s is not None:
            observers.append(open_selfcheck(recognizer, options.selfcheck_s))
    except BaseException:
        for each in observers:
            each.close()
        raise
    return observers


@contextmanager
def open_journal(options: RunOptions) -> Iterator[Journal | None]:
    """The journal of a run, if it keeps one. Only the default folder is created; a given one must exist."""
    if options.journal is None:
        yield None
        return
    what, todo = f"cannot open the journal {options.journal}", "choose another --journal"
    if options.journal == default_path(options.stream):
        with suppress(OSError):  # opening it says why
            options.journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = (Path(f"{options.journal}{suffix}") for suffix in ("", ".lock", "-wal", "-shm"))
    for file in (options.journal.parent, *own):  # SQLite adds files to the folder and removes them
        check_readable(file, what, todo)
        check_writable(file, what, todo)
    with Journal(options.journal, options.stream, options.retention) as journal:
        yield journal
