"""The recent latency of each stage of a tick."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

STAGES = ("capture_to_tick", "encode", "step", "decide", "settle", "publish", "journal")
RECENT = 4096


class Latency:
    """The last few thousand measurements of each stage, in constant memory.

    `capture_to_tick`: age of a fresh frame when its tick begins. `encode`: picture to vector. `step`: level 0, over one
    tick or several at once. `decide`: the decoder, if a decision is due. `settle`: the upper levels, after the event is
    published. `publish`: from the loop to the socket of the publisher. `journal`: the write to the disk, before events
    are sent. Each stage is written by one thread.
    """

    def __init__(self) -> None:
        self._recent = {name: np.zeros(RECENT, np.float32) for name in STAGES}
        self._count = dict.fromkeys(STAGES, 0)

    def add_all(self, spent_ns: Mapping[str, int]) -> None:
        for stage, ns in spent_ns.items():
            self.add(stage, ns / 1e6)

    def add(self, stage: str, ms: float) -> None:
        count = self._count[stage]
        self._recent[stage][count % RECENT] = ms
        self._count[stage] = count + 1

    def summary(self) -> dict[str, dict[str, float]]:
        """Milliseconds: {stage: {p50, p99}}, for the stages with measurements."""
        summary = {}
        for name in STAGES:
            values = self._recent[name][: self._count[name]]
            if len(values):
                p50, p99 = np.percentile(values, (50, 99))
                summary[name] = {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
        return summary
