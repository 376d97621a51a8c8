"""Reload the bundle of a run: open and check it in the background, and refuse it if the run cannot go on with it.

If only `decoder.json` or `procedure.json` differs, the run keeps its engines. So such a reload is quick, and it works
with engines that cannot be opened while others run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from edge_hal.bundle import Bundle, file_hash, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.model_folder import LinkWatch
from edge_hal.spec import PyramidSpec

from .options import RunOptions
from .stop import Stop
from .stream.recognizer import Recognizer
from .threads import Worker

log = logging.getLogger("edge_hal.run")


class Succession(Protocol):
    """Says when another bundle takes over."""

    def poll(self, current: Recognizer) -> Recognizer | None:
        """The recogniser that takes over now, if there is one. Called in each round of the loop; never blocks."""
        ...

    def health(self) -> dict[str, Any]:
        """What the health of the run tells of it."""
        ...


class Reloader:
    """Reads `--bundle` again when asked to (SIGHUP), or when it is a link that points elsewhere. If anything is wrong
    with the bundle, the error is logged and reported by `health`, and the run goes on with the old one.

    Args:
        stop: its `reload_asked` is the request.
        make: opens engines for a bundle and a recogniser that owns them.
        keep: a recogniser of a bundle with the same graphs, on the engines of the one given. It touches no engine.
        reload_same: also a bundle that has not changed takes over.

    `make` and `keep` are called in another thread.
    """

    def __init__(
        self,
        options: RunOptions,
        stop: Stop,
        make: Callable[[Bundle], Recognizer],
        keep: Callable[[Bundle, Recognizer], Recognizer],
        *,
        reload_same: bool = True,
    ) -> None:
        self._options, self._stop, self._make, self._keep = options, stop, make, keep
        self._link = LinkWatch(options.bundle)
        self._reload_same = reload_same
        self._report: dict[str, Any] = {"asked": 0, "done": 0, "kept_engines": None, "refused": None}
        self._thread: Worker | None = None
        self._ready: Recognizer | None = None
        self._opened = False  # `_ready` has engines of its own
        self._closed = False
        self._lock = threading.Lock()  # around `_ready` and `_closed`: a successor that comes too late is closed

    def poll(self, current: Recognizer) -> Recognizer | None:
        """The recogniser that takes over now, if there is one. Called in each round of the loop; never blocks."""
        if self._thread is None:
            if self._stop.reload_asked or self._points_elsewhere(current):
                self._stop.reload_asked = False
                self._report = {**self._report, "asked": self._report["asked"] + 1}
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
        with self._lock:
            self._closed = True
            if self._ready is not None and self._opened:  # it came too late to take over
                self._ready.engines.close()

    def health(self) -> dict[str, Any]:
        """Nothing before the first request. `asked`, `done`: how often; `kept_engines`: whether the last one that was
        done kept them; `refused`: why the last request was refused, or None."""
        return {"reload": self._report} if self._report["asked"] else {}

    def _open(self, current: Recognizer) -> None:
        try:
            options = self._options
            bundle = load_bundle(options.bundle, allow_uncertified=options.allow_uncertified, trusted=options.trusted)
            self._options.check(bundle)
            kept = bundle.fingerprint == current.bundle.fingerprint
            if kept and not self._reload_same and bundle.decoder == current.bundle.decoder:
                self._report = {**self._report, "refused": None}
                return
            self._opened = not kept
            if kept:
                successor = self._keep(bundle, current)
            elif current.engines.model.opens_in_background:
                check_succession(current.spec, bundle.spec, vectors=self._options.source.may_be_vectors)
                successor = self._make(bundle)
            else:
                what = f"a bundle with other graphs cannot be loaded by {current.engines.kind} during a run"
                why = "its engines cannot be opened while others run; decoder.json and procedure.json can be changed"
                raise EdgeHalError(what, why, "restart the run: no event number is lost")
            self._report = {**self._report, "done": self._report["done"] + 1, "kept_engines": kept, "refused": None}
            with self._lock:
                if self._closed and not kept:
                    successor.engines.close()
                self._ready = successor
        except EdgeHalError as error:
            why = f" ({error.why})" if error.why else ""
            self._refuse(f"{error.what}{why}; {error.todo or 'correct it and ask again'}")
        except Exception as error:  # whatever is wrong with the new bundle, the run goes on
            self._refuse(f"{type(error).__name__}: {error}")

    def _points_elsewhere(self, current: Recognizer) -> bool:
        """Whether `--bundle` is a link that has begun to point to another bundle."""
        first = self._link.target is None
        if not self._link.moved() or self._link.target is None:
            return False
        try:  # it may have moved since the run read it
            return not first or file_hash(self._link.target / "manifest.json") != current.bundle.fingerprint
        except OSError:
            return True  # the reload says what is wrong

    def _refuse(self, why: str) -> None:
        log.error("the bundle was not reloaded, the old one goes on: %s", why)
        self._report = {**self._report, "refused": why}


def check_succession(old: PyramidSpec, new: PyramidSpec, *, vectors: bool) -> None:
    """Check that a run can go on with another bundle: what the `start` event said must stay true, and the frames of the
    source must fit. Everything else may differ. Events name actions, so the labels may be in another order.

    Raises:
        EdgeHalError: it cannot go on, and why.
    """
    pairs: list[tuple[str, object, object]] = [
        ("labels", tuple(sorted(old.labels)), tuple(sorted(new.labels))),
        ("model_hz", old.model_hz, new.model_hz),
    ]
    if vectors:
        pairs.append(("size of a vector", old.front_end.size, new.front_end.size))
    for name, before, after in pairs:
        if before != after:
            why = f"its {name}: {_short(after)}; until now: {_short(before)}"
            todo = "restart the run: no event number is lost"
            raise EdgeHalError("the new bundle differs in something that cannot change during a run", why, todo)


def take_over(before: Recognizer, successor: Recognizer) -> None:
    """Let the successor go on in place of the recogniser before it. Its state starts empty."""
    successor.reset()  # it may have the engines of the one before, with their state
    successor.succeed(before)
    if successor.engines is not before.engines:
        before.engines.close()
    bundle = successor.bundle.fingerprint
    log.info("bundle %s takes over", bundle[:12], extra={"fields": {"bundle": bundle}})


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
