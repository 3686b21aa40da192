"""Small data sets and evaluations with models whose quality is known."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from xcflow.artifact import Manifest, writing
from xcflow.catalogue.dataset import Dataset, Documents, Labels
from xcflow.catalogue.string_table import StringTable
from xcflow.config import EvaluationConfig
from xcflow.evaluation.evaluate import evaluate
from xcflow.evaluation.rankers import BundleRanker
from xcflow.evaluation.result import KIND, Evaluation
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK

Rows = Sequence[Sequence[int]]
# What the step adds to the facts of a bundle.
FACTS = {"bytes": 3_000_000, "index_recall": {"labels": 1.0, "documents": 0.97}}


class Scripted:
    """A predictor that answers each known text with the label ids written down for it."""

    def __init__(
        self,
        label_ids: Sequence[str],
        answers: Mapping[str, Sequence[str]],
        encoder: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._encoder = encoder and Scripted(label_ids, encoder)
        self.label_ids = StringTable.from_list(label_ids)
        row = {label: i for i, label in enumerate(label_ids)}
        self._answers = {text: [row[x] for x in labels] for text, labels in answers.items()}

    def top_k(self, texts: Sequence[str], k: int) -> TopK:
        labels = np.full((len(texts), k), NO_LABEL, np.int32)
        scores = np.full((len(texts), k), -np.inf, np.float32)
        for i, text in enumerate(texts):
            found = self._answers[text][:k]
            labels[i, : len(found)] = found
            scores[i, : len(found)] = 1.0 / np.arange(1, len(found) + 1)
        return TopK(labels, scores)

    def restricted_to(self, only: NDArray[np.bool_]) -> Self:
        restricted = copy(self)
        restricted._answers = {
            text: [row for row in rows if only[row]] for text, rows in self._answers.items()
        }
        return restricted

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(np.isneginf(scores), 0.0, 0.5).astype(np.float32)

    def top_k_voices(self, texts: Sequence[str], k: int) -> dict[str, TopK]:
        encoder = {"encoder": self._encoder.top_k(texts, k)} if self._encoder else {}
        return {"fused": self.top_k(texts, k), **encoder}

    def nearest_labels(self, labels: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The rows above and below, in turn."""
        steps = np.repeat(np.arange(1, k), 2)[:k] * np.tile([1, -1], k)[:k]
        near = np.asarray(labels)[:, None] + steps
        inside = (near >= 0) & (near < len(self.label_ids))
        return np.where(inside, near, NO_LABEL).astype(np.int32)


class Page(HTMLParser):
    """A page: its elements nest, it points nowhere outside, and only its one script may run."""

    VOID = ("meta", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.feed(text)
        assert self.open == []
        assert not re.search(r"url\(|@import|https?:|\bnan\b", text)
        assert "default-src 'none'" in self.policy
        assert len(self.ids) == len(set(self.ids))
        assert set(self.wanted) <= set(self.ids)
        for script in self.scripts:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"script-src 'sha256-{digest}'" in self.policy

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert not values.keys() & {"src", "href", "srcset", "data"}
        assert not [name for name in values if name.startswith("on")]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.wanted += [v for k, v in attrs if k in ("for", "aria-describedby") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="session")
def read_page() -> type[Page]:
    return Page


def documents(prefix: str, labels: Rows) -> Documents:
    names = [f"{prefix}{i}" for i in range(len(labels))]
    return Documents(
        StringTable.from_list(names),
        StringTable.from_list([f"text of {name}" for name in names]),
        Ragged.from_rows([[1]] * len(names), np.uint16),
        Ragged.from_rows(labels),
    )


def make_dataset(
    labels: Sequence[str], train: Rows, test: Rows, filtered: Rows | None = None
) -> Dataset:
    """A data set in memory; documents are named train0, ... and test0, ..."""
    return Dataset(
        path=Path("in-memory"),
        manifest=Manifest("dataset", {}, "", {}, {"labels": len(labels), "test": len(test)}),
        labels=Labels(
            StringTable.from_list(labels),
            StringTable.from_list([f"label {name}" for name in labels]),
            Ragged.from_rows([[1]] * len(labels), np.uint16),
        ),
        train=documents("train", train),
        test=documents("test", test),
        test_filter=Ragged.from_rows(filtered or [[]] * len(test)),
        fit_rows=np.arange(len(train)),
        validation_rows=np.arange(0),
        tokenizer_file=Path("in-memory"),
    )


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Evaluation]:
    """Evaluate scripted predictors on a data set."""

    def run(
        dataset: Dataset,
        candidate: Scripted,
        champion: Scripted | None = None,
        baselines: Mapping[str, Scripted] | None = None,
        *,
        digests: tuple[str, str] = ("digest of candidate", "digest of champion"),
        ks: tuple[int, ...] = (1, 5, 10, 100),
        block: int = 1000,
        latency_texts: int = 3,
        facts: Mapping[str, Any] | None = None,
        voices: Mapping[str, str] | None = None,
    ) -> Evaluation:
        ids = dataset.labels.ids
        voice = {"fused": "champion"}
        old = champion and BundleRanker(champion, digests[1], ids, voice, FACTS)
        others = [
            partial(BundleRanker, model, name, ids, {"fused": name})
            for name, model in (baselines or {}).items()
        ]
        config = EvaluationConfig(ks=ks, block_documents=block, latency_texts=latency_texts)
        output = tmp_path / f"evaluation-{len(list(tmp_path.iterdir()))}"
        with writing(output, KIND) as folder:
            more = FACTS | (facts or {})
            names = voices or {"fused": "fused"}
            new = BundleRanker(candidate, digests[0], ids, names, more)
            evaluate(dataset, new, old, others, config, folder)
        return Evaluation.open(output)

    return run


def noisy(dataset: Dataset, accuracy: float, seed: int) -> Scripted:
    """A predictor whose first answers are right with the given probability, the rest random."""
    random = np.random.default_rng(seed)
    names = dataset.labels.ids.to_list()
    answers = {}
    for i, text in enumerate(dataset.test.texts.to_list()):
        true = [names[row] for row in dataset.test.labels[i]]
        wrong = [names[row] for row in random.permutation(len(names)) if names[row] not in true]
        answers[text] = [
            true.pop() if true and random.random() < accuracy else wrong.pop() for _ in range(5)
        ]
    return Scripted(names, answers)


@pytest.fixture(scope="session")
def large_dataset() -> Dataset:
    """600 test documents with one to three of 40 labels."""
    random = np.random.default_rng(3)

    def rows(count: int) -> list[list[int]]:
        sizes = random.integers(1, 4, count)
        return [sorted(random.choice(40, size, replace=False).tolist()) for size in sizes]

    return make_dataset([f"L{i}" for i in range(40)], rows(400), rows(600))


@pytest.fixture(name="make_dataset", scope="session")
def make_dataset_fixture() -> Callable[..., Dataset]:
    return make_dataset


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture(name="noisy", scope="session")
def noisy_fixture() -> Callable[[Dataset, float, int], Scripted]:
    return noisy
