"""Labels that are the same item as a document."""

import numpy as np
import pytest

from xcflow.catalogue.string_table import StringTable
from xcflow.labels import identity
from xcflow.labels.identity import known_relations, never_itself, same_item_labels
from xcflow.ragged import Ragged


def test_equal_texts_are_the_same_item(monkeypatch: pytest.MonkeyPatch):
    texts = StringTable.from_list(["b", "x", "a", "a", "y"])
    labels = StringTable.from_list(["a", "b", "c"])
    rows = np.array([4, 0, 2, 3])
    for block in (50_000, 2):
        monkeypatch.setattr(identity, "_BLOCK", block)
        assert same_item_labels(texts, labels, rows).tolist() == [-1, 1, 0, 0]


@pytest.mark.parametrize(
    ("cases", "carried", "expected"),
    [(200, 0, True), (200, 2, True), (200, 3, False), (19, 0, False), (20, 0, True), (0, 0, False)],
)
def test_a_catalogue_of_related_items_never_tags_items_with_themselves(
    cases: int, carried: int, expected: bool
):
    same_item = np.r_[np.full(30, -1), np.arange(cases)]
    rows = [[500, 501]] * 30 + [[i] if i < carried else [501] for i in range(cases)]
    assert never_itself(same_item, Ragged.from_rows(rows)) is expected


def test_known_relations_are_the_item_and_whoever_names_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = int(rng.integers(1, 9))
        same_item = rng.integers(-1, size, int(rng.integers(0, 12)))
        labels = [
            sorted(set(rng.integers(0, size, int(rng.integers(0, 4))).tolist())) for _ in same_item
        ]
        items = rng.integers(-1, size, 6)
        found = known_relations(items, same_item, Ragged.from_rows(labels))
        for i, item in enumerate(items.tolist()):
            naming = {int(s) for s, row in zip(same_item, labels, strict=True) if item in row}
            expected = sorted((naming - {-1}) | {item}) if item >= 0 else []
            assert found[i].tolist() == expected
