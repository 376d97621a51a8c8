"""Reload the bundle of a run: open and check it in the background, and refuse it if the run cannot go on with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.spec import PyramidSpec

from .options import RunOptions
from .stop import Stop
from .stream.recognizer import Recognizer
from .threads import Worker

log = logging.getLogger("edge_hal.run")


class Reloader:
    """Reads `--bundle` again when asked to (SIGHUP). If anything is wrong with it, the error is logged and the run
    goes on with the old one.

    Args:
        stop: its `reload_asked` is the request.
        make: opens a recogniser of a bundle; called in another thread.
    """

    def __init__(self, options: RunOptions, stop: Stop, make: Callable[[Bundle], Recognizer]) -> None:
        self._options, self._stop, self._make = options, stop, make
        self._thread: Worker | None = None
        self._ready: Recognizer | None = None

    def poll(self, current: Recognizer) -> Recognizer | None:
        """The recogniser that takes over now, if there is one. Called in each round of the loop; never blocks."""
        if self._thread is None:
            if self._stop.reload_asked:
                self._stop.reload_asked = False
                self._thread = Worker(partial(self._open, current), "reload")
                self._thread.start()
            return None
        if self._thread.is_alive():
            return None
        self._thread, ready, self._ready = None, self._ready, None
        return ready

    def close(self) -> None:
        if self._thread is not None:
            self._thread.finish()

    def _open(self, current: Recognizer) -> None:
        try:
            if not current.engines.model.opens_in_background:
                why = f"engines of {current.engines.kind} cannot be opened while others run"
                raise EdgeHalError("the bundle cannot be reloaded", why, "restart the run: no event number is lost")
            options = self._options
            bundle = load_bundle(options.bundle, allow_uncertified=options.allow_uncertified, trusted=options.trusted)
            self._options.check(bundle)
            check_succession(current.spec, bundle.spec, vectors=self._options.source.may_be_vectors)
            self._ready = self._make(bundle)
        except EdgeHalError as error:
            text = "the bundle was not reloaded, the old one goes on: %s (%s); %s"
            log.error(text, error.what, error.why, error.todo or "correct it and ask again")
        except Exception as error:  # whatever is wrong with the new bundle, the run goes on
            log.error("the bundle was not reloaded, the old one goes on: %s: %s", type(error).__name__, error)


def check_succession(old: PyramidSpec, new: PyramidSpec, *, vectors: bool) -> None:
    """Check that a run can go on with another bundle: what the `start` event said must stay true, and the frames of the
    source must fit. Everything else may differ.

    Raises:
        EdgeHalError: it cannot go on, and why.
    """
    pairs: list[tuple[str, object, object]] = [
        ("labels", old.labels, new.labels),
        ("model_hz", old.model_hz, new.model_hz),
    ]
    if vectors:
        pairs.append(("size of a vector", old.front_end.size, new.front_end.size))
    for name, before, after in pairs:
        if before != after:
            why = f"its {name}: {_short(after)}; until now: {_short(before)}"
            todo = "restart the run: no event number is lost"
            raise EdgeHalError("the new bundle differs in something that cannot change during a run", why, todo)


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
