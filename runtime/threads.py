"""Threads that cannot fail unseen. Every thread of the runtime is a `Worker`."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import traceback
import weakref
from collections.abc import Callable

from edge_hal.logs import of_stream

STOP_S = 2.0
"""How long a stop waits for a thread that makes no progress."""
RETRY_S = 0.2
HEALTHY_S = 60.0
"""A thread that has run for this long since its last failure counts as healthy again."""

log = logging.getLogger("edge_hal.threads")


class Worker(threading.Thread):
    """A daemon thread. An exception that leaves `target` is logged and reported by `troubles`; the target is then
    called again.

    Args:
        restarts: failures within `HEALTHY_S` that are answered by a restart. After one more the thread ends.
        gave_up: called in this thread with the reason when it ends by a failure.
        stream: which of several streams it works for; default the one of the thread that makes it.
    """

    def __init__(
        self,
        target: Callable[[], object],
        name: str,
        *,
        restarts: int = 0,
        gave_up: Callable[[str], None] = lambda why: None,
        stream: str | None = None,
    ) -> None:
        super().__init__(name=f"edge-hal-{name}", daemon=True)
        self._variables = contextvars.copy_context()
        if stream is not None:
            self._variables.run(of_stream.set, stream)
        self.stream = self._variables.get(of_stream)
        self.failed = False
        self._work, self._restarts, self._gave_up = target, restarts, gave_up
        self._why: str | None = None
        self._failed_s = 0.0
        self._released = threading.Event()
        with _workers_lock:
            _workers.add(self)

    @property
    def trouble(self) -> str | None:
        """Why the thread ended, or was restarted within the last minute."""
        if self._why is None or (not self.failed and time.monotonic() - self._failed_s > HEALTHY_S):
            return None
        return f"the thread {self.name} {'ended' if self.failed else 'was restarted'}: {self._why}"

    def run(self) -> None:
        self._variables.run(self._run)

    def _run(self) -> None:
        failures = 0
        while not self._released.is_set():
            try:
                self._work()
                return
            except BaseException as error:  # SystemExit too: nothing may end a thread without a word
                now_s = time.monotonic()
                failures = failures + 1 if now_s - self._failed_s < HEALTHY_S else 1
                self._why, self._failed_s = describe(error), now_s
                self.failed = failures > self._restarts
            log.error(self.trouble)
            if self.failed:
                self._gave_up(self._why)
                return
            self._released.wait(RETRY_S)

    def finish(self, progress: Callable[[], object] = lambda: None, limit_s: float | None = None) -> bool:
        """Wait until the thread ends, but no longer than `limit_s` (`STOP_S`) without a change of `progress`. A thread
        that is left behind is logged. Returns whether it ended. Its troubles are reported no more."""
        self._released.set()
        limit_s = STOP_S if limit_s is None else limit_s
        if self.ident is not None:
            before = None
            while self.is_alive() and before != (before := (progress(),)):
                self.join(limit_s)
        ended = not self.is_alive()
        if not ended:
            log.error("the thread %s did not stop within %g s and is left behind", self.name, limit_s)
        with _workers_lock:
            _workers.discard(self)
        return ended


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_workers_lock = threading.Lock()  # a WeakSet that changes while another thread goes through it raises an exception


def troubles(stream: str | None = None) -> tuple[str, ...]:
    """One sentence for each thread of this process that failed and whose owner has not finished it, without the threads
    of other streams than `stream`."""
    with _workers_lock:
        workers = list(_workers)
    ours = [worker for worker in workers if worker.stream in (None, stream)]
    return tuple(sorted(worker.trouble for worker in ours if worker.trouble is not None))


def describe(error: BaseException) -> str:
    """The exception and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
