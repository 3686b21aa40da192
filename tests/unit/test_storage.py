"""The storage door on this machine; a real S3 server is asked in tests/service."""

import os
from pathlib import Path

import pytest

from xcflow import storage
from xcflow.errors import StorageError


def make_folder(path: Path, text: str = "x") -> Path:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text(text)
    return path


def test_a_local_folder_is_read_where_it_stands(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a folder")
    assert storage.fetch(str(folder), tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    assert not storage.exists(tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"nothing: no such file or folder"):
        storage.fetch(tmp_path / "nothing", tmp_path)


def test_publishing_adds_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    storage.publish(make_folder(tmp_path / "one", "old"), target)
    (target / "kept").write_text("kept")
    storage.publish(make_folder(tmp_path / "two", "new"), str(target))
    assert (target / "deep" / "file").read_text() == "new"
    assert (target / "kept").read_text() == "kept"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_target_is_one_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "one")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match=r"cannot be written: Permission denied"):
        storage.publish(folder, tmp_path / "locked" / "target")


def test_a_target_below_a_file_is_one_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        storage.publish(folder, tmp_path / "file" / "target")


@pytest.mark.parametrize("uri", ["S3://bucket/x", "gs://bucket/x", "file:///tmp/x", "http://h/x"])
def test_a_uri_of_another_kind_is_no_path(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for act in (storage.read_file, storage.listing, storage.exists):
        with pytest.raises(StorageError, match=f"^{uri}: expected a path of this machine, or s3:"):
            act(uri)
    with pytest.raises(StorageError, match="expected a path"):
        storage.publish(tmp_path, uri)


def test_a_bucket_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(StorageError, match=r"^s3://a bucket!/x: cannot be the name of a bucket"):
        storage.exists("s3://a bucket!/x")


def test_no_credentials_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://bucket/x: no credentials: set AWS_ACCESS_KEY_ID"):
        storage.fetch("s3://bucket/x", tmp_path / "cache")


@pytest.mark.parametrize("text", ["x", "0", "-1", "2.5"])
def test_a_number_of_attempts_that_is_none_is_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", text)
    with pytest.raises(StorageError, match=f"^AWS_MAX_ATTEMPTS={text}: expected a whole number"):
        storage.exists("s3://bucket/x")


def test_an_unreachable_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://bucket/x: the store cannot be reached"):
        storage.exists("s3://bucket/x")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/sets/LF-AmazonTitles-131K", "LF-AmazonTitles-131K"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/..", "__"),
        ("s3://bucket/" + "ü" * 300, "_" * 64),
    ],
)
def test_a_copy_is_called_like_what_was_copied(uri: str, name: str) -> None:
    copy = storage.copy_name(uri)
    assert copy.rpartition("-")[0] == name
    assert copy != storage.copy_name(uri + "x")
