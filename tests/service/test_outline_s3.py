"""A catalogue on a real S3 server is known by its seal or its listing, without its documents."""

from pathlib import Path

import boto3
import pytest

from xcflow.catalogue import outline as module
from xcflow.catalogue.outline import documents_of, labels_of, look_at
from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, Seal
from xcflow.config import DataConfig
from xcflow.errors import DataError
from xcflow.storage import publish, replace_file

pytestmark = pytest.mark.usefixtures("credentials")
CONFIG = DataConfig()


@pytest.fixture
def folder(write_catalogue, tmp_path) -> Path:
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}],
        [{"id": f"d{i}", "text": "text", "labels": ["a"]} for i in (1, 2)],
        [{"id": "t1", "text": "text", "labels": ["b"]}],
    )


@pytest.fixture
def uri(folder, request) -> str:
    """The same catalogue on the server, in a place of the test's own."""
    uri = f"s3://bucket/outlines/{request.node.name}"
    publish(folder, uri)
    return uri


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """What is fetched in whole."""
    names: list[str] = []

    def fetch(uri: str, target: Path) -> None:
        names.append(uri.rpartition("/")[2])
        original(uri, target)

    original = module.fetch_file
    monkeypatch.setattr(module, "fetch_file", fetch)
    return names


def test_a_listing_is_another_where_a_file_is(uri, folder, fetched):
    first = look_at(uri, CONFIG)
    assert (first.basis, first.content, first.seal) == ("listing", "", None)
    replace_file(f"{uri}/README.md", b"no part of it")
    assert look_at(uri, CONFIG).digest == first.digest
    changed = (folder / "train.jsonl").read_bytes().replace(b"d1", b"d9")
    replace_file(f"{uri}/train.jsonl", changed)
    assert look_at(uri, CONFIG).digest != first.digest
    assert fetched == []


def test_a_seal_tells_the_digest_of_the_content(uri, folder, fetched):
    replace_file(f"{uri}/{NAME}", Seal.of(folder, CONFIG).to_bytes())
    outline = look_at(uri, CONFIG)
    assert (outline.basis, outline.digest) == ("seal", catalogue_digest(folder))
    assert documents_of(outline, CONFIG) == 3
    assert fetched == []


def test_an_upload_that_is_not_finished_is_not_taken_for_a_catalogue(uri, folder):
    replace_file(f"{uri}/{NAME}", Seal.of(folder, CONFIG).to_bytes())
    replace_file(f"{uri}/train.jsonl", b"{}\n")
    with pytest.raises(DataError, match="an upload is not finished") as caught:
        look_at(uri, CONFIG)
    assert str(caught.value).startswith(f"{uri}/{NAME}: train.jsonl has 3 bytes")


def test_only_the_labels_are_fetched_to_tell_what_is_new(uri, tmp_path, fetched):
    (tmp_path / "tables").mkdir()
    outline = look_at(uri, CONFIG)
    labels = labels_of(outline, CONFIG, tmp_path / "tables")
    assert not isinstance(labels, str)
    assert labels.texts.to_list() == ["one", "two"]
    assert documents_of(outline, CONFIG) == f"the catalogue has no {NAME} (xcflow seal writes it)"
    assert fetched == ["labels.jsonl"]


def test_labels_that_documents_number_are_not_known(tmp_path):
    folder = tmp_path / "numbered"
    folder.mkdir()
    texts = {"Y.txt": "one\ntwo\n", "trn_X.txt": "a\n", "tst_X.txt": "b\n"}
    matrices = {"trn_X_Y.txt": "1 2\n0:1\n", "tst_X_Y.txt": "1 2\n1:1\n"}
    for name, text in {**texts, **matrices}.items():
        (folder / name).write_text(text)
    publish(folder, "s3://bucket/outlines/numbered")
    outline = look_at("s3://bucket/outlines/numbered", CONFIG)
    reason = "the format repository-text numbers labels by what stands among the documents"
    assert labels_of(outline, CONFIG, tmp_path) == reason


def test_errors_name_the_place_and_not_what_stands_for_it(uri, tmp_path):
    with pytest.raises(DataError, match=r"^s3://bucket/nothing: nothing is there"):
        look_at("s3://bucket/nothing", CONFIG)
    replace_file("s3://bucket/outlines/half/train.jsonl", b"{}\n")
    with pytest.raises(DataError, match=r"^s3://bucket/outlines/half: misses labels"):
        look_at("s3://bucket/outlines/half", CONFIG)
    replace_file(f"{uri}/labels.jsonl.gz", b"no gzip")
    boto3.client("s3").delete_object(
        Bucket="bucket", Key=f"{uri.removeprefix('s3://bucket/')}/labels.jsonl"
    )
    (tmp_path / "tables").mkdir()
    with pytest.raises(DataError, match=f"^{uri}/labels.jsonl.gz"):
        labels_of(look_at(uri, CONFIG), CONFIG, tmp_path / "tables")
