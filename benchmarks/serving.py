"""A server as its users meet it: start, memory, the time of an answer, answers a second.

    python benchmarks/serving.py BUNDLE [--texts FILE] [--name NAME] [--peer]

Starts ``xcflow serve --model BUNDLE`` on this machine's loopback and asks it over HTTP with
connections that stay open: one client that asks text after text, then 32 at once from a process of
their own. ``--peer`` times the answer of sentence-transformers' ``encode`` and an exact faiss index
over the label texts beside the model's own, by turns in one process.

Writes ``results/serving-NAME.json`` beside this file and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from throughput import RESULTS, processor

BUNDLED = Path(__file__).parents[1] / "src/xcflow/data/debian-related/tst.jsonl.gz"
TEXTS, LONE, MANY, CLIENTS, K = 1_000, 3_000, 6_000, 32, 10
WARM_UP = 200


def texts_of(file: Path) -> list[str]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(TEXTS), strict=False)]


def requests_of(texts: list[str]) -> list[bytes]:
    """Requests, ready to be sent."""
    bodies = [json.dumps({"texts": [text], "k": K}).encode() for text in texts]
    head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def ask(port: int, requests: list[bytes], count: int, clients: int) -> list[float]:
    """Seconds of each of ``count`` answers, spread over as many clients."""
    seconds: list[float] = []

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(first, count, clients):
            start = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seconds.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(client(first) for first in range(clients)))
    return seconds


def asked(port: int, requests: list[bytes], count: int, clients: int) -> dict[str, float]:
    start = time.perf_counter()
    seconds = asyncio.run(ask(port, requests, count, clients))
    a_second = count / (time.perf_counter() - start)
    return percentiles(seconds) | {"requests_a_second": round(a_second, 1)}


def percentiles(seconds: list[float]) -> dict[str, float]:
    values = 1000.0 * np.percentile(seconds, (50, 90, 99))
    return dict(zip(("p50_ms", "p90_ms", "p99_ms"), values.round(2).tolist(), strict=True))


def resident_mb(pid: int) -> float:
    """Resident memory, the mapped files that were read included."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def served(bundle: Path, requests: list[bytes]) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "from xcflow_pipelines.cli import main; main()"
    command = [sys.executable, "-c", script, "serve", "--model", str(bundle)]
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            env=os.environ | {"XCFLOW_HOME": home},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(port)
            figures: dict[str, Any] = {
                "seconds_to_ready": round(time.perf_counter() - start, 2),
                "memory_when_ready_mb": resident_mb(server.pid),
            }
            with ProcessPoolExecutor(1) as clients:
                clients.submit(asked, port, requests, WARM_UP, 1).result()
                figures["one_client"] = clients.submit(asked, port, requests, LONE, 1).result()
                figures[f"{CLIENTS}_clients"] = clients.submit(
                    asked, port, requests, MANY, CLIENTS
                ).result()
            figures["memory_at_the_end_mb"] = resident_mb(server.pid)
        finally:
            server.terminate()
            server.wait()
    return figures


def wait_until_ready(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.02)


def beside_peer(bundle: Path, texts: list[str]) -> dict[str, Any]:
    """Answers in this process, by turns."""
    import faiss
    from sentence_transformers import SentenceTransformer

    from xcflow.pretrained import model_folder
    from xcflow.serving.predictor import Predictor

    predictor = Predictor.load(bundle)
    model = SentenceTransformer(str(model_folder("minilm")), device="cpu")
    labels = model.encode(predictor.label_texts.to_list(), normalize_embeddings=True)
    index = faiss.IndexFlatIP(labels.shape[1])
    index.add(labels)
    ways = {
        "xcflow": lambda text: predictor.top_k([text], K),
        "sentence-transformers and faiss": lambda text: index.search(
            model.encode([text], normalize_embeddings=True), K
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number, text in enumerate(texts[:300]):
        for name, answer in ways.items():
            start = time.perf_counter()
            answer(text)
            if number >= 20:
                seconds[name].append(time.perf_counter() - start)
    return {name: percentiles(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--texts", type=Path, default=BUNDLED)
    parser.add_argument("--name", default="bag")
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    texts = texts_of(arguments.texts)
    figures = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        **served(arguments.bundle, requests_of(texts)),
    }
    if arguments.peer:
        figures["in_one_process"] = beside_peer(arguments.bundle, texts)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"serving-{arguments.name}.json"
    target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
