"""Whatever comes, a server answers with a reason or hangs up: never a 5xx, never larger."""

import contextlib
import random
import socket
import time

import pytest
import schemathesis
import serving_soak as soak
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = 60
GROWTH_MB = 150
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
INFER = "/v2/models/xcflow/infer"
PATHS = ["/", "/predict", "/model", "/metrics", "/openapi.json", "/v2", "/v2/health/live",
         "/v2/health/ready", "/v2/models/xcflow", "/v2/models/xcflow/ready", INFER]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """One that is alive at the end, no larger than it may be, and said nothing of defects."""
    folder = tmp_path_factory.mktemp("server")
    with soak.running(folder, folder / "log", "--model", str(model.bundle)) as server:
        for _ in range(50):
            assert_alive(server)
        before = server.memory_mb()
        yield server
        assert_alive(server)
        assert server.memory_mb() < before + GROWTH_MB
        assert "Traceback" not in server.said()
        assert server.stop() == 0


def assert_alive(server):
    status, body = server.ask("POST", "/predict", {"texts": ["amber goat"], "k": 3})
    assert status == 200
    assert len(body["labels"][0]) == 3


def test_the_document_holds_for_whatever_it_allows_and_forbids(server):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        negative_data_rejection,
    ]
    tested = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        tested.add(operation.label)

        @given(st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES)))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case):
            case.call_and_validate(checks=checks)

        holds()
    assert {"POST /predict", "POST /v2/models/{model}/infer", "GET /metrics"} <= tested


def raw(server, content, seconds=10.0):
    """What comes back for some bytes; empty where the server just hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as one:
        with contextlib.suppress(OSError):  # it need not read to the end what it refuses
            one.sendall(content)
            one.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return one.makefile("rb").read()
    return b""


def statuses(answer):
    lines = answer.split(b"\r\n")
    return [int(line[9:12]) for line in lines if line.startswith(b"HTTP/1.1 ")]


def request(method, path, body, *headers):
    length = b"Content-Length: %d" % len(body)
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close"]
    return b"\r\n".join([*lines, length, *headers, b"", body])


@pytest.mark.parametrize("path", PATHS)
def test_random_bytes_to_every_address_by_every_method(server, path):
    rng = random.Random(path)
    for method in METHODS:
        for _ in range(6):
            body = rng.randbytes(rng.choice([0, 1, 30, 3000]))
            answer = raw(server, request(method, path, body))
            assert statuses(answer), (method, answer)
            assert max(statuses(answer)) < 500, (method, body)


@given(st.binary(max_size=400))
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_random_bytes_that_are_no_http(server, content):
    assert max(statuses(raw(server, content)), default=0) < 500


def test_almost_http(server):
    rng = random.Random(1)
    good = request("POST", "/predict", b'{"texts": ["amber"], "k": 2}', b"Accept: */*")
    for _ in range(500):
        content = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        assert max(statuses(raw(server, bytes(content))), default=0) < 500, bytes(content)


HEAVY = {
    "nested lists": b'{"texts": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "nested objects": b'{"filters": ' * 100_000,
    "a huge number": b'{"texts": ["a"], "k": ' + b"9" * 1_000_000 + b"}",
    "a large k": b'{"texts": ["a"], "k": 1000000000}',
    "a number beyond all": b'{"texts": ["a"], "min_probability": 1e999999}',
    "half a pair": b'{"texts": ["\\ud800"], "filters": {"only": ["\\udfff"]}}',
    "nul": b'{"texts": ["a\\u0000b", "\\u0000"]}',
    "a raw nul": b'{"texts": ["a\x00b"]}',
    "many filters": b'{"texts": ["a"], "filters": {"only": [' + b'"l1",' * 100_000 + b'"l2"]}}',
    "many texts": b'{"texts": [' + b'"a",' * 400_000 + b'"a"]}',
    "many that are none": b'{"texts": [' + b"1," * 900_000 + b"1]}",
    "many unknown fields": b"{%b}" % b",".join(b'"k%d":1' % i for i in range(150_000)),
    "a long text": b'{"texts": ["' + b"a" * 2_000_000 + b'"]}',
    "a long word": b'{"texts": ["' + b"a" * 19_999 + b'"]}',
    "too large": b'{"texts": ["' + b"a" * 3_000_000 + b'"]}',
    "many dimensions": b'{"inputs": [{"name": "text", "datatype": "BYTES", "data": ["a"], '
     b'"shape": [' + b"9," * 800_000 + b"9]}]}",
    "many outputs": b'{"inputs": [{"name": "text", "datatype": "BYTES", "data": ["a"], '
    b'"shape": [1]}], "outputs": [' + b'{"name": "scores"},' * 90_000 + b'{"name": "scores"}]}',
    "nested data": b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": '
    + b"[" * 900 + b'"a"' + b"]" * 900 + b"}]}",
    "a nested k": b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}'
    b'], "parameters": {"k": ' + b"[" * 900 + b"]" * 900 + b"}}",
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("path", ["/predict", INFER])
def test_heavy_bodies(server, path, name):
    start = time.monotonic()
    found = statuses(raw(server, request("POST", path, HEAVY[name]), seconds=30))
    assert not found or found[0] < 500
    assert time.monotonic() - start < 20
    assert_alive(server)


@pytest.mark.parametrize(
    "length", [b"-1", b"+5", b"1e3", b"9" * 30, b"9" * 5000, b"", b"0x10", b"\xff"]
)
def test_lengths_that_are_none(server, length):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length
    assert max(statuses(raw(server, head + b"\r\n\r\n{}")), default=0) < 500


def test_headers_that_contradict_each_other(server):
    body = b'{"texts": ["a"]}'
    for headers in (
        [b"Content-Length: 3"],
        [b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Upgrade: websocket", b"Connection: Upgrade"],
        [b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"],
        [b"Host: other.example"],
        [b"Expect: the-unexpected"],
        [b"Content-Type: multipart/form-data"],
        [b"Content-Encoding: gzip"],
    ):
        content = request("POST", "/predict", body, *headers)
        assert max(statuses(raw(server, content)), default=0) < 500, headers


def test_half_requests_block_nobody(server):
    halves = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n"
    for i, half in enumerate(halves):
        half.sendall(head[: 5 + i % 60] if i % 2 else head + b"\r\n{")
    start = time.monotonic()
    for _ in range(20):
        assert_alive(server)
    assert time.monotonic() - start < 20
    for half in halves:
        half.close()


def test_many_at_once_are_answered_or_sent_away(server):
    """More texts than may wait, from many connections that all send before any reads."""
    body = b'{"texts": [' + b'"amber goat",' * 199 + b'"coral"], "k": 100}'
    many = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(60)]
    for one in many:
        one.sendall(request("POST", "/predict", body))
    found = [statuses(one.makefile("rb").read())[0] for one in many]
    for one in many:
        one.close()
    assert set(found) <= {200, 429}
    assert 200 in found
