"""A small real catalogue: packages of the bundled one whose labels are frequent."""

import gzip
import json
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

LABELS, TRAIN, TEST = 400, 1500, 400


def _rows(name):
    path = Path(str(resources.files("xcflow") / "data" / "debian-related" / name))
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _labelled(rows, labels, count):
    kept = ({**row, "labels": [x for x in row["labels"] if x in labels]} for row in rows)
    return [row for row in kept if row["labels"]][:count]


@pytest.fixture(scope="session")
def small_catalogue(tmp_path_factory):
    """The most frequent labels with some of their documents."""
    folder = tmp_path_factory.mktemp("catalogue") / "small debian"
    folder.mkdir()
    train = _rows("trn.jsonl.gz")
    frequency = Counter(label for row in train for label in row["labels"])
    labels = {label for label, _ in frequency.most_common(LABELS)}
    files = {
        "labels": [row for row in _rows("labels.jsonl.gz") if row["id"] in labels],
        "train": _labelled(train, labels, TRAIN),
        "test": _labelled(_rows("tst.jsonl.gz"), labels, TEST),
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder
