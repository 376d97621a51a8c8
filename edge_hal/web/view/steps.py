"""The steps of a bundle's procedure in one usual order, for pages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_hal.bundle import load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import Procedure
from edge_hal.task_folder import newest_bundle

log = logging.getLogger("edge_hal.view")


class Procedures:
    """The procedures of bundles by the fingerprints of bundle and decoder, which events name.

    Args:
        paths: bundles or task folders. They are read when unknown fingerprints are asked for: a bundle may have been
            replaced, or its procedure edited, and loaded again.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._known: dict[tuple[str, str], list[dict[str, Any]] | None] = {}

    def steps(self, fingerprint: str, decoder: str) -> list[dict[str, Any]] | None:
        """None if no bundle has this fingerprint, or if it has no procedure.

        Options of a run change the fingerprint of the decoder as well as an edit of the procedure does. So for a new
        one the file is shown as it is now.
        """
        key = (fingerprint, decoder)
        for path in self._paths if fingerprint and key not in self._known else ():
            try:
                bundle = load_bundle(newest_bundle(path), allow_uncertified=True)
            except EdgeHalError as error:
                log.warning("%s: %s", error.what, error.why)
                continue
            if bundle.fingerprint == fingerprint:
                found = bundle.decoder.procedure
                self._known[key] = None if found is None else in_order(found)
        return self._known.get(key)


def in_order(procedure: Procedure) -> list[dict[str, Any]]:
    """Each step after those that it requires; among these the one that most often follows. Steps of the background are
    last."""
    steps, order = procedure.steps, list[str]()
    left = [name for name in steps if not steps[name].background]
    while left:
        ready = [name for name in left if not steps[name].requires.keys() & set(left)] or left
        before = steps[order[-1]].then if order else {}

        def rank(name: str, before: Any = before) -> tuple[float, float]:
            return (float(before.get(name, 0.0)), steps[name].first + steps[name].begins_cycle)

        order.append(max(ready, key=rank))
        left.remove(order[-1])
    order += [name for name in steps if steps[name].background]
    return [
        {
            "name": name,
            "median_s": steps[name].median_s,
            "overdue_s": steps[name].overdue_s,
            "optional": steps[name].optional,
            "background": steps[name].background,
            "begins": steps[name].begins_cycle,
            "ends": steps[name].ends_cycle,
        }
        for name in order
    ]
