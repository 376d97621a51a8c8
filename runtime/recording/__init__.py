"""Recordings of a run: written, kept around events, read and replayed.

A recorder is an `Observer` of the loop (`runtime/observer.py`), as is the self-check. To add an observer, override the
methods that it needs in a subclass, and append it in `_observers` of `runtime/runner.py`.
"""
