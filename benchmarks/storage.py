"""A folder to S3 and back: xcflow's transfers beside boto3's own transfer manager.

    python benchmarks/storage.py s3://BUCKET/PREFIX

The server is the one that the environment names (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...);
what is written there is removed again. The same folder, one large file and many small ones, goes
there and back by both, by turns, in an order that is reversed each time, after one turn that does
not count. boto3's manager has its default settings (10 threads, parts of 8 MB) and gets all files
at once; it checks CRCs, while xcflow takes and checks the sha256 of each file on both ends. Shown
are the medians and the ratio of the rates. Writes ``results/storage.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
from s3transfer.manager import TransferManager
from throughput import RESULTS, processor

from xcflow.artifact import read_manifest, writing
from xcflow.storage import fetch, publish
from xcflow.storage.places import RemoteFolder

PACKAGES = ("xcflow", "boto3", "s3transfer")
SMALL_BYTES = 64 << 10
PEER = "boto3"
OURS = "xcflow"


class Boto:
    """boto3's transfer manager on a whole folder."""

    def upload(self, folder: Path, uri: str) -> None:
        place = RemoteFolder.of(uri)
        with TransferManager(boto3.Session().client("s3")) as manager:
            sent = [
                manager.upload(str(path), place.bucket, place.prefix + path.name)
                for path in folder.iterdir()
            ]
            for each in sent:
                each.result()

    def download(self, uri: str, into: Path) -> Path:
        place = RemoteFolder.of(uri)
        client = boto3.Session().client("s3")
        into.mkdir()
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=place.bucket, Prefix=place.prefix
        )
        keys = [item["Key"] for page in pages for item in page["Contents"]]
        with TransferManager(client) as manager:
            read = [
                manager.download(place.bucket, key, str(into / key.removeprefix(place.prefix)))
                for key in keys
            ]
            for each in read:
                each.result()
        return into


class Ours:
    """What the pipeline does."""

    def upload(self, folder: Path, uri: str) -> None:
        publish(folder, uri)

    def download(self, uri: str, into: Path) -> Path:
        return fetch(uri, into, complete=True)


def write_folder(folder: Path, megabytes: int, files: int) -> int:
    """One large file and many small ones, of random bytes; returns how many bytes."""
    with writing(folder, "benchmark") as partial:
        with (partial / "large").open("wb") as stream:
            for _ in range(megabytes):
                stream.write(os.urandom(1 << 20))
        for number in range(files):
            (partial / f"small-{number}").write_bytes(os.urandom(SMALL_BYTES))
    return sum(path.stat().st_size for path in folder.iterdir())


def race(folder: Path, uri: str, turns: int, scratch: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds of each transfer of each contender."""
    contenders: dict[str, Boto | Ours] = {PEER: Boto(), OURS: Ours()}
    times: dict[str, dict[str, list[float]]] = {
        name: {"upload": [], "download": []} for name in contenders
    }
    manifest = read_manifest(folder)
    for turn in range(turns + 1):
        order = list(contenders) if turn % 2 == 0 else list(reversed(contenders))
        for direction in ("upload", "download"):
            for name in order:
                place, into = f"{uri}/{name}-{turn}", scratch / name
                if direction == "upload":
                    taken = seconds(lambda n=name, p=place: contenders[n].upload(folder, p))
                else:
                    taken = seconds(lambda n=name, p=place, i=into: contenders[n].download(p, i))
                    copy = into if name == PEER else next(into.glob("[!.]*-*"))
                    assert read_manifest(copy, verify=True) == manifest
                    shutil.rmtree(into)
                    remove(place)
                if turn:
                    times[name][direction].append(taken)
    return times


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def remove(uri: str) -> None:
    place, client = RemoteFolder.of(uri), boto3.Session().client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=place.prefix
    )
    for page in pages:
        keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
        client.delete_objects(Bucket=place.bucket, Delete={"Objects": keys})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("uri", metavar="s3://BUCKET/PREFIX")
    parser.add_argument("--megabytes", type=int, default=512, help="of the large file")
    parser.add_argument("--files", type=int, default=200, help="small ones, of 64 KiB each")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        size = write_folder(folder, args.megabytes, args.files)
        times = race(folder, args.uri.rstrip("/"), args.turns, Path(scratch))
    results: dict[str, Any] = {
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {package: version(package) for package in PACKAGES},
        "bytes": size,
        "files": args.files + 2,
        "seconds": times,
        "ratio_of_rates": {
            direction: statistics.median(times[PEER][direction])
            / statistics.median(times[OURS][direction])
            for direction in ("upload", "download")
        },
    }
    (RESULTS / "storage.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| | boto3, MB/s | xcflow, MB/s | xcflow / boto3 |\n| --- |" + " ---: |" * 3)
    for direction, ratio in results["ratio_of_rates"].items():
        rates = [size / 1e6 / statistics.median(times[name][direction]) for name in (PEER, OURS)]
        print(f"| {direction} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.0%} |")


if __name__ == "__main__":
    main()
