"""The Open Inference Protocol module reads what is right and refuses the rest in one way only."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from windlass.serving.oip import (
    InferenceRequest,
    OipError,
    WantedOutput,
    encode_response,
    parse_request,
)
from windlass.serving.tensors import (
    DATATYPES,
    Array,
    Signature,
    TensorSpec,
    from_json,
    to_binary,
    to_json,
)

MODEL = Signature(
    inputs=(TensorSpec("x", "FP32", (-1, 2)), TensorSpec("n", "INT64", (1,))),
    outputs=(TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,))),
)
# Other work on the machine must not make a test fail.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


def x(**changes: object) -> dict[str, object]:
    """The right input ``x``, with members changed; ``...`` takes one away."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes
    return {name: value for name, value in entry.items() if value is not ...}


def n(**changes: object) -> dict[str, object]:
    """The right input ``n``, with members changed."""
    return {"name": "n", "datatype": "INT64", "shape": [1], "data": [3]} | changes


def read(document: object, signature: Signature = MODEL) -> InferenceRequest:
    return parse_request(json.dumps(document).encode(), signature)


def refused(document: object) -> str:
    with pytest.raises(OipError) as caught:
        read(document)
    return str(caught.value)


def equal(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool((left == right).all())


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, Array]:
    """Any finite tensor of any datatype, rank 0 to 4, sizes 0 to 4."""
    datatype = DATATYPES[draw(st.sampled_from(sorted(DATATYPES)))]
    shape = draw(numpy_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    if datatype.name == "BYTES":
        elements: st.SearchStrategy[object] = TEXTS
    elif datatype.dtype.kind == "f":
        elements = numpy_st.from_dtype(datatype.dtype, allow_nan=False, allow_infinity=False)
    else:
        elements = numpy_st.from_dtype(datatype.dtype)
    return datatype.name, draw(numpy_st.arrays(datatype.dtype, shape, elements=elements))


def as_request(datatype: str, array: Array, data: object) -> tuple[bytes, Signature]:
    entry = {"name": "x", "datatype": datatype, "shape": list(array.shape), "data": data}
    spec = TensorSpec("x", datatype, (-1,) * array.ndim, any_rank=array.ndim == 0)
    return json.dumps({"inputs": [entry]}).encode(), Signature((spec,), (spec,))


class TestRoundTrips:
    @UNHURRIED
    @given(arrays(), st.booleans())
    def test_a_tensor_sent_as_json_arrives_equal_nested_or_flat(
        self, sent: tuple[str, Array], nested: bool
    ) -> None:
        datatype, array = sent
        data = array.tolist() if nested else to_json(array)
        arrived = parse_request(*as_request(datatype, array, data)).inputs["x"]
        assert equal(arrived, array)
        assert arrived.dtype == DATATYPES[datatype].dtype

    @UNHURRIED
    @given(st.lists(arrays(), min_size=1, max_size=3))
    def test_tensors_sent_as_bytes_arrive_equal(self, sent: list[tuple[str, Array]]) -> None:
        entries, tail, specs = [], b"", []
        for at, (datatype, array) in enumerate(sent):
            data = to_binary(array, DATATYPES[datatype])
            size = {"binary_data_size": len(data)}
            entry = {"name": f"{at}", "datatype": datatype, "shape": list(array.shape)}
            entries.append({**entry, "parameters": size})
            specs.append(TensorSpec(f"{at}", datatype, (-1,) * array.ndim, any_rank=not array.ndim))
            tail += data
        head = json.dumps({"inputs": entries}).encode()
        request = parse_request(head + tail, Signature(tuple(specs), ()), len(head))
        assert all(equal(request.inputs[f"{at}"], array) for at, (_, array) in enumerate(sent))

    @UNHURRIED
    @given(arrays())
    def test_a_result_written_as_json_reads_back_equal(self, result: tuple[str, Array]) -> None:
        datatype, array = result
        spec = TensorSpec("y", datatype, ())
        request = InferenceRequest("7", {}, (WantedOutput(spec, binary=False),))
        answer = json.loads(encode_response(request, [array], "m", "v").body)
        (output,) = answer["outputs"]
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "m", "v")
        back = from_json(output["data"], DATATYPES[datatype], tuple(output["shape"]))
        assert equal(back, array)

    def test_binary_and_json_outputs_can_be_mixed_and_keep_the_order_asked_for(self) -> None:
        outputs = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
        request = read({"id": "a", "inputs": [x(), n()], "outputs": outputs})
        texts = np.array(["é", ""], dtype=object)
        encoded = encode_response(request, [texts, np.zeros((1, 2), np.float32)], "m", "v")
        assert encoded.json_length is not None
        head = json.loads(encoded.body[: encoded.json_length])
        assert [output["name"] for output in head["outputs"]] == ["z", "y"]
        assert head["outputs"][0]["parameters"] == {"binary_data_size": 10}
        tail = struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 0)
        assert encoded.body[encoded.json_length :] == tail


