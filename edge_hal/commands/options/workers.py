"""The option `--workers`: how many on this machine, or the scheduler of others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.parallel import Workers


@contextlib.contextmanager
def workers_of(given: str | None) -> Iterator[Workers | None]:
    """The workers that `--workers` names: a number, or the address of a dask scheduler; None if it was not given.

    Raises:
        EdgeHalError: it is neither, or the scheduler cannot be used.
    """
    if given is None:
        yield None
    elif given.isdigit() and int(given) > 0:
        yield int(given)
    elif "://" in given:
        from edge_hal.parallel.cluster import Cluster

        with Cluster(given) as cluster:
            yield cluster
    else:
        todo = "give a number from 1, or the address of a dask scheduler: --workers tcp://host:8786"
        raise EdgeHalError(f"--workers {given}", "it is neither a number nor an address", todo, exit_code=2)
