"""The batch job from and to a real S3 server."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

from xcflow.catalogue.string_table import StringTable
from xcflow.disk import claimed
from xcflow.errors import BusyError, DataError, StorageError
from xcflow.home import Home
from xcflow.interruption import Interruption
from xcflow.serving.batch import job as job_module
from xcflow.serving.batch import rows_in
from xcflow.serving.batch.job import BatchJob
from xcflow.serving.batch.places import Places
from xcflow.storage import fetch_file, publish_file
from xcflow.topk import TopK

pytestmark = pytest.mark.usefixtures("credentials")

ROWS = [(f"d{i}", "x" * (i % 7)) for i in range(20)]


class Predictor:
    """Answers with the text's length, and may be interrupted after so many texts."""

    label_ids = StringTable.from_list([f"label {i}" for i in range(10)])
    manifest = SimpleNamespace(digest="a model")

    def __init__(self, stop_after=1000):
        self.left = stop_after

    def top_k(self, texts, k, voice="fused"):
        self.left -= len(texts)
        if self.left < 0:
            raise Interruption(15)
        labels = np.array([[len(text)] + [-1] * (k - 1) for text in texts], np.int32)
        return TopK(labels, np.ones(labels.shape, np.float32))

    def probabilities(self, scores):
        return scores / 2


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(rows_in, "BATCH_TEXTS", 2)
    monkeypatch.setattr(job_module, "BATCHES_IN_PART", 3)


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


def put(tmp_path, uri, content):
    (tmp_path / "content").write_bytes(content)
    publish_file(tmp_path / "content", uri)
    return uri


def get(tmp_path, uri):
    fetch_file(uri, tmp_path / "fetched")
    return (tmp_path / "fetched").read_bytes()


def lines(rows=ROWS):
    return "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in rows).encode()


def test_from_a_bucket_to_a_bucket(tmp_path, home):
    source = put(tmp_path, "s3://bucket/in/some texts é.jsonl.gz", gzip.compress(lines()))
    target = "s3://bucket/out/answers.jsonl"
    assert BatchJob(source, target, 5).run(Predictor(), home).texts == 20
    answers = [json.loads(line) for line in get(tmp_path, target).splitlines()]
    assert [(a["id"], a["labels"][0]["id"]) for a in answers] == [
        (i, f"label {len(text)}") for i, text in ROWS
    ]
    assert list(home.batches.iterdir()) == []


def test_one_side_may_be_local(tmp_path, home):
    remote = put(tmp_path, "s3://bucket/mixed/in.jsonl", lines())
    local = tmp_path / "in.jsonl"
    local.write_bytes(lines())
    BatchJob(remote, str(tmp_path / "out.csv"), 5).run(Predictor(), home)
    BatchJob(str(local), "s3://bucket/mixed/out.csv", 5).run(Predictor(), home)
    content = (tmp_path / "out.csv").read_bytes()
    assert content.count(b"\n") == 21
    assert get(tmp_path, "s3://bucket/mixed/out.csv") == content
    assert list(home.batches.iterdir()) == []


@pytest.mark.parametrize("ending", [".jsonl.gz", ".parquet"])
def test_an_interrupted_job_goes_on(tmp_path, home, ending):
    source = put(tmp_path, "s3://bucket/again/in.jsonl", lines())
    job = BatchJob(source, f"s3://bucket/again/out{ending}", 5)
    with pytest.raises(Interruption):
        job.run(Predictor(stop_after=14), home)
    assert [path.name for path in home.batches.glob("*/*")] == ["parts"]
    with pytest.raises(StorageError):
        get(tmp_path, job.target)
    assert job.run(Predictor(), home).before == 12
    undisturbed = BatchJob(source, f"s3://bucket/again/undisturbed{ending}", 5)
    assert undisturbed.run(Predictor(), home).before == 0
    assert get(tmp_path, job.target) == get(tmp_path, undisturbed.target)


def test_a_bad_row_is_named_by_where_it_stands(tmp_path, home):
    source = put(tmp_path, "s3://bucket/bad/in.csv", b"id,text\na,b\nc\n")
    with pytest.raises(DataError, match=r"^s3://bucket/bad/in\.csv, line 3: has 1 fields"):
        BatchJob(source, "s3://bucket/bad/out.csv", 5).run(Predictor(), home)
    source = put(tmp_path, "s3://bucket/bad/packed.jsonl", gzip.compress(lines()))
    with pytest.raises(DataError, match=r"rename it to packed\.jsonl\.gz$"):
        BatchJob(source, str(tmp_path / "out.csv"), 5).run(Predictor(), home)
    assert list(home.batches.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("s3://bucket/nothing.csv", "out.csv", "s3://bucket/nothing.csv: no such file"),
        ("s3://no-such-bucket/x.csv", "out.csv", "no such bucket"),
        ("s3:///x.csv", "out.csv", "expected s3://bucket/key of a file"),
        ("s3://bucket/nothing.csv", "s3://no-such-bucket/x.csv", "x.csv: no such bucket"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path, monkeypatch, home, source, target, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=reason) as caught:
        BatchJob(source, target, 5).run(Predictor(), home)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}
    assert list(home.batches.glob("*")) == []


def test_a_wrong_secret_is_named_before_anything_is_answered(tmp_path, home, monkeypatch):
    source = put(tmp_path, "s3://bucket/secret/in.jsonl", lines())
    local = tmp_path / "in.jsonl"
    local.write_bytes(lines())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for pair in ((source, str(tmp_path / "out.csv")), (str(local), "s3://bucket/secret/out.csv")):
        with pytest.raises(StorageError, match=r"secret key|access denied"):
            BatchJob(*pair, 5).run(Predictor(stop_after=0), home)


def test_two_at_once(tmp_path, home):
    source = put(tmp_path, "s3://bucket/two/in.jsonl", lines())
    target = "s3://bucket/two/out.jsonl"
    with (
        claimed(Places.of(target, home).folder),
        pytest.raises(BusyError, match="is being written by another process"),
    ):
        BatchJob(source, target, 5).run(Predictor(), home)
