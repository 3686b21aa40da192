"""Trouble between here and a real S3 server: success after all, or one clear line."""

import datetime
import ipaddress
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faulty_proxy import FaultyProxy

from xcflow.artifact import MANIFEST, read_manifest, writing
from xcflow.errors import StorageError
from xcflow.storage import create_file, download, fetch, fetch_file, publish, read_file, upload
from xcflow.storage import publish_file as upload_file

pytestmark = pytest.mark.usefixtures("credentials")
PART = 5 << 20  # the least that S3 allows


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(upload, "PART", PART)
    monkeypatch.setattr(download, "PART", PART)


@pytest.fixture
def proxy(credentials, endpoint, monkeypatch):
    with FaultyProxy(endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def uri(request):
    return "s3://bucket/faults/" + re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def step(tmp_path):
    return write(tmp_path / "step")


def write(output, word=b"small"):
    with writing(output, "thing") as folder:
        (folder / "big").write_bytes(os.urandom(2 * PART + 1000))
        (folder / "small").write_bytes(word)
    return output


def whole(folder):
    return read_manifest(folder, "thing", verify=True)


def bucket():
    return boto3.client("s3")


def keys(uri):
    prefix = uri.removeprefix("s3://bucket/") + "/"
    listed = bucket().list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return {item["Key"].removeprefix(prefix) for item in listed}


def refused(call, *arguments, **options):
    """The line that a call is refused with."""
    with pytest.raises(StorageError) as caught:
        call(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def no_copy(cache):
    """Whether nothing in the cache looks like a whole folder."""
    names = {path.name for path in cache.glob("[!.]*")}
    return names <= {"content", "known"}


DISTURB = {
    "refused": lambda proxy, method, part: proxy.answer(method, part, 500, "InternalError"),
    "slow down": lambda proxy, method, part: proxy.answer(method, part, 503, "SlowDown"),
    "unheard": lambda proxy, method, part: proxy.lose_request(method, part),
    "answer lost": lambda proxy, method, part: proxy.lose_answer(method, part),
    "answer cut": lambda proxy, method, part: proxy.cut_answer(method, part, 1000),
    "answer damaged": lambda proxy, method, part: proxy.damage_answer(method, part),
    "answer short": lambda proxy, method, part: proxy.shorten_answer(method, part, 1000),
}


@pytest.mark.parametrize("how", DISTURB)
def test_reading_gets_over(how, proxy, tmp_path, step, uri):
    publish(step, uri)
    DISTURB[how](proxy, "GET", "/big")
    copy = fetch(uri, tmp_path / "cache", complete=True)
    assert whole(copy) == whole(step)


@pytest.mark.parametrize("how", ["refused", "slow down", "unheard", "answer lost"])
@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("PUT", "/small"),
        ("POST", "/big?uploads"),
        ("PUT", "partNumber=2"),
        ("POST", "/big?uploadId"),
        ("PUT", f"/{MANIFEST}"),
    ],
)
def test_writing_gets_over(how, method, part, proxy, tmp_path, step, uri):
    DISTURB[how](proxy, method, part)
    publish(step, uri)
    assert whole(fetch(uri, tmp_path / "cache", complete=True)) == whole(step)


@pytest.mark.parametrize("part", ["/small", "partNumber=1"])
def test_what_is_damaged_on_its_way_to_the_store_is_sent_again(part, proxy, tmp_path, step, uri):
    proxy.damage_request("PUT", part)
    publish(step, uri)
    assert proxy.count("PUT", part) == 2
    assert whole(fetch(uri, tmp_path / "cache", complete=True)) == whole(step)


