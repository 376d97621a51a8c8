"""The graphs that the tests keep are those that torch would export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edge_hal.export.precision import half_step
from edge_hal.model.step import LevelStep
from edge_hal.spec import PyramidSpec
from tests.helpers.kept_graphs import keeping, key
from tests.helpers.small_models import TWO, random_model, small_spec


def test_a_graph_is_exported_once_and_again_after_any_change(tmp_path: Path) -> None:
    exported: list[int] = []

    def export(
        module: nn.Module, example: list[torch.Tensor], inputs: list[str], outputs: list[str], path: Path
    ) -> None:
        exported.append(len(exported))
        path.write_text(f"graph {exported[-1]}")

    kept = keeping(export, tmp_path)

    def graph(module: nn.Module, example: float = 0.0, name: str = "x") -> str:
        kept(module, [torch.full((1, 3), example)], [name], ["y"], tmp_path / "out.onnx")
        return (tmp_path / "out.onnx").read_text()

    def step(spec: PyramidSpec, seed: int = 0, level: int = 0, chunk: int = 1) -> LevelStep:
        return LevelStep(*random_model(spec, seed), level, chunk)

    spec = small_spec(TWO)
    modules = [
        step(spec),
        step(spec, seed=1),
        step(spec, level=1),
        step(spec, chunk=2),
        half_step(*random_model(spec), 0, 1),
        step(replace(spec, front_end=replace(spec.front_end, clip=4.0))),
    ]
    first = [graph(module) for module in modules]
    assert first == [f"graph {number}" for number in range(len(modules))]
    assert graph(step(spec)) == "graph 0" and graph(modules[3]) == "graph 3"
    assert len({graph(modules[0], example=1.0), graph(modules[0], name="z"), *first}) == len(modules) + 2
    with torch.no_grad():
        modules[0].get_buffer("band0")[0, 0] += 1e-7
    assert key(modules[0], [], [], []) != key(step(spec), [], [], [])
