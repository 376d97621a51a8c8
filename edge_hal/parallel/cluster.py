"""The workers of a dask scheduler, as an executor. dask is imported when it is used."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from edge_hal.errors import EdgeHalError

from .workers import different, unusable, versions

CONNECT_S = 10.0
START_S = 30.0
"""How long the first worker may take to appear."""
ABSENT_S = 60.0
"""How long all workers may be away, before the work is given up."""
LARGE_BYTES = 100_000
"""Arguments above this size are sent once, and not with each task."""


class Cluster(Executor):
    """The workers of the scheduler at `address`, such as `tcp://host:8786`. What a worker did not finish when it was
    lost is done again by another one.

    Attributes:
        lost: why the work was given up, if it was.

    Raises:
        EdgeHalError: dask is not installed, the scheduler cannot be reached, it has no workers, or they cannot do this
            work.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            why = f"the workers of {address} need it"
            raise EdgeHalError("distributed is not installed", why, "pip install 'edge-hal[cluster]'") from error
        self.address, self.lost = address, ""
        try:
            self._client = Client(address, timeout=CONNECT_S, set_as_default=False, direct_to_workers=False)
        except (OSError, ValueError, ImportError) as error:
            todo = "start it: dask scheduler, and on each machine: dask worker ADDRESS"
            raise EdgeHalError(f"cannot reach the scheduler {address}", str(error), todo) from error
        try:
            self._client.wait_for_workers(1, timeout=START_S)
        except TimeoutError as error:
            self._client.close()
            todo = f"start some: dask worker {address}"
            raise EdgeHalError(f"the scheduler {address} has no workers", "", todo) from error
        self._check_versions()
        self._executor = self._client.get_executor(pure=False)
        self._kept: dict[str, Any] = {}
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._watch_workers, name="edge-hal-cluster", daemon=True)
        self._watch.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(function, *map(self._sent_once, args), **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the scheduler. The workers stay."""
        self._end.set()
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close(timeout=CONNECT_S)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.shutdown(cancel_futures=error is not None)

    def _sent_once(self, argument: Any) -> Any:
        if not isinstance(argument, bytes) or len(argument) < LARGE_BYTES:
            return argument
        key = f"edge-hal-{hashlib.sha256(argument).hexdigest()}"
        if key not in self._kept:
            # A task and not scattered data: the scheduler makes it again if the worker that holds it is lost.
            self._kept[key] = self._client.submit(bytes, argument, key=key)
        return self._kept[key]

    def _watch_workers(self) -> None:
        absent_s = 0.0
        while not self._end.wait(step_s := ABSENT_S / 30):
            absent_s = 0.0 if self._has_workers() else absent_s + step_s
            if absent_s >= ABSENT_S:
                self.lost = f"the scheduler {self.address} or all of its workers were away for {ABSENT_S:.0f} s"
                self._executor.shutdown(wait=False)
                return

    def _check_versions(self) -> None:
        """Raises EdgeHalError if a worker cannot import this edge-hal, or has other versions. A worker that joins later
        is checked with each task."""
        try:
            found = self._client.run(versions)
        except Exception as error:  # whatever a worker's interpreter raised
            self._client.close()
            raise unusable(f"{type(error).__name__}: {error}") from error
        for worker, theirs in found.items():
            if theirs != versions():
                self._client.close()
                raise unusable(f"{worker} has {different(theirs, versions())}")

    def _has_workers(self) -> bool:
        try:
            return bool(self._client.nthreads())
        except Exception:  # whatever the connection raises: without an answer there are none
            return False
