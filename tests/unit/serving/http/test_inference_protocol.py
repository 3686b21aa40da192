import math

import pytest
from pydantic import ValidationError

from xcflow.serving.http import inference_protocol as protocol
from xcflow.serving.http.answering import Answer
from xcflow.serving.http.inference_protocol import InferRequest, MalformedError
from xcflow.serving.http.models import Served


def request(data=("a", "b"), shape=(2,), datatype="BYTES", name="text", **further):
    tensor = {"name": name, "shape": list(shape), "datatype": datatype, "data": list(data)}
    return InferRequest.model_validate({"inputs": [tensor], **further})


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (["a", "b"], [2]),
        (["a", "b"], [2, 1]),
        ([["a"], ["b"]], [2, 1]),
        ([[["a", "b"]]], [1, 1, 2]),
    ],
)
def test_texts_are_read_flat_and_nested(data, shape):
    assert protocol.texts_of(request(data, shape)) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"datatype": "FP32"}, "BYTES is expected, not 'FP32'"),
        ({"name": "image"}, "one input is expected"),
        ({"shape": [3]}, "2 texts do not fill"),
        ({"shape": []}, "do not fill"),
        ({"shape": [-1, -2]}, "do not fill"),
        ({"data": [], "shape": [0]}, "there is no text"),
        ({"data": ["a", 1]}, "value 1 is no string"),
        ({"data": ["a", None]}, "value 1 is no string"),
        ({"data": ["\ud800", "a"]}, "value 0 is no valid Unicode"),
    ],
)
def test_what_is_no_tensor_of_texts_is_refused_with_a_reason(changes, reason):
    with pytest.raises(MalformedError, match=reason):
        protocol.texts_of(request(**changes))


@pytest.mark.parametrize("dimension", ["1", 1.0, True, None])
def test_a_dimension_is_a_whole_number(dimension):
    with pytest.raises(ValidationError, match=r"inputs\.0\.shape\.0"):
        request(["a"], [dimension])


def test_what_may_be_left_out_may_be_null():
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": None}
    nothing = {"id": None, "parameters": None, "outputs": None}
    asked = InferRequest.model_validate({"inputs": [tensor], **nothing})
    assert protocol.wishes_of(asked) == protocol.wishes_of(request())
    assert protocol.outputs_of(asked) == protocol.outputs_of(request())


def test_deeply_nested_data_need_no_recursion():
    data = ["a"]
    for _ in range(100_000):
        data = [data]
    tensor = protocol.RequestedTensor.model_construct(
        name="text", shape=[1], datatype="BYTES", data=data
    )
    assert protocol.texts_of(InferRequest.model_construct(inputs=[tensor])) == ["a"]


def test_a_shape_of_many_dimensions_is_refused_before_it_is_multiplied():
    with pytest.raises(ValidationError, match="at most 8 items"):
        request(shape=[9] * 100_000)


def test_wishes():
    assert protocol.wishes_of(request()) == (10, 0.0)
    wishes = {"k": 3, "min_probability": 0.5, "unknown": [1]}
    assert protocol.wishes_of(request(parameters=wishes)) == (3, 0.5)


@pytest.mark.parametrize("k", [0, -1, 1.0, "1", True, None, [[]]])
def test_k_is_a_whole_number(k):
    with pytest.raises(MalformedError, match=r"parameters\.k"):
        protocol.wishes_of(request(parameters={"k": k}))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None, 10**400])
def test_the_least_probability_is_a_share(share):
    with pytest.raises(MalformedError, match=r"parameters\.min_probability"):
        protocol.wishes_of(request(parameters={"min_probability": share}))


def test_outputs():
    assert protocol.outputs_of(request()) == list(protocol.OUTPUTS)
    assert protocol.outputs_of(request(outputs=[{"name": "scores"}])) == ["scores"]
    with pytest.raises(MalformedError, match="no output 'images'"):
        protocol.outputs_of(request(outputs=[{"name": "images"}]))
    with pytest.raises(MalformedError, match="twice"):
        protocol.outputs_of(request(outputs=[{"name": "scores"}] * 2))
    with pytest.raises(ValidationError, match="at most 4 items"):
        request(outputs=[{"name": "scores"}] * 5)


def test_a_response_is_padded_to_its_shape(predictor):
    served = Served(predictor, "xcflow", "7", "digest")
    label = {"id": "l1", "text": "black", "score": 2.5, "probability": 0.75}
    answers = [Answer([label, {**label, "id": "l2"}], served), Answer([], served)]
    outputs = ["probabilities", "label_ids"]
    response = protocol.response_to(request(id="mine"), outputs, answers, 3)
    assert protocol.InferResponse.model_validate(response)
    assert response["id"] == "mine"
    assert (response["model_name"], response["model_version"]) == ("xcflow", "7")
    assert response["outputs"] == [
        {
            "name": "probabilities",
            "shape": [2, 3],
            "datatype": "FP32",
            "data": [0.75, 0.75, 0.0, 0.0, 0.0, 0.0],
        },
        {
            "name": "label_ids",
            "shape": [2, 3],
            "datatype": "BYTES",
            "data": ["l1", "l2", "", "", "", ""],
        },
    ]
