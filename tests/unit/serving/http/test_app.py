"""A server in a thread, asked over real connections."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from xcflow.errors import TrackingError
from xcflow.topk import NO_LABEL

TEXT = "amber goat x"


def test_plain_answers(start, predictor):
    server = start()
    found = server.predict(texts=[TEXT, "zebra"], k=3, explain=True)
    assert found.status == 200
    assert found.headers["content-type"] == "application/json"
    first, second = found.json["labels"]
    top = predictor.top_k([TEXT, "zebra"], 3)
    for labels, rows in zip((first, second), top.labels, strict=True):
        assert [x["id"] for x in labels] == predictor.label_ids.take(rows)
        assert all(x["why"]["voices"] for x in labels)
    digest = predictor.manifest.digest
    assert found.json["model"] == {"name": "xcflow", "version": "1", "digest": digest}
    filtered = server.predict(texts=[TEXT], filters={"only": ["l1", "l2"], "without": ["l2"]})
    assert [x["id"] for x in filtered.json["labels"][0]] == ["l1"]


def test_answers_by_the_protocol(start, predictor):
    server = start(model_name="colours")
    about = server.ask("GET", "/v2/models/colours").json
    assert about["versions"] == ["1"]
    assert about["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [TEXT, "zebra"]}
    body = {"id": "7", "inputs": [tensor], "parameters": {"k": 2}}
    for path in ("/v2/models/colours/infer", "/v2/models/colours/versions/1/infer"):
        found = server.ask("POST", path, body)
        assert found.status == 200
        outputs = {each["name"]: each for each in found.json["outputs"]}
        ids = predictor.label_ids.take(predictor.top_k([TEXT, "zebra"], 2).labels.ravel())
        assert outputs["label_ids"]["data"] == ids
        assert outputs["scores"]["shape"] == [2, 2]
    for path in ("/v2/models/xcflow", "/v2/models/colours/versions/9", "/v2/models/xcflow/ready"):
        assert server.ask("GET", path).status == 404
    assert server.ask("POST", "/v2/models/other/infer", body).json["error"].startswith("no such")
    assert server.ask("GET", "/v2").json["name"] == "xcflow"
    for path in ("/v2/models/colours/ready", "/v2/models/colours/versions/1/ready"):
        assert server.ask("GET", path).json == {"name": "colours", "ready": True}
    assert server.ask("GET", "/v2/").json == server.ask("GET", "/v2").json
    found = server.ask("GET", "/v2/models/colours/versions/9")
    assert found.json == {"error": "no such version: version 1 answers"}


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/predict", b"", 422, "the body: Field required"),
        ("/predict", b"texts", 400, "the body is no JSON: Expecting value"),
        ("/predict", b"{\xff}", 400, "the body is no JSON: .*codec"),
        ("/predict", b"[" * 60_000, 400, "the body is no JSON: .*recursion"),
        ("/predict", b'{"texts": ["a"], "k": 1' + b"0" * 5000 + b"}", 400, "no JSON: .*digits"),
        ("/predict", b"[]", 422, "valid dictionary"),
        ("/predict", b"{}", 422, "texts: Field required"),
        ("/predict", b'{"texts": []}', 422, "at least 1 item"),
        ("/predict", b'{"texts": "a"}', 422, "texts: Input should be a valid list"),
        ("/predict", b'{"texts": ["a", 1]}', 422, r"texts\.1: .*string"),
        ("/predict", b'{"texts": ["\\ud800"]}', 422, r"texts\.0: .*Unicode"),
        ("/predict", b'{"texts": ["a"], "\\ud800": 1}', 422, r"no field '\\ud800': there are"),
        ("/predict", b'{"texts": ["a"], "topk": 1}', 422, "no field 'topk'"),
        ("/predict", b'{"texts": ["a"], "filters": {"not": []}}', 422, "filters: no field 'not'"),
        ("/predict", b'{"texts": ["a"], "k": 0}', 422, "k: .*greater"),
        ("/predict", b'{"texts": ["a"], "k": 1.5}', 422, "k: .*integer"),
        ("/predict", b'{"texts": ["a"], "k": "1"}', 422, "k: .*integer"),
        ("/predict", b'{"texts": ["a"], "k": 1000000000}', 422, "k may be 1,000 at most"),
        ("/predict", b'{"texts": ["a"], "min_probability": NaN}', 422, "min_probability"),
        ("/predict", b'{"texts": ["a"], "min_probability": 1e999}', 422, "min_probability"),
        ("/predict", b'{"texts": ["a"], "model": "best"}', 422, "model"),
        ("/predict", b'{"texts": ["a"], "model": "previous"}', 404, "no model before"),
        ("/v2/models/xcflow/infer", b"{}", 422, "inputs: Field required"),
        ("/v2/models/xcflow/infer", b'{"inputs": []}', 422, "at least 1 item"),
    ],
)
def test_what_is_wrong_gets_a_reason(shared, path, body, status, reason):
    found = shared.ask("POST", path, body)
    assert found.status == status
    assert list(found.json) == ["error"]
    assert re.search(reason, found.json["error"])


def test_limits(start):
    server = start(
        most_texts=2, most_characters=10, most_labels=5, most_answers=6, most_explained=3
    )
    for body, reason in (
        ({"texts": ["a"] * 3}, "a request may hold 2 texts"),
        ({"texts": ["a", "b" * 11]}, "texts.1: a text may hold 10 characters"),
        ({"texts": ["a"], "k": 6}, "k may be 5 at most"),
        ({"texts": ["a"], "k": 1, "filters": {"only": ["l1"] * 6}}, "a filter may name 5"),
        ({"texts": ["a"], "k": 1, "filters": {"without": ["l1"] * 6}}, "a filter may name 5"),
        ({"texts": ["a", "b"], "k": 4}, "may ask for 6 labels in all"),
        ({"texts": ["a"], "k": 4, "explain": True}, "may ask for 3 explained labels in all"),
    ):
        found = server.predict(**body)
        assert found.status == 422
        assert reason in found.json["error"]
    assert server.predict(texts=["a", "b"], k=3).status == 200
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": ["a"] * 3}
    assert server.ask("POST", "/v2/models/xcflow/infer", {"inputs": [tensor]}).status == 422


def test_only_when_a_model_is_loaded_it_is_ready(start, shelf):
    wanted = shelf.aliases.pop("champion")
    server = start(ready=False)
    server.wait(lambda: server.models.trouble)
    assert server.ask("GET", "/v2/health/live").json == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/xcflow/ready"):
        found = server.ask("GET", path)
        assert found.status == 503
        assert found.json["ready"] is False
        assert found.json["error"] == "the registry has no champion"
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    for found in (
        server.predict(texts=[TEXT]),
        server.ask("POST", "/v2/models/xcflow/infer", {"inputs": [tensor]}),
        server.ask("GET", "/model"),
    ):
        assert (found.status, found.headers["retry-after"]) == (503, "1")
    assert server.ask("GET", "/v2/models/xcflow").json["versions"] == []
    shelf.aliases["champion"] = wanted
    server.wait(lambda: server.models.current)
    assert server.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert server.predict(texts=[TEXT]).status == 200


def test_the_alias_is_followed(start, shelf, bundle, other_bundle):
    server = start()
    shelf.put("previous", bundle, "1")
    shelf.put("champion", other_bundle, "2")
    server.wait(lambda: server.models.current.version == "2")
    assert server.predict(texts=[TEXT]).json["model"]["version"] == "2"
    assert server.predict(texts=[TEXT], model="previous").json["model"]["version"] == "1"
    about = server.ask("GET", "/model").json
    assert (about["version"], about["has_previous"], about["labels"]) == ("2", True, 12)
    digest = shelf.aliases["previous"].digest
    shelf.put("champion", bundle, "1")
    shelf.put("previous", other_bundle, "2")
    server.wait(lambda: server.models.current.version == "1")
    assert server.predict(texts=[TEXT]).json["model"]["digest"] == digest


def test_all_texts_of_a_request_are_answered_by_the_same_model(
    start, shelf, other_bundle, predictor
):
    server = start(batch_texts=1)
    texts = [f"{TEXT} {i}" for i in range(100)]
    answers = []
    asker = threading.Thread(target=lambda: answers.append(server.predict(texts=texts)))
    asker.start()
    shelf.put("champion", other_bundle, "2")
    server.wait(lambda: server.models.current.version == "2")
    asker.join()
    body = answers[0].json
    loaded = {"1": predictor, "2": server.models.current.predictor}[body["model"]["version"]]
    top = loaded.top_k(texts, 10)
    scores = [[x["score"] for x in labels] for labels in body["labels"]]
    for found, exact in zip(scores, top.scores, strict=True):
        assert found == pytest.approx(exact[: len(found)], abs=1e-4)


def test_passes_at_a_time_change_no_answer(start, predictor, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    server = start(passes=3)
    rounds = [[f"{TEXT} {i % 7} {j}" for j in range(i % 4 + 1)] for i in range(80)]
    with ThreadPoolExecutor(16) as askers:
        answers = list(askers.map(lambda texts: server.predict(texts=texts), rounds))
    for texts, found in zip(rounds, answers, strict=True):
        assert found.status == 200
        ids = [[x["id"] for x in labels] for labels in found.json["labels"]]
        rows = predictor.top_k(texts, 10).labels
        assert ids == [predictor.label_ids.take(row[row != NO_LABEL]) for row in rows]
    assert server.value("xcflow_batch_texts_sum") == sum(map(len, rounds))


def test_with_a_model_before_that_cannot_be_had_the_champion_goes_on(start, shelf, other_bundle):
    shelf.put("previous", other_bundle, "0")
    shelf.folders[shelf.aliases["previous"].digest] = TrackingError("the store is away")
    server = start()
    found = server.predict(texts=[TEXT], model="previous")
    assert found.status == 503
    assert "the store is away" in found.json["error"]
    assert server.predict(texts=[TEXT]).status == 200


class Held:
    """A predictor whose passes wait until they may."""

    def __init__(self, server):
        self.predictor = server.models.current.predictor
        self.begun, self.may = threading.Event(), threading.Event()
        self._top_k = self.predictor.top_k
        self.predictor.top_k = self._held

    def _held(self, texts, k):
        self.begun.set()
        assert self.may.wait(30)
        return self._top_k(texts, k)


def ask_in_threads(server, count):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.predict(texts=[TEXT])))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads, answers


def test_without_room_a_request_is_sent_away(start):
    server = start(queue_texts=2, batch_texts=1)
    held = Held(server)
    threads, answers = ask_in_threads(server, 1)
    assert held.begun.wait(30)
    more, _ = ask_in_threads(server, 2)
    server.wait(lambda: server.value("xcflow_texts_waiting") == 2)
    found = server.predict(texts=[TEXT])
    assert (found.status, found.headers["retry-after"]) == (429, "1")
    assert "2 texts wait already" in found.json["error"]
    assert server.value("xcflow_requests_sent_away_total") == 1
    held.may.set()
    for thread in threads + more:
        thread.join(30)
    assert answers[0].status == 200


def test_what_takes_too_long_is_given_up(start):
    server = start(timeout_seconds=0.2)
    held = Held(server)
    found = server.predict(texts=[TEXT])
    assert (found.status, found.headers["retry-after"]) == (503, "1")
    assert found.json["error"] == "not answered within 0.2 s: ask again"
    held.may.set()
    server.wait(lambda: server.predict(texts=[TEXT]).status == 200)


def test_a_defect_is_told_as_one_and_the_server_goes_on(start):
    server = start()
    predictor = server.models.current.predictor
    whole, predictor.top_k = predictor.top_k, None
    found = server.predict(texts=[TEXT])
    assert (found.status, list(found.json)) == (500, ["error"])
    predictor.top_k = whole
    assert server.predict(texts=[TEXT]).status == 200


def test_stopping_answers_what_was_accepted(start):
    server = start()
    held = Held(server)
    threads, answers = ask_in_threads(server, 1)
    assert held.begun.wait(30)
    more, others = ask_in_threads(server, 5)
    server.wait(lambda: server.value("xcflow_texts_waiting") == 5)
    half = server.socket()
    half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n")
    server.wait(lambda: len(server.uvicorn.server_state.tasks) == 7)
    server.uvicorn.should_exit = True
    held.may.set()
    half.sendall(b'{"texts":["a"]}')
    for thread in threads + more:
        thread.join(30)
    assert [each.status for each in answers + others] == [200] * 6
    assert half.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    half.close()


def test_numbers_for_prometheus(start):
    server = start()
    server.predict(texts=[TEXT, "b", "c"])
    server.predict(texts=[TEXT])
    server.predict(texts=[])
    server.ask("GET", "/nowhere/1")
    server.ask("GET", "/nowhere/2")
    found = server.ask("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    for line in (
        'xcflow_requests_total{route="/predict",status="200"} 2.0',
        'xcflow_requests_total{route="/predict",status="422"} 1.0',
        'xcflow_requests_total{route="other",status="404"} 2.0',
        'xcflow_request_seconds_count{route="/predict"} 3.0',
        'xcflow_stage_seconds_count{stage="encode"} 2.0',
        "xcflow_batch_texts_sum 4.0",
        "xcflow_texts_waiting 0.0",
    ):
        assert line in found.body.decode().splitlines()


def test_each_request_is_a_line_of_the_log(start, capsys):
    server = start()
    server.predict(texts=[TEXT, "b"], k=3)
    server.ask("GET", "/v2/health/live")
    server.ask("GET", "/a%22%0Ab%FF")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("GET", '/a"\nb\ufffd', 404),
    ]
    told = {name: lines[0][name] for name in ("texts", "k", "version", "client")}
    assert told == {"texts": 2, "k": 3, "version": "1", "client": "127.0.0.1"}
    assert "asked" not in lines[0]
    assert TEXT not in json.dumps(lines)
    assert lines[0]["ms"] > 0


def test_texts_are_logged_where_that_is_asked_for(start, capsys):
    server = start(log_texts=True)
    server.predict(texts=[TEXT])
    assert json.loads(capsys.readouterr().out)["asked"] == [TEXT]


def test_the_page_runs_nothing_but_its_own(start):
    found = start().ask("GET", "/")
    assert found.headers["content-type"].startswith("text/html")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'sha256-" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_the_document_tells_each_status(start):
    document = start().ask("GET", "/openapi.json").json
    told = document["paths"]["/predict"]["post"]["responses"]
    assert set(told) == {"200", "400", "401", "404", "408", "413", "421", "422", "429", "503"}
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
    assert set(infer) == set(told)
    for status in set(told) - {"200"}:
        schema = told[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "securitySchemes" not in document["components"]
    known = set(document["components"]["schemas"])
    assert {"PredictRequest", "PredictResponse", "InferRequest", "InferResponse"} <= known
    assert "HTTPValidationError" not in known


def test_a_client_that_leaves_before_its_body_came_is_no_defect(start):
    server = start()
    with server.socket() as half:
        half.sendall(b'POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{"te')
    line = 'xcflow_requests_total{route="/predict",status="%d"}'
    server.wait(lambda: server.value(line % 400) + server.value(line % 500))
    assert server.value(line % 500) == 0
