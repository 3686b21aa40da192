"""Graphs in int8 against the same computed by numpy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from xcflow.encoders.int8 import in_int8

ROWS, WIDTH, OUT, ENTRIES = 6, 16, 5, 40


def graph() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A lookup, two products with one input, one with what they give, and one without weights."""
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.standard_normal((ENTRIES, WIDTH)),
        "a": rng.standard_normal((WIDTH, OUT)) * np.logspace(-2, 2, OUT),
        "b": rng.standard_normal((WIDTH, OUT)),
        "c": np.concatenate([rng.standard_normal((OUT, OUT - 1)), np.zeros((OUT, 1))], axis=1),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["x"]),
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("MatMul", ["x", "b"], ["xb"]),
        helper.make_node("Relu", ["xa"], ["positive"]),
        helper.make_node("MatMul", ["positive", "c"], ["xac"]),
        helper.make_node("Transpose", ["xb"], ["turned"]),
        helper.make_node("MatMul", ["xac", "turned"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "n"])]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return model, arrays


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"rows": rows})[0]


def rounded(values: np.ndarray, axis: int, most: int) -> np.ndarray:
    step = np.maximum(np.abs(values).max(axis, keepdims=True), np.float32(1e-30)) / most
    return np.rint(values / step) * step


def expected(arrays: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    def product(x: np.ndarray, name: str) -> np.ndarray:
        return rounded(x, 1, 127) @ rounded(arrays[name], 0, 63)

    x = rounded(arrays["table"], 1, 127)[rows]
    return product(np.maximum(product(x, "a"), 0.0), "c") @ product(x, "b").T


def test_products_and_lookups_are_rounded_and_nothing_else():
    model, arrays = graph()
    before = model.SerializeToString()
    made = in_int8(model)
    onnx.checker.check_model(made)
    assert model.SerializeToString() == before
    rows = np.random.default_rng(1).integers(0, ENTRIES, ROWS)
    slow = expected(arrays, rows)
    np.testing.assert_allclose(run(made, rows), slow, rtol=1e-4, atol=1e-4 * np.abs(slow).max())
    exact = run(model, rows)
    assert 0 < np.abs(slow - exact).max() < 0.05 * np.abs(exact).max()
    names = [each.name for each in made.graph.initializer]
    assert not set(arrays) & set(names)
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 2


def test_zeros_stay_zeros():
    model, arrays = graph()
    place = [each.name for each in model.graph.initializer].index("table")
    table = np.zeros_like(arrays["table"])
    model.graph.initializer[place].CopyFrom(numpy_helper.from_array(table, "table"))
    np.testing.assert_array_equal(run(in_int8(model), np.arange(ROWS)), np.zeros((ROWS, ROWS)))


@pytest.mark.parametrize("most", [1, 1_000_000])
def test_what_a_row_becomes_does_not_depend_on_others(most: int):
    model, arrays = graph()
    place = [each.name for each in model.graph.initializer].index("table")
    table = arrays["table"].copy()
    table[0] *= most  # an outlier
    model.graph.initializer[place].CopyFrom(numpy_helper.from_array(table, "table"))
    made = in_int8(model)
    del made.graph.node[-2:]  # the product of all rows with all
    made.graph.output[0].name = "xac"
    rows = np.arange(ROWS)
    alone = np.concatenate([run(made, rows[i : i + 1]) for i in range(ROWS)])
    np.testing.assert_array_equal(run(made, rows), alone)
