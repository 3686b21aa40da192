"""Write a catalogue of any size: power-law label frequencies, topics, texts that share words.

    python benchmarks/synthetic.py FOLDER [--labels L] [--documents N] [--test-documents T]
                                          [--exponent A] [--seed S]

How it is made:

- Words are three syllables each, so that no two are alike. Word ``i`` is used in proportion to
  ``1 / (i + 1)``.
- Labels belong to topics of about 100, topics have 40 words each. A label's text is two words of
  its topic and two of its own.
- The label of rank ``r`` is drawn in proportion to ``r ** -A``: few labels have thousands of
  documents, many have one or none.
- A document draws a label, and up to four more from the same topic. Its text has each word of its
  labels with probability 0.6, four words of the topic and four of any kind, shuffled.

Documents are drawn in blocks, each from a random state of its own: the same arguments give the same
files, and memory holds the labels (some 60 bytes each) but never the documents.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK = 20_000
TOPIC_LABELS = 100
TOPIC_WORDS = 40
LABEL_WORDS = 4  # the first half from the topic
NOISE_WORDS = 4
LABEL_WORD_SHARE = 0.6
LABELS_OF_A_DOCUMENT = (0.25, 0.30, 0.25, 0.12, 0.08)  # probability of 1, 2, ... 5 of them
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
NO_WORD = -1


@dataclass(frozen=True)
class Synthetic:
    """What is generated.

    Attributes:
        labels: Number L of labels.
        documents: Training documents.
        test_documents: Test documents.
        exponent: A of the power law of label frequencies.
        words: Words of the vocabulary, at most the cube of the number of syllables.
        seed: Decides everything.
    """

    labels: int = 10_000
    documents: int = 10_000
    test_documents: int = 10_000
    exponent: float = 0.75
    words: int = 100_000
    seed: int = 1

    def write(self, folder: Path) -> None:
        """Write ``labels.jsonl.gz``, ``train.jsonl.gz`` and ``test.jsonl.gz``."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "labels.jsonl.gz", self._label_lines())
        for number, (role, size) in enumerate(
            (("train", self.documents), ("test", self.test_documents))
        ):
            _write(folder / f"{role}.jsonl.gz", self._document_lines(role, number, size))

    def _label_lines(self) -> Iterator[str]:
        for start in range(0, self.labels, BLOCK):
            texts = self._texts(self._label_words[start : start + BLOCK])
            for row, text in enumerate(texts, start):
                yield json.dumps({"id": _label_id(row), "text": text})

    def _document_lines(self, role: str, stream: int, size: int) -> Iterator[str]:
        for number, start in enumerate(range(0, size, BLOCK)):
            rng = np.random.default_rng([self.seed, 1 + stream, number])
            labels = self._draw_labels(rng, min(BLOCK, size - start))
            texts = self._texts(self._draw_words(rng, labels))
            for row, (text, named) in enumerate(zip(texts, labels.tolist(), strict=True), start):
                ids = [_label_id(label) for label in dict.fromkeys(named) if label >= 0]
                yield json.dumps({"id": f"{role}-{row}", "text": text, "labels": ids})

    def _draw_labels(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """[size, 5] labels of a topic, -1 beyond a document's number of labels."""
        widest = len(LABELS_OF_A_DOCUMENT)
        cumulated = self._cumulated
        first = np.searchsorted(cumulated, rng.random(size) * cumulated[-1], side="right") - 1
        topic = self._topic_of_place(first)
        low, high = cumulated[self._topic_starts[topic]], cumulated[self._topic_starts[topic + 1]]
        drawn = low[:, None] + rng.random((size, widest)) * (high - low)[:, None]
        places = np.searchsorted(cumulated, drawn, side="right") - 1
        places[:, 0] = first
        # Rounding may carry a draw over the last label of its topic.
        places = np.minimum(places, self._topic_starts[topic + 1][:, None] - 1)
        counts = 1 + rng.choice(widest, size, p=LABELS_OF_A_DOCUMENT)
        return np.where(np.arange(widest) < counts[:, None], self._label_at[places], -1)

    def _draw_words(self, rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.int32]:
        """[B, W] words of documents with the given labels, ``NO_WORD`` here and there."""
        size = len(labels)
        named = self._label_words[labels].reshape(size, -1)
        kept = rng.random(named.shape) < LABEL_WORD_SHARE
        kept &= np.repeat(labels >= 0, LABEL_WORDS, axis=1)
        topic = self._topic_of_label[labels[:, 0]]
        column = rng.integers(0, TOPIC_WORDS, (size, NOISE_WORDS))
        words = np.concatenate(
            [
                np.where(kept, named, NO_WORD),
                self._topic_words[topic[:, None], column],
                self._any_words(rng, (size, NOISE_WORDS)),
            ],
            axis=1,
        )
        return rng.permuted(words, axis=1)

    def _any_words(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int32]:
        """Words by Zipf's law: the cumulated share of ``1 / (i + 1)`` is about logarithmic."""
        words = np.exp(rng.random(shape) * np.log(self.words + 1.0)) - 1.0
        return np.minimum(words, self.words - 1).astype(np.int32)

    def _texts(self, words: NDArray[np.int32]) -> Iterator[str]:
        vocabulary = self._vocabulary
        for row in words.tolist():
            yield " ".join([vocabulary[word] for word in row if word != NO_WORD])

    @cached_property
    def _vocabulary(self) -> list[str]:
        base = len(SYLLABLES)
        chosen = np.random.default_rng([self.seed, 0, 0]).permutation(base**3)[: self.words]
        return [
            SYLLABLES[n // base**2] + SYLLABLES[n // base % base] + SYLLABLES[n % base]
            for n in chosen.tolist()
        ]

    @cached_property
    def _label_at(self) -> NDArray[np.int64]:
        """[L] the label at each place, topic after topic; a label's number says nothing of it."""
        return np.random.default_rng([self.seed, 0, 1]).permutation(self.labels)

    @cached_property
    def _topic_starts(self) -> NDArray[np.int64]:
        """[topics + 1] the first place of each topic."""
        topics = max(1, self.labels // TOPIC_LABELS)
        return np.arange(topics + 1) * self.labels // topics

    def _topic_of_place(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._topic_starts, places, side="right") - 1

    @cached_property
    def _topic_of_label(self) -> NDArray[np.int64]:
        topics = np.empty(self.labels, np.int64)
        topics[self._label_at] = self._topic_of_place(np.arange(self.labels))
        return topics

    @cached_property
    def _cumulated(self) -> NDArray[np.float64]:
        """[L + 1] weight of all labels that stand before each place."""
        ranks = np.random.default_rng([self.seed, 0, 2]).permutation(self.labels) + 1.0
        return np.concatenate([[0.0], np.cumsum(ranks**-self.exponent)])

    @cached_property
    def _topic_words(self) -> NDArray[np.int32]:
        """[topics, TOPIC_WORDS]."""
        rng = np.random.default_rng([self.seed, 0, 3])
        return self._any_words(rng, (len(self._topic_starts) - 1, TOPIC_WORDS))

    @cached_property
    def _label_words(self) -> NDArray[np.int32]:
        """[L, LABEL_WORDS]."""
        rng = np.random.default_rng([self.seed, 0, 4])
        half = LABEL_WORDS // 2
        column = rng.integers(0, TOPIC_WORDS, (self.labels, half))
        of_topic = self._topic_words[self._topic_of_label[:, None], column]
        own = rng.integers(0, self.words, (self.labels, LABEL_WORDS - half), dtype=np.int32)
        return np.concatenate([of_topic, own], axis=1)


def _label_id(row: int) -> str:
    return f"label-{row}"


def _write(path: Path, lines: Iterator[str]) -> None:
    # No name and no time in the header: the same catalogue gives the same bytes.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as stream,
    ):
        stream.writelines(f"{line}\n" for line in lines)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for name, kind in (
        ("labels", int),
        ("documents", int),
        ("test_documents", int),
        ("exponent", float),
        ("words", int),
        ("seed", int),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=getattr(Synthetic, name))
    arguments = vars(parser.parse_args())
    folder = arguments.pop("folder")
    Synthetic(**arguments).write(folder)


if __name__ == "__main__":
    main()
