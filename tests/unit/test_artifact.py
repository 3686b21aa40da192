"""Folders that steps write: whole or absent, and checked when read."""

import hashlib
import json
import os
from pathlib import Path

import pytest

import xcflow
from xcflow.artifact import MANIFEST, Manifest, read_manifest, writing
from xcflow.errors import ArtifactError, StorageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, text: str = "hello", kind: str = "thing") -> Manifest:
    with writing(folder, kind, config_digest="c", inputs={"a": "1"}) as partial:
        (partial / "one.txt").write_text(text)
        (partial / "sub").mkdir()
        (partial / "sub" / "two.txt").write_text("2")
    return read_manifest(folder, kind, verify=True)


def test_what_a_manifest_says(tmp_path: Path):
    manifest = write(tmp_path / "out")
    assert manifest.files == {
        "one.txt": hashlib.sha256(b"hello").hexdigest(),
        "sub/two.txt": hashlib.sha256(b"2").hexdigest(),
    }
    assert (manifest.kind, manifest.config_digest, manifest.inputs) == ("thing", "c", {"a": "1"})
    assert manifest.library_version == xcflow.__version__
    assert names(tmp_path) == ["out"]


def test_facts_can_be_added_while_writing(tmp_path: Path):
    meta: dict[str, object] = {"first": 1}
    with writing(tmp_path / "out", "thing", meta=meta):
        meta["名"] = "値"
    assert read_manifest(tmp_path / "out").meta == {"first": 1, "名": "値"}


def test_missing_parents_are_made(tmp_path: Path):
    assert write(tmp_path / "a" / "b" / "out").kind == "thing"


def test_the_folder_takes_its_name_only_when_whole(tmp_path: Path):
    with writing(tmp_path / "out", "thing") as partial:
        assert partial.parent == tmp_path
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / MANIFEST).is_file()
    assert not partial.exists()


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path):
    write(tmp_path / "out", "old")
    with writing(tmp_path / "out", "thing") as partial:
        (partial / "new.txt").write_text("new")
        assert (tmp_path / "out" / "one.txt").read_text() == "old"
    assert set(read_manifest(tmp_path / "out", verify=True).files) == {"new.txt"}
    assert names(tmp_path / "out") == [MANIFEST, "new.txt"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_what_stood_there(tmp_path: Path, error: BaseException):
    before = write(tmp_path / "out", "old")

    def fail_midway() -> None:
        with writing(tmp_path / "out", "thing") as partial:
            (partial / "one.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail_midway()
    assert read_manifest(tmp_path / "out", verify=True) == before
    assert names(tmp_path) == ["out"]


def test_a_failure_leaves_nothing_where_nothing_stood(tmp_path: Path):
    with pytest.raises(ValueError, match="x"), writing(tmp_path / "out", "thing"):
        raise ValueError("x")
    assert names(tmp_path) == []


def test_what_an_earlier_try_left_behind_is_not_taken_over(tmp_path: Path):
    stale = tmp_path / f".out.partial-{os.getpid()}"
    stale.mkdir()
    (stale / "stale.txt").write_text("x")
    assert "stale.txt" not in write(tmp_path / "out").files


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"file/out: cannot be written: "):
        write(tmp_path / "file" / "out")


def test_digests_tell_contents_apart(tmp_path: Path):
    first, same = write(tmp_path / "a"), write(tmp_path / "b")
    other, kind = write(tmp_path / "c", "other"), write(tmp_path / "d", kind="else")
    assert first.digest == same.digest
    assert len({first.digest, other.digest, kind.digest}) == 3


def test_no_manifest(tmp_path: Path):
    message = r"nowhere: not a complete dataset \(no manifest\.json\): run that step again"
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path / "nowhere", "dataset")
    with pytest.raises(ArtifactError, match="not a complete step output"):
        read_manifest(tmp_path)


def test_another_kind(tmp_path: Path):
    write(tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"out: holds a thing, not a bundle"):
        read_manifest(tmp_path / "out", "bundle")


def test_an_altered_file_is_seen_when_asked_for(tmp_path: Path):
    write(tmp_path / "out")
    (tmp_path / "out" / "one.txt").write_text("hellO")
    assert read_manifest(tmp_path / "out").kind == "thing"
    with pytest.raises(ArtifactError, match=r"one\.txt: was altered after it was written"):
        read_manifest(tmp_path / "out", verify=True)


def test_a_missing_file_is_always_seen(tmp_path: Path):
    write(tmp_path / "out")
    (tmp_path / "out" / "sub" / "two.txt").unlink()
    with pytest.raises(ArtifactError, match=r"sub/two\.txt: is missing: write the folder again"):
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("more", [{}, {"what_nobody_knows_yet": 1}])
def test_another_layout(tmp_path: Path, more: dict[str, int]):
    write(tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2} | more))
    with pytest.raises(ArtifactError, match="layout 2 is not the one this version of xcflow reads"):
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff", b'{"a": 1}'])
def test_a_manifest_that_cannot_be_read(tmp_path: Path, content: bytes):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read"):
        read_manifest(tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path: Path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_manifest(tmp_path / "out")