class TestRequests:
    def test_without_outputs_all_are_answered_in_the_models_order(self) -> None:
        request = read({"inputs": [n(), x()], "outputs": []})
        assert [wanted.spec.name for wanted in request.outputs] == ["y", "z"]
        assert request.id is None

    def test_members_that_are_null_count_as_absent(self) -> None:
        document = {"id": None, "parameters": None, "inputs": [x(parameters=None), n()]}
        assert not read({**document, "outputs": None}).outputs[0].binary

    def test_binary_data_output_holds_unless_an_output_says_otherwise(self) -> None:
        outputs = [{"name": "y"}, {"name": "z", "parameters": {"binary_data": False}}]
        document = {"parameters": {"binary_data_output": True}, "inputs": [x(), n()]}
        request = read({**document, "outputs": outputs})
        assert [wanted.binary for wanted in request.outputs] == [True, False]

    def test_a_result_that_is_not_finite_is_written_as_triton_writes_it(self) -> None:
        request = read({"inputs": [x(), n()], "outputs": [{"name": "y"}]})
        result = np.array([[np.nan, np.inf], [-np.inf, 0]], np.float32)
        body = encode_response(request, [result], "m", "v").body
        assert b'"data":[NaN,Infinity,-Infinity,0.0]' in body


WRONG: Mapping[str, tuple[object, str]] = {
    "the request is a list": ([], "send an object"),
    "there are no inputs": ({}, 'the member "inputs" is missing'),
    "inputs is an object": ({"inputs": {}}, "inputs is an object, not an array"),
    "an input is a number": ({"inputs": [1]}, "inputs[0] is 1, not an object"),
    "id is a number": ({"id": 1, "inputs": [x(), n()]}, "id is 1, not a string"),
    "parameters is a list": ({"parameters": [], "inputs": []}, "parameters is an array"),
    "name is missing": ({"inputs": [x(name=...)]}, 'inputs[0]: the member "name" is missing'),
    "name is unknown": (
        {"inputs": [x(name="w")]},
        'input "w": the model takes "x" FP32 [-1, 2], "n" INT64 [1]',
    ),
    "an input is missing": ({"inputs": [x()]}, 'the model also takes "n" INT64 [1]'),
    "an input comes twice": ({"inputs": [x(), x(), n()]}, 'input "x" is sent twice'),
    "datatype is missing": ({"inputs": [x(datatype=...)]}, '"datatype" is missing'),
    "datatype is another": (
        {"inputs": [x(datatype="FP64")]},
        'input "x": datatype is "FP64"; the model takes "x" FP32 [-1, 2]',
    ),
    "datatype is no datatype": ({"inputs": [x(datatype="float")]}, 'datatype is "float"'),
    "datatype is a list": ({"inputs": [x(datatype=[])]}, "datatype is an array, not a string"),
    "shape is missing": ({"inputs": [x(shape=...)]}, '"shape" is missing'),
    "shape is a number": ({"inputs": [x(shape=2)]}, "shape is 2, not an array"),
    "shape has too few axes": ({"inputs": [x(shape=[2])]}, "shape [2] has 1 axes, not 2"),
    "shape has a wrong size": ({"inputs": [x(shape=[1, 3])]}, "has 3 on axis 1, not 2"),
    "shape is negative": ({"inputs": [x(shape=[-1, 2])]}, "shape has -1"),
    "shape has a fraction": ({"inputs": [x(shape=[1.0, 2])]}, "shape has 1.0"),
    "shape has a truth": ({"inputs": [x(shape=[True, 2])]}, "shape has true"),
    "shape is huge": ({"inputs": [x(shape=[10**30, 2])]}, "sizes are whole numbers from 0 to"),
    "shape is large": ({"inputs": [x(shape=[2**31 - 1, 2])]}, "larger than a tensor can be"),
    "shape has 99 axes": ({"inputs": [x(shape=[1] * 99)]}, "99 axes, more than 32"),
    "data is missing": ({"inputs": [x(data=...)]}, 'the member "data" is missing'),
    "data is a number": ({"inputs": [x(data=1)]}, "data is 1, not an array"),
    "data is too short": ({"inputs": [x(data=[1])]}, "data has 1 element; shape [1, 2] needs 2"),
    "data is too long": ({"inputs": [x(data=[1, 2, 3])]}, "data has 3 elements"),
    "data is ragged": (
        {"inputs": [x(shape=[2, 2], data=[[1, 2], [3]])]},
        "row 1 of axis 1 has 1 elements, not 2",
    ),
    "data is nested unevenly": (
        {"inputs": [x(shape=[2, 2], data=[[1, 2], 3])]},
        "row 1 of axis 1 is 3, not an array",
    ),
    "data is flat, then nested": ({"inputs": [x(data=[1, [2]])]}, "element 1 is an array"),
    "data is nested too deep": ({"inputs": [x(data=[[[1], [2]]])]}, "element 0 is an array"),
    "data has other rows": ({"inputs": [x(shape=[1, 2], data=[[1, 2], [3, 4]])]}, "nested other"),
    "a number is a text": ({"inputs": [x(data=[1, "2"])]}, 'element 1 is "2"; FP32 takes a number'),
    "a number is a truth": ({"inputs": [x(data=[1, True])]}, "element 1 is true"),
    "a number is null": ({"inputs": [x(data=[None, 1])]}, "element 0 is null"),
    "a number is an object": ({"inputs": [x(data=[{}, 1])]}, "element 0 is an object"),
    "a number is too large": (
        {"inputs": [x(data=[1, 1e39])]},
        "element 1 is 1e+39, out of the range of FP32 (-3.4028234663852886e+38 to 3.40",
    ),
    "a number is enormous": ({"inputs": [x(data=[10**400, 1])]}, "out of the range of FP32"),
    "a whole number is a fraction": (
        {"inputs": [n(data=[1.5])]},
        "element 0 is 1.5; INT64 takes a whole number",
    ),
    "a whole number is too large": (
        {"inputs": [n(data=[2**63])]},
        "element 0 is 9223372036854775808, out of the range of INT64 (-9223372036854775808 to",
    ),
    "shared memory is asked for": (
        {"inputs": [x(parameters={"shared_memory_region": "r"})]},
        "shared memory is not offered",
    ),
    "bytes are announced and none follow": (
        {"inputs": [x(data=..., parameters={"binary_data_size": 8})]},
        "is the header Inference-Header-Content-Length set?",
    ),
    "data and bytes are announced": (
        {"inputs": [x(parameters={"binary_data_size": 8})]},
        "send one of them",
    ),
    "outputs is an object": ({"inputs": [x(), n()], "outputs": {}}, "outputs is an object"),
    "an output is a text": ({"inputs": [x(), n()], "outputs": ["y"]}, 'outputs[0] is "y"'),
    "an output is unknown": (
        {"inputs": [x(), n()], "outputs": [{"name": "q"}]},
        'output "q": the model gives "y" FP32 [-1, 2], "z" BYTES [-1]',
    ),
    "an output comes twice": (
        {"inputs": [x(), n()], "outputs": [{"name": "y"}, {"name": "y"}]},
        'output "y" is asked for twice',
    ),
    "binary_data is a number": (
        {"inputs": [x(), n()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        "binary_data is 1, not true or false",
    ),
    "a classification is asked for": (
        {"inputs": [x(), n()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        "classification is not offered",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize("case", WRONG)
    def test_it_says_what_is_wrong_when(self, case: str) -> None:
        document, words = WRONG[case]
        assert words in refused(document)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "the body is empty"),
            (b"{", "the body is not JSON"),
            (b'{"inputs": NaN}', "it has no NaN"),
            (b'{"inputs": [-Infinity]}', "it has no -Infinity"),
            (b"\xff\xfe\xfd", "the body is not"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"inputs": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        ],
    )
    def test_a_body_that_is_no_json_is_refused(self, body: bytes, words: str) -> None:
        with pytest.raises(OipError, match=words):
            parse_request(body, MODEL)

    @pytest.mark.parametrize("number", ["1e400", "-1e400"])
    def test_a_number_that_only_json_can_hold_is_refused(self, number: str) -> None:
        body = json.dumps({"inputs": [x(data=[0, 42]), n()]}).replace("42", number)
        with pytest.raises(OipError, match="out of the range of FP32"):
            parse_request(body.encode(), MODEL)

    @pytest.mark.parametrize(
        ("datatype", "value"),
        [("INT8", 128), ("UINT8", -1), ("UINT64", 2**64), ("FP16", 65520), ("FP64", 10**309)],
    )
    def test_a_number_out_of_the_range_of_its_datatype_is_refused(
        self, datatype: str, value: int
    ) -> None:
        body, signature = as_request(datatype, np.zeros(1), [value])
        with pytest.raises(OipError, match=f"out of the range of {datatype}"):
            parse_request(body, signature)

    def test_half_a_surrogate_pair_is_no_text(self) -> None:
        body, signature = as_request("BYTES", np.zeros(2), ["a", "\ud800"])
        with pytest.raises(OipError, match="element 1 is no Unicode text"):
            parse_request(body, signature)

    @pytest.mark.parametrize(
        ("datatype", "shape", "data", "words"),
        [
            ("FP32", [2], b"\0" * 7, "FP32 .2. needs 8 bytes"),
            ("BOOL", [2], b"\1\2", "neither 0 nor 1"),
            ("BYTES", [1], b"\1\0\0", "inside the length of element 0"),
            ("BYTES", [1], b"\2\0\0\0a", "inside element 0"),
            ("BYTES", [1], b"\1\0\0\0\xff", "is not UTF-8"),
            ("BYTES", [2], b"\1\0\0\0a", "hold 1 elements; the shape needs 2"),
        ],
    )
    def test_binary_data_that_do_not_fit_are_refused(
        self, datatype: str, shape: list[int], data: bytes, words: str
    ) -> None:
        size = {"binary_data_size": len(data)}
        entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": size}
        head = json.dumps({"inputs": [entry]}).encode()
        signature = Signature((TensorSpec("x", datatype, (-1,)),), ())
        with pytest.raises(OipError, match=words):
            parse_request(head + data, signature, len(head))

    def test_bytes_that_no_input_announces_are_refused(self) -> None:
        head = json.dumps({"inputs": [x(), n()]}).encode()
        with pytest.raises(OipError, match="3 bytes follow the JSON"):
            parse_request(head + b"abc", MODEL, len(head))

    @pytest.mark.parametrize("length", [0, 10_000])
    def test_a_json_length_outside_the_body_is_refused(self, length: int) -> None:
        with pytest.raises(OipError, match="Inference-Header-Content-Length"):
            parse_request(b"{}", MODEL, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
ALMOST_TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "n", "w"]) | JSON,
        "datatype": st.sampled_from(["FP32", "INT64", "FP16"]) | JSON,
        "shape": st.sampled_from([[1, 2], [1], [], [0, 2]]) | JSON,
        "data": st.sampled_from([[1, 2], [[1, 2]], [3]]) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": JSON}) | JSON,
    },
)
ALMOST = st.fixed_dictionaries(
    {"inputs": st.lists(ALMOST_TENSOR, max_size=3) | JSON},
    optional={
        "id": JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_output": JSON}) | JSON,
        "outputs": st.lists(ALMOST_TENSOR, max_size=2) | JSON,
    },
)


class TestAnything:
    @UNHURRIED
    @given(JSON | ALMOST)
    def test_no_json_raises_anything_but_its_own_error(self, document: object) -> None:
        try:
            read(document)
        except OipError as error:
            words = str(error)
        else:
            words = "right"
        assert words

    @UNHURRIED
    @given(st.binary(max_size=60), st.none() | st.integers(-5, 70))
    def test_no_bytes_raise_anything_but_its_own_error(
        self, body: bytes, json_length: int | None
    ) -> None:
        with pytest.raises(OipError):
            parse_request(body, MODEL, json_length)

    @UNHURRIED
    @given(st.binary(max_size=40), st.sampled_from(sorted(DATATYPES)), st.integers(0, 9))
    def test_no_binary_tail_raises_anything_but_its_own_error(
        self, tail: bytes, datatype: str, size: int
    ) -> None:
        parameters = {"binary_data_size": len(tail)}
        entry = {"name": "x", "datatype": datatype, "shape": [size], "parameters": parameters}
        head = json.dumps({"inputs": [entry]}).encode()
        signature = Signature((TensorSpec("x", datatype, (-1,)),), ())
        try:
            request = parse_request(head + tail, signature, len(head))
        except OipError:
            return
        assert request.inputs["x"].shape == (size,)
