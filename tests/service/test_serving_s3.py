"""A model that is served from a real S3 server is served on while that is away."""

import os
import signal
import subprocess

import pytest
import serving_soak as soak
from faulty_proxy import FaultyProxy

from xcflow.artifact import read_manifest
from xcflow.serving.predictor import Predictor
from xcflow.storage import publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("credentials")]

TEXTS = ["amber goat x", "black heron", "coral"]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_goes_on_answering_while_the_store_is_away(
    workers, model, endpoint, tmp_path, monkeypatch
):
    publish(model.bundle, "s3://bucket/served")
    predictor = Predictor.load(model.bundle)
    right = [predictor.label_ids.take(row) for row in predictor.top_k(TEXTS, 3).labels]

    def require_answers(server):
        for _ in range(10):
            status, body = server.ask("POST", "/predict", {"texts": TEXTS, "k": 3})
            assert status == 200
            assert body["model"]["digest"] == read_manifest(model.bundle).digest
            assert [[label["id"] for label in labels] for labels in body["labels"]] == right
        assert server.ask("GET", "/v2/health/ready")[0] == 200

    proxy = FaultyProxy(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    arguments = ("--model", "s3://bucket/served", "--workers", str(workers))
    with proxy.running():
        server = soak.Server(tmp_path, tmp_path / "log", *arguments)
        server.wait_until_ready()
        require_answers(server)
    asked = len(proxy.seen)
    assert asked
    try:  # from here on nobody listens on the store's address
        require_answers(server)
        if workers > 1:  # one that dies is replaced all the same
            children = children_of(server.process.pid)
            os.kill(children[-1], signal.SIGKILL)
            server.wait_until(lambda: children[-1] not in children_of(server.process.pid))
            server.wait_until(lambda: len(children_of(server.process.pid)) == len(children))
            require_answers(server)
    finally:
        assert server.stop() == 0


def children_of(pid):
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]
