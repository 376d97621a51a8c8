"""The convolutions of a frame encoder in 8 bits for CPUs, by the quantiser of ONNX Runtime.

Activations are uint8 with a zero point, weights int8 per channel. ONNX Runtime computes a convolution in 8 bits only if
its output is quantised too, so the sums and the clipping between convolutions are quantised with them. Ranges cut
0.01 % of the values. Weights have 7 bits, for the reason given in `quantise.py`. TensorRT cannot read such a graph.

The convolutions count as one layer in the search: one of them alone in 8 bits is slower than in float32.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

CONVOLUTIONS = "encoder.all_convolutions"
"""The name of the layer."""
FIRST_IN_FLOAT = 6
"""The first convolutions see few channels of very different size. With EfficientNet-Lite0 the error of the vectors is
0.17 of their RMS if three stay in float32, and 0.13 from six on; six cost 0.01 MB and no measurable time."""
LEAST_CONVOLUTIONS = 12
"""A smaller encoder gains nothing."""
PICTURES = 64
PERCENTILE = 99.99


def has_many_convolutions(model: onnx.ModelProto) -> bool:
    return len(_convolutions(model)) >= LEAST_CONVOLUTIONS


def quantise_convolutions(graph: Path, pictures: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """The float32 encoder in `graph` with its convolutions in 8 bits.

    Args:
        pictures: (T, H, W, 3) of each recording. Ranges are those of `PICTURES` of them, evenly spread.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(graph)
    for number, node in enumerate(model.graph.node):  # the quantiser leaves nodes out by name, and a file may have none
        node.name = f"{node.op_type}.{number}"
    every = [picture for each in pictures for picture in each]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(PICTURES, len(every))).round().astype(int))
    left = iter([{model.graph.input[0].name: np.asarray(every[i])} for i in chosen])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Mapping[str, NDArray[np.uint8]] | None:
            return next(left, None)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        named, shaped, made = (Path(folder, f"{name}.onnx") for name in ("named", "shaped", "int8"))
        onnx.save(model, named)
        quant_pre_process(str(named), str(shaped), skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            str(shaped),
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.Percentile,
            op_types_to_quantize=["Conv", "Add", "Clip", "Relu"],
            nodes_to_exclude=[node.name for node in _convolutions(model)[:FIRST_IN_FLOAT]],
            extra_options={"CalibPercentile": PERCENTILE},
        )
        found = onnx.load(made)
    used = {node.domain for node in found.graph.node} | {""}
    kept = [each for each in found.opset_import if each.domain in used]
    del found.opset_import[:]
    found.opset_import.extend(kept)
    return found


def for_cpus_only(model: onnx.ModelProto) -> bool:
    """Whether the graph quantises to uint8, which TensorRT does not read."""
    kinds = {entry.name: entry.data_type for entry in model.graph.initializer}
    quantising = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2]
    return any(kinds.get(node.input[2]) == onnx.TensorProto.UINT8 for node in quantising)


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {entry.name for entry in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants]
