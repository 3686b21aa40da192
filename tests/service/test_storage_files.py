"""Small files on this machine and on a real S3 server: the same promises on both."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from xcflow.errors import StorageError
from xcflow.storage import create_file, files, listing, read_file, remove_file, replace_file

pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    name = request.node.name.replace("[", "-").replace("]", "")
    return str(tmp_path / "root") if request.param == "local" else f"s3://bucket/files/{name}"


def test_a_file_is_created_at_most_once(root):
    uri = f"{root}/deep/é file"
    assert read_file(uri) is None
    assert create_file(uri, b"first")
    assert not create_file(uri, b"second")
    assert read_file(uri) == b"first"
    replace_file(uri, b"")
    assert read_file(uri) == b""
    remove_file(uri)
    remove_file(uri)
    assert read_file(uri) is None


def test_of_sixteen_racers_one_wins(root):
    together = Barrier(16)

    def race(number):
        together.wait()
        return create_file(f"{root}/lease", b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert won.count(True) == 1
    assert read_file(f"{root}/lease") == b"%d" % won.index(True)
    assert [file.name for file in listing(root)] == ["lease"]


def test_a_listing_tells_what_changed(root):
    assert listing(root) == []
    replace_file(f"{root}/b", b"bb")
    replace_file(f"{root}/a/deep", b"a")
    before = listing(f"{root}/")
    assert [(file.name, file.size) for file in before] == [("a/deep", 1), ("b", 2)]
    assert listing(root) == before
    replace_file(f"{root}/b", b"BB")
    changed = [old.name for old, new in zip(before, listing(root), strict=True) if old != new]
    assert changed == ["b"]


def test_what_is_too_large_is_refused(root, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    replace_file(f"{root}/big", b"x" * (1 << 20))
    assert len(read_file(f"{root}/big")) == 1 << 20
    replace_file(f"{root}/big", b"x" * ((1 << 20) + 1))
    with pytest.raises(StorageError, match="big: holds more than 1 MiB"):
        read_file(f"{root}/big")


@pytest.mark.parametrize("ask", [read_file, listing])
def test_a_missing_bucket_is_no_absent_file(ask):
    with pytest.raises(StorageError, match="no-such-bucket/x: no such bucket"):
        ask("s3://no-such-bucket/x")


def test_a_folder_is_no_file(tmp_path):
    for refuse in (read_file, lambda path: create_file(path, b""), remove_file):
        with pytest.raises(StorageError) as caught:
            refuse(tmp_path)
        assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