def test_one_that_created_a_file_knows_it_though_the_answer_was_lost(proxy, uri):
    proxy.lose_answer("PUT", "/lease")
    assert create_file(f"{uri}/lease", b"mine")
    assert proxy.count("PUT", "/lease") == 2
    assert not create_file(f"{uri}/lease", b"theirs")
    proxy.cut_answer("GET", "/lease", 2)
    assert read_file(f"{uri}/lease") == b"mine"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (500, "InternalError", "the store fails, and asking again did not help"),
        (503, "SlowDown", "the store is overloaded and stays so"),
        (403, "InvalidAccessKeyId", "the access key is unknown: check AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "the credentials have expired"),
    ],
)
def test_what_stays_is_said_in_one_line(
    status, code, reason, proxy, tmp_path, step, uri, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.answer("PUT", "partNumber=2", status, code, times=100)
    assert refused(publish, step, uri).startswith(f"{uri}: {reason}")
    assert MANIFEST not in keys(uri)
    assert "big" not in keys(uri)
    pending = bucket().list_multipart_uploads(Bucket="bucket").get("Uploads", ())
    assert not [each for each in pending if uri.endswith(each["Key"].rpartition("/")[0])]
    assert "manifest.json" in refused(fetch, uri, tmp_path / "cache", complete=True)
    assert no_copy(tmp_path / "cache")


def test_a_clock_that_differs_is_said_in_one_line(proxy, tmp_path, uri):
    shift = lambda e: e.headers.replace_header("X-Amz-Date", "20200101T000000Z")  # noqa: E731
    proxy.add("GET", "faults", 1, before=shift)
    proxy.add("PUT", "faults", 1, before=shift)
    clock = f"{uri}/x: this machine's clock differs from the store's: set it right"
    assert refused(read_file, f"{uri}/x") == clock
    assert refused(create_file, f"{uri}/x", b"") == clock


def test_a_wrong_secret_and_an_unknown_key(tmp_path, step, uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    line = f"{uri}: the secret key is wrong: check AWS_SECRET_ACCESS_KEY"
    assert refused(publish, step, uri) == line
    assert refused(fetch, uri, tmp_path / "cache") == line
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "the access key is unknown" in refused(fetch, uri, tmp_path / "cache")
    assert no_copy(tmp_path / "cache")


def test_a_missing_bucket(tmp_path, step):
    assert refused(publish, step, "s3://no-bucket/x") == "s3://no-bucket/x: no such bucket"
    assert refused(fetch, "s3://no-bucket/x", tmp_path) == "s3://no-bucket/x: no such bucket"


def test_who_may_only_read(reader, tmp_path, step, uri, monkeypatch):
    publish(step, uri)
    for name, value in reader.items():
        monkeypatch.setenv(name, value)
    assert whole(fetch(uri, tmp_path / "cache", complete=True)) == whole(step)
    for call in (lambda: publish(step, f"{uri}-2"), lambda: create_file(f"{uri}-2/x", b"")):
        assert "access denied: check the credentials and their rights" in refused(call)


@pytest.mark.parametrize("name", ["big", "small"])
def test_an_object_that_was_cut_off_in_the_bucket(name, tmp_path, step, uri):
    publish(step, uri)
    key = uri.removeprefix("s3://bucket/") + f"/{name}"
    bucket().put_object(Bucket="bucket", Key=key, Body=(step / name).read_bytes()[:-1])
    line = refused(fetch, uri, tmp_path / "cache", complete=True)
    assert line.startswith(f"{uri}/{name}: its sha256 is not that in the manifest")
    assert no_copy(tmp_path / "cache")


def test_a_store_that_always_sends_too_little(proxy, tmp_path, step, uri, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    publish(step, uri)
    proxy.shorten_answer("GET", "/small", 0, times=100)
    line = refused(fetch, uri, tmp_path / "cache", complete=True)
    assert "the store lists 5 bytes and sends fewer" in line
    assert no_copy(tmp_path / "cache")


def test_a_folder_without_a_readable_manifest_is_never_whole(tmp_path, step, uri):
    publish(step, uri)
    key = uri.removeprefix("s3://bucket/") + f"/{MANIFEST}"
    for content in (b"", (step / MANIFEST).read_bytes()[:-20]):
        bucket().put_object(Bucket="bucket", Key=key, Body=content)
        line = refused(fetch, uri, tmp_path / "cache")
        assert line.startswith(f"{uri}/{MANIFEST}: cannot be read")
    bucket().delete_object(Bucket="bucket", Key=key)
    assert "is not whole" in refused(fetch, uri, tmp_path / "cache", complete=True)
    publish(step, uri)
    bucket().delete_object(Bucket="bucket", Key=key.replace(MANIFEST, "small"))
    assert refused(fetch, uri, tmp_path / "cache").startswith(f"{uri}/small: is missing")
    assert no_copy(tmp_path / "cache")
    publish(step, uri)  # sends what is missing
    assert whole(fetch(uri, tmp_path / "cache")) == whole(step)


def test_what_was_altered_after_it_was_written_is_not_published(tmp_path, step, uri):
    for name in ("small", "big"):
        before = (step / name).read_bytes()
        (step / name).write_bytes(b"x" * len(before))
        assert "was altered after it was written" in refused(publish, step, f"{uri}/{name}")
        assert not keys(f"{uri}/{name}") & {name, MANIFEST}
        (step / name).write_bytes(before)


def test_publishing_the_same_again_sends_nothing(proxy, tmp_path, step, uri):
    publish(step, uri)
    sent = len(proxy.seen)
    publish(step, uri)
    assert {method for method, _, _ in proxy.seen[sent:]} == {"GET"}


def test_what_had_come_whole_is_not_sent_again(proxy, tmp_path, step, uri):
    """Large files do not wait for each other."""
    with writing(tmp_path / "two", "thing") as folder:
        for name in ("first", "second"):
            (folder / name).write_bytes(os.urandom(2 * PART))
    proxy.answer("POST", "/second?uploadId", 403, "AccessDenied")
    assert "access denied" in refused(publish, tmp_path / "two", uri)
    assert keys(uri) == {"first"}
    publish(tmp_path / "two", uri)
    assert proxy.count("POST", "/first?uploads") == 1
    assert whole(fetch(uri, tmp_path / "cache")) == whole(tmp_path / "two")


def test_another_folder_takes_the_place_of_the_first(proxy, tmp_path, step, uri):
    publish(step, uri)
    with writing(tmp_path / "other", "thing") as folder:
        (folder / "small").write_bytes(b"other")
    seen = []
    proxy.on("PUT", "/small", lambda: seen.append(keys(uri)))
    publish(tmp_path / "other", uri)
    assert MANIFEST not in seen[0]  # gone before the first file was replaced
    assert keys(uri) == {"small", MANIFEST}
    assert whole(fetch(uri, tmp_path / "cache")) == whole(tmp_path / "other")


def test_of_two_that_publish_different_folders_at_once_one_is_told(proxy, tmp_path, step, uri):
    other = write(tmp_path / "other", b"other")
    proxy.on("PUT", f"/{MANIFEST}", lambda: publish(other, uri))
    assert "another process wrote another folder there at the same time" in refused(
        publish, step, uri
    )
    assert whole(fetch(uri, tmp_path / "cache")) == whole(other)


def test_eight_that_publish_the_same_at_once(tmp_path, step, uri):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: publish(step, uri), range(8)))
    assert whole(fetch(uri, tmp_path / "cache")) == whole(step)


def test_a_killed_reader_goes_on_with_what_is_missing(proxy, tmp_path, step, uri):
    publish(step, uri)
    cache = tmp_path / "cache"

    def kill(exchange):
        if not exchange.headers["Range"].startswith(f"bytes={2 * PART}-"):
            return
        while sum(len(p.read_text().splitlines()) for p in cache.glob(JOURNAL)) < 3:
            time.sleep(0.01)
        process.kill()
        exchange.lost = True

    proxy.add("GET", "/big", 3, before=kill)
    process = subprocess.Popen([sys.executable, "-c", READ, uri, cache, str(PART)])
    assert process.wait() == -9
    assert [p.suffix for p in cache.glob(".*.unfinished")] == [".unfinished"]
    assert not [p for p in cache.glob("step*") if p.is_dir()]
    before = proxy.count("GET", "/big")
    assert whole(fetch(uri, cache, complete=True)) == whole(step)
    assert proxy.count("GET", "/big") == before + 1


JOURNAL = ".*.unfinished/.big.parts"
READ = """
import sys
from pathlib import Path
from xcflow.storage import download, fetch
download.PART = int(sys.argv[3])
fetch(sys.argv[1], Path(sys.argv[2]), complete=True)
"""


def test_an_interrupted_file_is_begun_anew_where_the_object_changed(
    proxy, tmp_path, step, uri, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    upload_file(step / "big", f"{uri}/big")
    proxy.add(
        "GET",
        "/big",
        4,
        before=lambda e: setattr(
            e, "lost", "Range" in e.headers and e.headers["Range"].startswith("bytes=0-")
        ),
    )
    assert "cannot be reached" in refused(fetch_file, f"{uri}/big", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    other = write(tmp_path / "other") / "big"
    upload_file(other, f"{uri}/big")
    fetch_file(f"{uri}/big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == other.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "other", "step"]


def test_a_folder_that_is_replaced_while_it_is_read(proxy, tmp_path, step, uri):
    publish(step, uri)
    other = write(tmp_path / "other", b"other")
    proxy.on("GET", "/big", lambda: publish(other, uri))
    assert whole(fetch(uri, tmp_path / "cache", complete=True)) == whole(other)


def self_signed(path):
    """A certificate of 127.0.0.1 that only who has it trusts, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an own CA")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    return path


def test_a_server_with_a_certificate_of_its_own(endpoint, tmp_path, step, uri, monkeypatch):
    certificate = self_signed(tmp_path / "certificate.pem")
    with FaultyProxy(endpoint, certificate).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert "certificate is not trusted" in refused(publish, step, uri)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing"))
        assert refused(publish, step, uri).endswith("nothing: no such file")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        publish(step, uri)
        assert whole(fetch(uri, tmp_path / "cache", complete=True)) == whole(step)


def test_the_endpoint_of_s3_alone_counts_first(endpoint, proxy, uri, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert read_file(f"{uri}/nothing") is None
    assert proxy.seen[0][1].startswith("/bucket/")  # the bucket is part of the path
