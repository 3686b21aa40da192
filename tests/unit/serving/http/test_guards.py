import threading

import pytest

from xcflow.serving.http import connections

TEXT = "amber goat"


def test_what_must_bear_a_token(start):
    server = start(token="the-token")
    for path in ("/model", "/metrics", "/v2", "/v2/models/xcflow", "/openapi.json", "/nowhere"):
        found = server.ask("GET", path)
        assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
        assert "no valid token" in found.json["error"]
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert server.ask("GET", path).status == 200
    for wrong in ("Bearer the-toke", "Bearer the-token2", "the-token", "Basic the-token", "\xff"):
        assert server.ask("GET", "/model", headers={"Authorization": wrong}).status == 401
    right = {"Authorization": "bearer  the-token"}  # the scheme's name in any case (RFC 9110)
    assert server.ask("GET", "/model", headers=right).status == 200
    right = {"Authorization": "Bearer the-token"}
    assert server.ask("POST", "/predict", {"texts": [TEXT]}, right).status == 200
    document = server.ask("GET", "/openapi.json", headers=right).json
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_without_a_token_only_names_of_this_machine_are_answered(start):
    server = start()
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.0.0.2", "[::1]:8080", "[::1]"):
        assert server.ask("GET", "/v2", headers={"Host": host}).status == 200
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[", ":"):
        found = server.ask("GET", "/v2", headers={"Host": host})
        assert (found.status, list(found.json)) == (421, ["error"])


@pytest.mark.parametrize("settings", [{"local": False}, {"token": "t"}])
def test_elsewhere_any_name_is_answered(start, settings):
    headers = {"Host": "models.example", "Authorization": "Bearer t"}
    assert start(**settings).ask("GET", "/v2", headers=headers).status == 200


def test_a_body_may_hold_so_much_declared_or_not(start):
    server = start(most_bytes=1000)
    body = b'{"texts": ["%b"]}' % (b"a" * 2000)
    found = server.ask("POST", "/predict", body)
    assert (found.status, found.json["error"]) == (413, "a body may hold 1,000 bytes")
    pieces = iter([body[i : i + 100] for i in range(0, len(body), 100)])
    found = server.ask("POST", "/predict", pieces)
    assert (found.status, found.json["error"]) == (413, "a body may hold 1,000 bytes")
    pieces = iter([b'{"texts"', b': ["a"', b"]}"])
    assert server.ask("POST", "/predict", pieces).status == 200


def test_a_body_may_take_so_long(start):
    server = start(timeout_seconds=0.3)
    late = server.socket()
    late.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{")
    assert server.ask("GET", "/v2").status == 200  # others are answered meanwhile
    answer = late.makefile("rb").read()  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come within 0.3 s" in answer
    late.close()


def test_whatever_a_body_says_it_is_it_is_read_as_json(start):
    server = start()
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "?"):
        found = server.ask("POST", "/predict", '{"texts": ["a"]}', {"Content-Type": kind})
        assert found.status == 200
    assert server.ask("POST", "/predict", b'{"texts": ["a"]}').status == 200


def test_who_asks_whether_to_go_on_is_told_so(start):
    server = start()
    with server.socket() as one:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        one.sendall(head % 15 + b"Expect: 100-continue\r\n\r\n")
        lines = one.makefile("rb")
        assert lines.readline().startswith(b"HTTP/1.1 100")
        one.sendall(b'{"texts":["a"]}')
        assert lines.readline() == b"\r\n"
        assert lines.readline().startswith(b"HTTP/1.1 200")
    with server.socket() as one:
        one.sendall(head % 10**9 + b"Expect: 100-continue\r\n\r\n")
        assert one.makefile("rb").readline().startswith(b"HTTP/1.1 413")


def test_head_is_answered_as_get_without_a_body(start, capsys):
    server = start()
    got, head = server.ask("GET", "/v2"), server.ask("HEAD", "/v2")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert '"method": "HEAD"' in capsys.readouterr().out


def test_what_is_not_there_and_what_cannot_be_done(start):
    server = start()
    assert server.ask("GET", "/nowhere").json == {"error": "Not Found"}
    assert server.ask("POST", "/predict/", {"texts": ["a"]}).status == 404
    found = server.ask("DELETE", "/predict")
    assert (found.status, found.headers["allow"]) == (405, "POST")
    assert found.json == {"error": "Method Not Allowed"}


def test_headers_that_browsers_heed(start):
    server = start()
    for found in (
        server.ask("GET", "/"),
        server.predict(texts=[TEXT]),
        server.ask("GET", "/v2", headers={"Host": "evil.example"}),
        server.ask("GET", "/nowhere"),
    ):
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["cache-control"] == "no-store"
    found = server.ask("GET", "/model", headers={"Origin": "https://evil.example"})
    assert not [name for name in found.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 40_000,
        b"GET /" + b"a" * 200_000,
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\n" + b"X: a\r\n" * 40_000,
    ],
    ids=["header", "headers", "address", "trailers"],
)
def test_an_endless_head_is_cut_off(start, endless):
    server = start()
    with server.socket() as one:
        try:
            one.sendall(endless)
            assert b"400 Bad Request" in one.makefile("rb").readline()
        except ConnectionError:
            pass  # closed while we still sent
    server.wait(lambda: not server.uvicorn.server_state.connections)
    assert server.predict(texts=[TEXT]).status == 200


