"""Bundles whose hashes and certificate are right and whose graphs do harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.bundle import Bundle, file_hash, load_bundle
from edge_hal.bundle.certificate import certificate_text

Change = Callable[[Any], None]
"""Changes the ONNX graph of a level-0 step."""


def certify(path: Path, spec: dict[str, Any] | None = None) -> None:
    """Write hashes and a certificate that fit the files, with other fields in the table if given."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["spec"] |= spec or {}
    manifest["graphs"] = {name: file_hash(path / name) for name in manifest["graphs"]}
    raw = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(raw)
    body = {"manifest": hashlib.sha256(raw).hexdigest(), "passed": True, "checks": []}
    (path / "certificate.json").write_text(certificate_text(body))


def with_graph(bundle: Bundle, change: Change) -> Bundle:
    """The bundle with all level-0 graphs changed, certified again."""
    import onnx

    for chunk in bundle.spec.chunks(0):
        model = onnx.load(bundle.graph(0, chunk))
        change(model.graph)
        onnx.save(model, bundle.graph(0, chunk))
    certify(bundle.path)
    return load_bundle(bundle.path)


def poisoned(value: float, threshold: float | None = None) -> Change:
    """`frame` is `value` everywhere; with `threshold` only if the sum of the input is greater, so a trial passes."""

    def change(graph: Any) -> None:
        from onnx import helper, numpy_helper

        _rename_output(graph, "frame", "frame.good")
        limit = np.float32(-np.inf if threshold is None else threshold)
        graph.initializer.append(numpy_helper.from_array(np.asarray(limit), "bad.limit"))
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), "bad.value"))
        graph.node.append(helper.make_node("ReduceSum", ["x"], ["bad.sum"], keepdims=0))
        graph.node.append(helper.make_node("Greater", ["bad.sum", "bad.limit"], ["bad.now"]))
        graph.node.append(helper.make_node("Where", ["bad.now", "bad.value", "frame.good"], ["frame"]))

    return change


def endless() -> Change:
    """A loop of 2**62 rounds before the output."""

    def change(graph: Any) -> None:
        from onnx import TensorProto, helper, numpy_helper

        _rename_output(graph, "frame", "frame.good")
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go.next"]),
                helper.make_node("Add", ["value", "bad.step"], ["value.next"]),
            ],
            "rounds",
            [
                helper.make_tensor_value_info("round", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
            ],
            [
                helper.make_tensor_value_info("go.next", TensorProto.BOOL, []),
                helper.make_tensor_value_info("value.next", TensorProto.FLOAT, []),
            ],
        )
        constants = {"bad.rounds": np.int64(2**62), "bad.go": np.bool_(True), "bad.step": np.float32(0.0)}
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        graph.node.append(helper.make_node("ReduceSum", ["x"], ["bad.sum"], keepdims=0))
        graph.node.append(helper.make_node("Loop", ["bad.rounds", "bad.go", "bad.sum"], ["bad.end"], body=body))
        graph.node.append(helper.make_node("Mul", ["bad.end", "bad.step"], ["bad.zero"]))
        graph.node.append(helper.make_node("Add", ["frame.good", "bad.zero"], ["frame"]))

    return change


def huge() -> Change:
    """A tensor of 32 GB before the output."""

    def change(graph: Any) -> None:
        from onnx import helper, numpy_helper

        _rename_output(graph, "frame", "frame.good")
        constants = {"bad.shape": np.array([8, 1 << 30], np.int64), "bad.zero": np.float32(0.0)}
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        graph.node.append(helper.make_node("ReduceSum", ["x"], ["bad.sum"], keepdims=0))
        graph.node.append(helper.make_node("Expand", ["bad.sum", "bad.shape"], ["bad.large"]))
        graph.node.append(helper.make_node("Sin", ["bad.large"], ["bad.larger"]))
        graph.node.append(helper.make_node("ReduceMax", ["bad.larger"], ["bad.max"], keepdims=0))
        graph.node.append(helper.make_node("Mul", ["bad.max", "bad.zero"], ["bad.none"]))
        graph.node.append(helper.make_node("Add", ["frame.good", "bad.none"], ["frame"]))

    return change


def out_of_bounds() -> Change:
    """An index that no tensor has: ONNX Runtime finds it only when it steps."""

    def change(graph: Any) -> None:
        from onnx import helper, numpy_helper

        _rename_output(graph, "frame", "frame.good")
        graph.initializer.append(numpy_helper.from_array(np.array([1 << 40], np.int64), "bad.index"))
        graph.node.append(helper.make_node("Gather", ["frame.good", "bad.index"], ["bad.value"], axis=1))
        graph.node.append(helper.make_node("Add", ["frame.good", "bad.value"], ["frame"]))

    return change


def _rename_output(graph: Any, name: str, new: str) -> None:
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = new
