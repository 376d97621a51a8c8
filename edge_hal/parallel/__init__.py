"""Work in other processes. `workers.py`: a function of many items. `cluster.py`: the workers of a dask scheduler.
`cores.py`: how many cores there are."""

from .workers import Workers, mapped

__all__ = ["Workers", "mapped"]
