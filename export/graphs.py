"""One ONNX step graph per level and chunk size: inputs + state -> outputs + next state, all shapes static."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_hal.bundle import graph_name
from edge_hal.errors import EdgeHalError
from edge_hal.files import replacing
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid
from edge_hal.model.step import LevelStep
from edge_hal.spec import EncoderSpec

from .lint import lint_encoder, lint_step_graph
from .precision import half_step, input_type

OPSET = 20
"""The newest opset that TensorRT 10.3 (JetPack 6) reads."""


def export_level(pyramid: Pyramid, front_end: FrontEnd, level: int, chunk: int, precision: str, out: Path) -> None:
    """Write `out`/level{level}.c{chunk}.{precision}.onnx, linted.

    Args:
        precision: `fp32` or `fp16`. int8 graphs are made from these (`quantise.py`).

    Raises:
        EdgeHalError: the lint refuses a node; the message names it.
    """
    spec = pyramid.spec
    make = half_step if precision == "fp16" else LevelStep
    step = make(pyramid, front_end, level, chunk).eval()
    sources = [*spec.inputs(level, chunk), *spec.states(level)]
    results = [tensor.name for tensor in spec.outputs(level, chunk)]
    results += [f"{tensor.name}.next" for tensor in spec.states(level)]
    path = out / graph_name(level, chunk, precision)
    examples = [torch.full(t.shape, t.fill, dtype=input_type(t.name, precision)) for t in sources]
    _export(step, examples, [t.name for t in sources], results, path)
    lint_step_graph(onnx.load(path), spec, level, chunk, path.name)


def export_encoder(encoder: nn.Module, spec: EncoderSpec, path: Path) -> None:
    """Write the frame encoder's graph: uint8 BGR (height, width, 3) -> float32 (1, size)."""
    image = torch.zeros(spec.image.shape, dtype=torch.uint8)
    with replacing(path) as beside:
        _export(encoder.eval(), [image], [spec.image.name], [spec.vector.name], beside)
        lint_encoder(onnx.load(beside), spec, path.name)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, less what an exporter notes at its parts. Torch notes a stack trace at every node, which names
    folders of the machine and is most of a small graph's file. Notes on the whole model (author, licence) stay.
    """
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


def _export(module: nn.Module, example: list[torch.Tensor], inputs: list[str], outputs: list[str], path: Path) -> None:
    noise = io.StringIO()  # the exporter prints its own progress
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                external_data=False,
                optimize=True,
                verbose=False,
            )
            assert program is not None
            onnx.save(without_traces(program.model_proto), path)
    except OSError:
        raise
    except Exception as error:  # the exporter raises many types of its own
        raise EdgeHalError(f"cannot export {path.name}", f"{type(error).__name__}: {error}") from error
