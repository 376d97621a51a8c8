"""Another bundle for a run that goes on: opened and checked beside it, refused where it could not take over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.spec import PyramidSpec

from .options import RunOptions
from .stop import Stop
from .stream.recognizer import Recognizer

log = logging.getLogger("edge_hal.run")


class Reloader:
    """Reads `--bundle` again when asked to (SIGHUP). Whatever is wrong with it is logged, and the old one goes on.

    Args:
        stop: where it is asked for.
        make: a recogniser of a bundle, with engines of its own.
    """

    def __init__(self, options: RunOptions, stop: Stop, make: Callable[[Bundle], Recognizer]) -> None:
        self._options, self._stop, self._make = options, stop, make
        self._thread: threading.Thread | None = None
        self._ready: Recognizer | None = None

    def poll(self, current: Recognizer) -> Recognizer | None:
        """Called each round; it waits for nothing. The recogniser that takes over now, if one does."""
        if self._thread is None:
            if self._stop.reload_asked:
                self._stop.reload_asked = False
                self._thread = threading.Thread(target=self._open, args=(current,), name="edge-hal-reload", daemon=True)
                self._thread.start()
            return None
        if self._thread.is_alive():
            return None
        self._thread, ready, self._ready = None, self._ready, None
        return ready

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _open(self, current: Recognizer) -> None:
        try:
            if current.engines.kind != "onnxruntime":
                why = f"its engines belong to the thread that runs them ({current.engines.kind})"
                raise EdgeHalError("a bundle cannot be taken over", why, "restart the run: no number is lost")
            bundle = load_bundle(self._options.bundle, allow_uncertified=self._options.allow_uncertified)
            self._options.check(bundle)
            check_succession(current.spec, bundle.spec, vectors=self._options.source.may_be_vectors)
            self._ready = self._make(bundle)
        except EdgeHalError as error:
            text = "the bundle was not reloaded, the old one goes on: %s (%s); %s"
            log.error(text, error.what, error.why, error.todo or "correct it and ask again")
        except Exception as error:  # a broken bundle never stops a run
            log.error("the bundle was not reloaded, the old one goes on: %s: %s", type(error).__name__, error)


def check_succession(old: PyramidSpec, new: PyramidSpec, *, vectors: bool) -> None:
    """Whether a run can go on with another bundle. What subscribers were told at `start` must stay true, and the frames
    that come must fit; all else may differ.

    Raises:
        EdgeHalError: it cannot, and why.
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
            todo = "restart the run: no number is lost"
            raise EdgeHalError("the new bundle differs in what cannot change", why, todo)


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
