"""Copies of remote folders: no more than fits, none that is in use goes, none is taken on trust."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy

from xcflow.artifact import read_manifest, writing
from xcflow.errors import StorageError
from xcflow.storage import cache, fetch, publish

pytestmark = pytest.mark.usefixtures("credentials")

FILE = 1 << 20


@pytest.fixture
def proxy(endpoint, monkeypatch):
    with FaultyProxy(endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def copies(tmp_path):
    return tmp_path / "cache"


def put(tmp_path, name, **files):
    """Publish a step's folder of the given contents, or of random ones of one MiB."""
    with writing(tmp_path / name, "thing") as folder:
        for file, content in (files or {"x": os.urandom(FILE)}).items():
            (folder / file).write_bytes(content)
    publish(tmp_path / name, f"s3://bucket/cache/{tmp_path.name}/{name}")
    return f"s3://bucket/cache/{tmp_path.name}/{name}"


def elsewhere(uri, copies):
    """Fetch in a process that ends."""
    script = "import sys; from pathlib import Path; from xcflow.storage import fetch\n"
    script += "print(fetch(sys.argv[1], Path(sys.argv[2]), complete=True))"
    done = subprocess.run(
        [sys.executable, "-c", script, uri, copies], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def names(copies):
    return {path.name.rpartition("-")[0] for path in copies.glob("[!.]*-*")}


def contents(copies):
    return sorted(path.stat().st_size for path in (copies / "content").iterdir())


def restart_machine(monkeypatch):
    monkeypatch.setattr(cache, "_start_of_machine", lambda: "another start")


def test_what_is_here_is_not_read_again(tmp_path, copies, proxy):
    uri = put(tmp_path, "one")
    first = fetch(uri, copies)
    sent = len(proxy.seen)
    assert fetch(uri, copies) == first
    assert all("/x" not in path for _, path, _ in proxy.seen[sent:])


def test_the_same_content_comes_and_stands_here_once(tmp_path, copies, proxy):
    same = os.urandom(FILE)
    one = fetch(put(tmp_path, "one", a=same, b=b"1"), copies)
    before = proxy.count("GET", "/two/")
    two = fetch(put(tmp_path, "two", c=same, d=b"2"), copies)
    assert (one / "a").samefile(two / "c")
    assert [path for m, path, _ in proxy.seen if m == "GET" and path.endswith("/c")] == []
    assert proxy.count("GET", "/two/d") == before + 1


def test_what_was_not_used_for_longest_goes(tmp_path, copies, monkeypatch):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, str(3.5 * FILE / 2**30))
    uris = [put(tmp_path, name) for name in ("one", "two", "three", "four")]
    for uri in uris[:3]:
        elsewhere(uri, copies)
    for position, name in enumerate(("two", "three", "one")):  # in this order they were used
        [lock] = copies.glob(f".{name}-*.use")
        os.utime(lock, (position, position))
    elsewhere(uris[3], copies)
    assert names(copies) == {"one", "three", "four"}
    assert sum(contents(copies)) < 3.5 * FILE


def test_what_is_in_use_stays_whatever_the_limit(tmp_path, copies, monkeypatch):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0")
    one = fetch(put(tmp_path, "one"), copies)
    uri = put(tmp_path, "two")
    elsewhere(uri, copies)
    elsewhere(put(tmp_path, "three"), copies)
    assert names(copies) == {"one", "three"}
    assert read_manifest(one, verify=True)


def test_eight_processes_at_once(tmp_path, copies, monkeypatch):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, str(FILE / 2**30))  # so that they fight
    uris = [put(tmp_path, name) for name in ("one", "two")]
    script = """
import sys
from pathlib import Path
from xcflow.artifact import read_manifest
from xcflow.storage import fetch
for _ in range(3):
    for uri in sys.argv[2:]:
        read_manifest(fetch(uri, Path(sys.argv[1]), complete=True), verify=True)
"""

    def run(number):
        order = uris[:: 1 if number % 2 else -1]
        return subprocess.run([sys.executable, "-c", script, copies, *order], check=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))


@pytest.mark.parametrize("damage", ["altered", "emptied"])
def test_after_a_restart_of_the_machine_copies_are_checked(
    tmp_path, copies, monkeypatch, damage, proxy
):
    uri = put(tmp_path, "one", x=b"right", y=b"too")
    copy = elsewhere(uri, copies)
    victim = Path(copy) / "x"
    victim.chmod(0o644)
    victim.write_bytes(b"wrong" if damage == "altered" else b"")
    restart_machine(monkeypatch)
    sent = len(proxy.seen)
    assert read_manifest(fetch(uri, copies), verify=True)
    assert [p for m, p, _ in proxy.seen[sent:] if p.endswith(("/x", "/y"))] == [
        f"/bucket/cache/{tmp_path.name}/one/x"
    ]


def test_a_key_cannot_lead_out_of_its_folder(tmp_path, copies, proxy):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a").write_text("x")
    uri = f"s3://bucket/cache/{tmp_path.name}/plain"
    publish(tmp_path / "plain", uri)

    def rename(exchange):
        exchange.answer = exchange.answer.replace(b"plain/a<", b"plain/../../a<")

    proxy.add("GET", "list-type", 1, after=rename)
    with pytest.raises(StorageError, match="the key leads out of its folder: rename it"):
        fetch(uri, copies)
    assert names(copies) == set()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_one_line(monkeypatch, text, copies):
    monkeypatch.setenv(cache.LIMIT_VARIABLE, text)
    with pytest.raises(StorageError, match=f"XCFLOW_CACHE_GIB={text}: expected a number of GiB"):
        fetch("s3://bucket/x", copies)
