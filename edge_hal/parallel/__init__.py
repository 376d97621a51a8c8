"""Work in other processes. `workers.py`: a function of many items. `cluster.py`: the workers of a dask scheduler.
`cores.py`: how many cores there are."""

from .workers import ATTEMPTS, Workers, different, mapped, unusable, versions

__all__ = ["ATTEMPTS", "Workers", "different", "mapped", "unusable", "versions"]
