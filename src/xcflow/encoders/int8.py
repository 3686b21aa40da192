"""A transformer's graph with weights in int8, activations rounded token by token.

Each token's activations are rounded by their own extreme. So what else is encoded beside a text
changes nothing of it, many texts can share a pass, and less is lost than by one extreme for all
(token-wise dynamic quantisation: Yao et al., ZeroQuant, NeurIPS 2022).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_ONNXRUNTIME = "com.microsoft"  # the domain of its own operations
# Seven bits for weights: processors without units for int8 add two products of unsigned activations
# and signed weights in 16 bits, where eight would overflow and give other vectors than those that
# were measured.
_MOST_WEIGHT = 63
_MOST_ACTIVATION = 127
_MOST_ENTRY = 127  # of a table
_TINY = 1e-30  # stands for the extreme of a column of zeros

_STEP, _ZERO, _LAST_AXIS = "int8.step", "int8.zero", "int8.last_axis"
_CONSTANTS: dict[str, NDArray[Any]] = {
    _STEP: np.array(1.0 / _MOST_ACTIVATION, np.float32),
    _ZERO: np.array(128, np.uint8),
    _LAST_AXIS: np.array([-1], np.int64),
}


def in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, its products with weights and its lookups in tables in int8.

    Args:
        model: Takes and gives float32; it is not changed.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    matrices = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    arrays = dict(_CONSTANTS)
    nodes: list[onnx.NodeProto] = []
    activations: set[str] = set()
    for node in graph.node:
        if node.op_type == "MatMul" and (name := node.input[1]) in matrices:
            arrays |= _rounded(matrices[name], axis=0, most=_MOST_WEIGHT)
            if (x := node.input[0]) not in activations:  # queries, keys and values have one input
                activations.add(x)
                nodes += _rounding(x)
            nodes += _product(x, name, node.output[0])
        elif node.op_type == "Gather" and (name := node.input[0]) in matrices:
            arrays |= _rounded(matrices[name], axis=1, most=_MOST_ENTRY)
            nodes += _lookup(name, node.input[1], node.output[0])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    rounded.opset_import.append(helper.make_opsetid(_ONNXRUNTIME, 1))
    return rounded


def _rounded(matrix: onnx.TensorProto, axis: int, most: int) -> dict[str, NDArray[Any]]:
    """A matrix in int8 and the steps of its columns (axis 0) or rows (axis 1), by name."""
    values = numpy_helper.to_array(matrix)
    steps = np.maximum(np.abs(values).max(axis, keepdims=True), np.float32(_TINY)) / most
    name = _names(matrix.name, axis)
    return {
        name[0]: np.rint(values / steps).astype(np.int8),
        name[1]: (steps[0] if axis == 0 else steps).astype(np.float32),
    }


def _names(matrix: str, axis: int) -> tuple[str, str]:
    part = "columns" if axis == 0 else "rows"
    return f"{matrix}.{part}", f"{matrix}.{part}.steps"


def _rounding(activations: str) -> list[onnx.NodeProto]:
    """Activations over their extreme, as unsigned integers.

    Nothing but zeros may become anything here: its product is multiplied by its extreme again.
    """
    x = activations
    return [
        helper.make_node("Abs", [x], [f"{x}.abs"]),
        helper.make_node("ReduceMax", [f"{x}.abs", _LAST_AXIS], [f"{x}.extreme"], keepdims=1),
        helper.make_node("Div", [x, f"{x}.extreme"], [f"{x}.relative"]),
        helper.make_node("QuantizeLinear", [f"{x}.relative", _STEP, _ZERO], [f"{x}.uint8"]),
    ]


def _product(x: str, weights: str, output: str) -> list[onnx.NodeProto]:
    integers, steps = _names(weights, axis=0)
    inputs = [f"{x}.uint8", integers, _STEP, steps, _ZERO]
    product = f"{output}.relative"
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [product], domain=_ONNXRUNTIME),
        helper.make_node("Mul", [product, f"{x}.extreme"], [output]),
    ]


def _lookup(table: str, rows: str, output: str) -> list[onnx.NodeProto]:
    integers, steps = _names(table, axis=1)
    return [
        helper.make_node("Gather", [integers, rows], [f"{output}.int8"]),
        helper.make_node("Gather", [steps, rows], [f"{output}.steps"]),
        helper.make_node(
            "Cast", [f"{output}.int8"], [f"{output}.whole"], to=onnx.TensorProto.FLOAT
        ),
        helper.make_node("Mul", [f"{output}.whole", f"{output}.steps"], [output]),
    ]