def test_half_a_head_is_not_waited_for_for_ever(start, monkeypatch):
    monkeypatch.setattr(connections, "_MOST_SECONDS", 0.3)
    server = start()
    halves = [server.socket() for _ in range(20)]
    stopped = threading.Event()

    def trickle():
        while not stopped.wait(0.05):
            for half in halves:
                try:
                    half.sendall(b"G")
                except OSError:
                    return

    thread = threading.Thread(target=trickle)
    thread.start()
    assert server.predict(texts=[TEXT]).status == 200
    server.wait(lambda: not server.uvicorn.server_state.connections)
    stopped.set()
    thread.join()
    for half in halves:
        half.close()


def test_a_head_that_comes_at_once_is_measured_too(start):
    server = start()
    head = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: %b\r\n\r\n"
    for size, status in ((60_000, b"200"), (70_000, b"400")):
        with server.socket() as one:
            one.sendall(head % (b"a" * size))
            answer = one.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b'{"error": "the head of the request is too large"}')


def test_what_is_no_request_is_refused_as_all_else_is(start):
    with start().socket() as one:
        one.sendall(b"BREW / HTTP/9\r\n\r\n")
        answer = one.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b'\r\n\r\n{"error": "Invalid HTTP request received."}')


def test_an_answer_is_not_offered_for_ever(start, monkeypatch):
    monkeypatch.setattr(connections, "_MOST_SECONDS_TO_TAKE", 0.3)
    server = start()
    with server.socket() as one:
        one.settimeout(0.1)
        try:  # ask for the page until no more answers go out, and take none
            while True:
                one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        except OSError:
            pass
        server.wait(lambda: not server.uvicorn.server_state.connections)
    assert server.predict(texts=[TEXT]).status == 200


def test_who_is_one_too_many_is_told_to_come_again(start):
    server = start(most_connections=2)
    kept = [server.socket() for _ in range(2)]
    server.wait(lambda: len(server.uvicorn.server_state.connections) == 2)
    found = server.predict(texts=[TEXT])
    assert (found.status, found.headers["retry-after"], found.headers["connection"]) == (
        503,
        "1",
        "close",
    )
    assert found.json == {"error": "too many connections: ask again"}
    assert server.value('xcflow_requests_total{route="other",status="503"}') == 1
    assert server.ask("GET", "/v2/health/live").status == 200  # or it would be started again
    kept.pop().close()
    server.wait(lambda: len(server.uvicorn.server_state.connections) == 1)
    assert server.predict(texts=[TEXT]).status == 200
    kept.pop().close()


def test_binary_tensors_are_refused_by_name(start):
    header = {"Inference-Header-Content-Length": "2"}
    found = start().ask("POST", "/v2/models/xcflow/infer", b"{}\x01\0\0\0a", header)
    assert found.status == 400
    assert found.json == {"error": "binary tensors are not taken: send their data as JSON"}


def test_many_requests_on_one_connection(start, monkeypatch):
    monkeypatch.setattr(connections, "_MOST_BYTES", 2000)
    server = start()
    connection = server.connect()
    for _ in range(100):  # far more than one head may hold
        connection.request("POST", "/predict", '{"texts": ["a"]}')
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (200, True)
    connection.close()
