"""Hold out training documents of a catalogue: a catalogue of its own, to choose methods on.

    python benchmarks/development.py CATALOGUE FOLDER [--kin] [--documents 3500]

Its test split are the held out documents, so whatever measures a catalogue measures a choice, and
the real test split stays unseen. With ``--kin`` documents whose texts start with the same word (two
words, where many start with it) are held out together, as when a test split was made by source
package. Labels without a training document are left out, as in catalogues made for research.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.labels.identity import known_relations, never_itself, same_item_labels
from xcflow.ragged import Ragged
from xcflow.steps import run_step

COMMON = 60  # documents that start with a word, from which on the second word counts too


def kin(texts: list[str]) -> list[str]:
    """The name of the group of each text."""
    starts = [re.findall(r"[^\W_]+", text.lower())[:2] or [text] for text in texts]
    first = Counter(words[0] for words in starts)
    return [" ".join(words if first[words[0]] > COMMON else words[:1]) for words in starts]


def held_out(groups: list[str], documents: int) -> NDArray[np.bool_]:
    """[N] whether a document is held out: whole groups, about ``documents`` in all."""
    hashes = np.array([crc32(group.encode()) for group in groups])
    return np.asarray(hashes < np.sort(hashes)[min(documents, len(hashes) - 1)])


def write(dataset: Dataset, out: NDArray[np.bool_], folder: Path) -> None:
    """Write the catalogue in which the documents marked in ``out`` [N] are the test split."""
    rows = np.flatnonzero(dataset.train.labels.lengths)
    fit, test = rows[~out], rows[out]
    used = np.flatnonzero(dataset.label_counts(fit))
    item = same_item_labels(dataset.train.texts, dataset.labels.texts, rows)
    learned = dataset.train.labels.take(fit)
    known = Ragged.from_rows([[] for _ in test])
    if never_itself(item[~out], learned):
        known = known_relations(item[out], item[~out], learned)
    folder.mkdir(parents=True)
    ids = np.array(dataset.labels.ids.to_list(), object)
    is_used = np.isin(np.arange(len(ids)), used)

    def documents(rows: NDArray[np.int64]) -> Iterable[dict[str, Any]]:
        labels = dataset.train.labels.take(rows)
        labels = labels.keep(is_used[labels.data])
        names, texts = dataset.train.ids.take(rows), dataset.train.texts.take(rows)
        for i, (name, text) in enumerate(zip(names, texts, strict=True)):
            yield {"id": name, "text": text, "labels": ids[labels[i]].tolist()}

    _write_rows(folder / "train.jsonl", documents(fit))
    _write_rows(folder / "test.jsonl", documents(test))
    texts = dataset.labels.texts.take(used)
    labels = zip(ids[used].tolist(), texts, strict=True)
    _write_rows(folder / "labels.jsonl", ({"id": name, "text": text} for name, text in labels))
    known = known.keep(is_used[known.data])
    filtered = zip(dataset.train.ids.take(test), range(len(test)), strict=True)
    _write_rows(
        folder / "test_filter.jsonl",
        ({"id": name, "labels": ids[known[i]].tolist()} for name, i in filtered),
    )


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kin", action="store_true")
    parser.add_argument("--documents", type=int, default=3500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "dataset"
        run_step("validate_data", Config(), {"catalogue": arguments.catalogue}, path)
        dataset = Dataset.open(path)
        rows = np.flatnonzero(dataset.train.labels.lengths)
        groups = dataset.train.ids.take(rows)
        if arguments.kin:
            groups = kin(dataset.train.texts.take(rows))
        write(dataset, held_out(groups, arguments.documents), arguments.folder)


if __name__ == "__main__":
    main()
