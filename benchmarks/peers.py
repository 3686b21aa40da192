"""Measure other methods on a catalogue with xcflow's own data set and metrics.

    python benchmarks/peers.py CATALOGUE [--threads N] [--only parabel bonsai ...] [--pecos PYTHON]

Peers learn from all training documents, validation included, because they choose nothing on it:

- ``parabel`` and ``bonsai``: partitioned label trees of omikuji on TF-IDF of the documents;
- ``xr_linear``: the trees of PECOS on the same TF-IDF, by a Python that has it (``xr_linear.py``
  says how it is made); left out without ``--pecos``;
- ``neighbours_tfidf``: labels of the 50 nearest training documents, weighted by similarity;
- ``baseline_tfidf``: the label texts nearest to the document, as in every evaluation.

Writes ``results/peers-<catalogue>.json`` beside this file and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import omikuji
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config, EvaluationConfig
from xcflow.evaluation.protocol import measure_models, measured_rows
from xcflow.evaluation.rankers import Queries, Ranker
from xcflow.phases import peak_memory_mb
from xcflow.progress import log
from xcflow.ragged import Ragged
from xcflow.retrieval.words import WordIndex
from xcflow.steps import run_step
from xcflow.topk import TopK, best_of

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@10", "R@100")
NEIGHBOURS = 50

# Settings by which omikuji's documentation names the two methods.
PARABEL: dict[str, Any] = {}
BONSAI: dict[str, Any] = {"cluster_balanced": False, "cluster_k": 100, "max_depth": 3}

Search = Callable[[Queries, int], TopK]


class Features:
    """TF-IDF vectors of documents, fitted on the training documents that have a label."""

    def __init__(self, dataset: Dataset) -> None:
        self.rows = np.flatnonzero(dataset.train.labels.lengths)
        self.vectoriser = TfidfVectorizer(token_pattern=r"\w+", dtype=np.float32)
        self.train = self.vectoriser.fit_transform(dataset.train.texts.take(self.rows)).tocsr()
        self.train.sort_indices()
        self.labels = dataset.train.labels.take(self.rows)

    def of(self, texts: list[str]) -> sparse.csr_matrix[Any]:
        """Vectors of other documents."""
        vectors = self.vectoriser.transform(texts).tocsr()
        vectors.sort_indices()
        return vectors


class Trees:
    """Partitioned label trees."""

    def __init__(self, features: Features, labels: int, settings: dict[str, Any], threads: int):
        parameters = omikuji.Model.default_hyper_param()
        for name, value in settings.items():
            setattr(parameters, name, value)
        self.features = features
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.txt"
            write_sparse(path, features.train, features.labels, labels)
            with quiet():
                self.model = omikuji.Model.train_on_data(str(path), parameters, threads)

    def __call__(self, queries: Queries, k: int) -> TopK:
        vectors = self.features.of(queries.texts)
        answers = TopK.none(len(queries.texts), k)
        for i in range(len(queries.texts)):
            part = slice(vectors.indptr[i], vectors.indptr[i + 1])
            pairs = list(
                zip(vectors.indices[part].tolist(), vectors.data[part].tolist(), strict=True)
            )
            for j, (label, score) in enumerate(self.model.predict(pairs, top_k=k)):
                answers.labels[i, j], answers.scores[i, j] = label, score
        return answers


class XrLinear:
    """Partitioned label trees of PECOS, in a process of the environment that has it."""

    def __init__(self, features: Features, labels: int, python: Path):
        self.features = features
        self.python = python
        self.folder = tempfile.TemporaryDirectory()
        sparse.save_npz(Path(self.folder.name) / "features.npz", features.train)
        truth = features.labels
        ones = np.ones(len(truth.data), np.float32)
        shape = (len(truth), labels)
        matrix = sparse.csr_matrix((ones, truth.data, truth.offsets), shape=shape)
        sparse.save_npz(Path(self.folder.name) / "labels.npz", matrix)
        self._run("train", self.folder.name)

    def __call__(self, queries: Queries, k: int) -> TopK:
        sparse.save_npz(Path(self.folder.name) / "queries.npz", self.features.of(queries.texts))
        self._run("predict", self.folder.name, str(k))
        found = sparse.load_npz(Path(self.folder.name) / "answers.npz").tocsr()
        answers = TopK.none(len(queries.texts), k)
        for i in range(len(queries.texts)):
            part = slice(found.indptr[i], found.indptr[i + 1])
            labels, scores = best_of(found.indices[part], found.data[part], k)
            answers.labels[i, : len(labels)] = labels
            answers.scores[i, : len(labels)] = scores
        return answers

    def _run(self, *arguments: str) -> None:
        script = str(Path(__file__).with_name("xr_linear.py"))
        subprocess.run([str(self.python), script, *arguments], check=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Send what native code prints (a progress bar for every document) to nowhere."""
    saved = [os.dup(stream) for stream in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


class Neighbours:
    """The labels of the nearest training documents."""

    def __init__(self, features: Features):
        self.features = features
        self.index = features.train.T.tocsr()

    def __call__(self, queries: Queries, k: int) -> TopK:
        similar = (self.features.of(queries.texts) @ self.index).tocsr()
        answers = TopK.none(len(queries.texts), k)
        for i in range(len(queries.texts)):
            part = slice(similar.indptr[i], similar.indptr[i + 1])
            rows, weights = best_of(similar.indices[part], similar.data[part], NEIGHBOURS)
            voted = self.features.labels.take(rows)
            votes = np.repeat(weights, voted.lengths)
            labels, inverse = np.unique(voted.data, return_inverse=True)
            best, scores = best_of(labels, np.bincount(inverse, votes, len(labels)), k)
            answers.labels[i, : len(best)] = best
            answers.scores[i, : len(best)] = scores
        return answers


def write_sparse(path: Path, vectors: sparse.csr_matrix[Any], labels: Ragged, size: int) -> None:
    """Write documents in the sparse text format of the Extreme Classification Repository."""
    with path.open("w", encoding="ascii") as stream:
        stream.write(f"{vectors.shape[0]} {vectors.shape[1]} {size}\n")
        for i in range(vectors.shape[0]):
            part = slice(vectors.indptr[i], vectors.indptr[i + 1])
            pairs = zip(vectors.indices[part].tolist(), vectors.data[part].tolist(), strict=True)
            features = " ".join(f"{j}:{value:.6g}" for j, value in pairs)
            stream.write(f"{','.join(map(str, labels[i].tolist()))} {features}\n")


def measure(dataset: Dataset, threads: int, only: list[str], pecos: Path | None) -> dict[str, Any]:
    """Train and measure each peer; gives the content of the result file."""
    features = Features(dataset)
    size = len(dataset.labels)
    makers: dict[str, Callable[[], Search]] = {
        "parabel": lambda: Trees(features, size, PARABEL, threads),
        "bonsai": lambda: Trees(features, size, BONSAI, threads),
        **({"xr_linear": lambda: XrLinear(features, size, pecos)} if pecos else {}),
        "neighbours_tfidf": lambda: Neighbours(features),
        "baseline_tfidf": lambda: by_label_text(dataset),
    }
    # All documents at once: XR-Linear loads its model anew for each block.
    config = EvaluationConfig(block_documents=len(dataset.test))
    rows = measured_rows(dataset, config.block_documents)
    results: dict[str, Any] = {}
    for name in only or makers:
        log(f"{name}: training")
        start = time.monotonic()
        search = makers[name]()
        trained = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            ranker = partial(as_ranker, name, search)
            figures = measure_models(dataset, rows, [ranker], config, Path(folder))
        results[name] = {
            "metrics": figures["models"][name],
            "slices": figures["slices"][name],
            "train_seconds": trained - start,
            "predict_ms_per_document": 1000.0 * (time.monotonic() - trained) / len(rows),
        }
    return {
        "models": results,
        "counts": figures["counts"],
        "test_split": figures["test_split"],
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": threads},
        "peak_memory_mb": peak_memory_mb(),
        "versions": {name: version(name) for name in ("omikuji", "scikit-learn", "xcflow")},
    }


def by_label_text(dataset: Dataset) -> Search:
    words = WordIndex.build(dataset.labels.texts.to_list())
    return lambda queries, k: words.search(words.vectors(queries.texts), k)


def as_ranker(name: str, search: Search) -> Ranker:
    return lambda queries, k: {name: search(queries, k)}


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, in points."""
    header = ["", *COLUMNS, "training s"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, result in results["models"].items():
        figures = [f"{100 * result['metrics'][column]:.1f}" for column in COLUMNS]
        lines.append([name, *figures, f"{result['train_seconds']:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--pecos", type=Path, help="the Python of an environment with PECOS")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_step("validate_data", Config(), {"catalogue": arguments.catalogue}, Path(folder) / "d")
        dataset = Dataset.open(Path(folder) / "d")
        results = measure(dataset, arguments.threads, arguments.only, arguments.pecos)
    results = {"catalogue": arguments.catalogue.resolve().name, **results}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"peers-{results['catalogue']}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))
    log(f"written: {path}")


if __name__ == "__main__":
    main()
