"""What of a catalogue is new, against sets and dictionaries."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xcflow.catalogue.contents import LabelTable
from xcflow.catalogue.difference import EXAMPLES, Difference, find_difference, label_changes
from xcflow.catalogue.hashing import hash_strings
from xcflow.catalogue.outline import look_at
from xcflow.catalogue.profile import MAX_CHARS, Profile
from xcflow.catalogue.seal import NAME, Seal
from xcflow.catalogue.string_table import StringTable
from xcflow.config import DataConfig

CONFIG = DataConfig(chunk_rows=3)

Labels = dict[str, str]
labels_of_a_catalogue = st.dictionaries(
    st.text("abc", min_size=1, max_size=2), st.text("xyé ", min_size=1, max_size=3), min_size=1
)
ids_of_documents = st.sets(st.integers(0, 30).map(str), min_size=1)


def table(labels: Labels) -> LabelTable:
    texts = list(labels.values())
    return LabelTable(StringTable.from_list(list(labels)), StringTable.from_list(texts))


def profile(labels: Labels, documents: set[str]) -> Profile:
    nothing = np.zeros(MAX_CHARS + 1, np.int64)
    return Profile(
        catalogue="c" * 64,
        label_ids=table(labels).ids,
        label_texts=table(labels).texts,
        label_counts=np.zeros(len(labels), np.int64),
        document_ids=np.sort(hash_strings(sorted(documents))),
        document_lengths=nothing,
        label_lengths=nothing,
        tokens=0,
        unknown_tokens=0,
    )


def write(folder: Path, labels: Labels, documents: set[str]) -> Path:
    rows = {
        "labels": [{"id": label, "text": text} for label, text in labels.items()],
        "train": [{"id": i, "text": "text", "labels": []} for i in sorted(documents)[:-1]],
        "test": [{"id": i, "text": "text", "labels": []} for i in sorted(documents)[-1:]],
    }
    for role, content in rows.items():
        lines = (json.dumps(row) + "\n" for row in content)
        (folder / f"{role}.jsonl").write_text("".join(lines))
    return folder


def text_of(label: str, text: str) -> str:
    return text if text.strip() else label


@given(old=labels_of_a_catalogue, new=labels_of_a_catalogue)
def test_what_became_of_labels_is_what_dictionaries_say(old: Labels, new: Labels):
    found = label_changes(table(old), table(new))
    renamed = [i for i in new if i in old and old[i] != new[i]]
    expected = {
        "added": [i for i in new if i not in old],
        "removed": [i for i in old if i not in new],
        "renamed": renamed,
    }
    assert (found.before, found.now) == (len(old), len(new))
    for name, ids in expected.items():
        change = getattr(found, name)
        assert change.count == len(ids)
        assert [example.partition(" ")[0] for example in change.examples] == ids[:EXAMPLES]


@settings(max_examples=30)
@given(
    old=labels_of_a_catalogue,
    new=labels_of_a_catalogue,
    before=ids_of_documents,
    now=ids_of_documents,
)
def test_a_catalogue_is_told_from_the_accepted_one(
    old: Labels, new: Labels, before: set[str], now: set[str]
):
    with TemporaryDirectory() as scratch:
        folder = write(Path(scratch), new, now)
        accepted = profile({i: text_of(i, text) for i, text in old.items()}, before)
        read = find_difference(accepted, look_at(str(folder), CONFIG), CONFIG)
        (folder / NAME).write_bytes(Seal.of(folder, CONFIG).to_bytes())
        sealed = find_difference(accepted, look_at(str(folder), CONFIG), CONFIG)
    for found in (read, sealed):
        assert found.unknown == ()
        assert found.labels is not None
        assert found.labels.added.count == len(new.keys() - old.keys())
        assert found.labels.removed.count == len(old.keys() - new.keys())
        texts = ((text_of(i, old[i]), text_of(i, new[i])) for i in old.keys() & new.keys())
        assert found.labels.renamed.count == sum(a != b for a, b in texts)
        assert found.documents is not None
        assert (found.documents.before, found.documents.now) == (len(before), len(now))
    assert read.documents is not None
    assert read.documents.exact
    assert read.documents.added == len(now - before)
    assert read.documents.removed == len(before - now)
    assert sealed.documents is not None
    assert not sealed.documents.exact
    assert sealed.documents.added == max(len(now) - len(before), 0) <= read.documents.added
    assert sealed.documents.removed == max(len(before) - len(now), 0) <= read.documents.removed


def test_the_sentences_name_counts_and_examples(tmp_path):
    accepted = profile({"a": "apple", "b": "pear", "c": "plum"}, {"1", "2"})
    write(tmp_path, {"a": "apple", "b": "quince", "d": 'a "fig"\nor two'}, {"2", "3", "4"})
    found = find_difference(accepted, look_at(str(tmp_path), CONFIG), CONFIG)
    assert found.sentences == (
        "labels: 3, 3 in the accepted catalogue",
        'labels: 1 added (such as d "a "fig" or two")',
        'labels: 1 removed (such as c "plum")',
        'labels: 1 renamed (such as b "quince", was "pear")',
        "documents: 3, 2 in the accepted catalogue",
        "documents: 2 added",
        "documents: 1 removed",
    )


def test_what_is_not_known_is_said():
    assert Difference(None, None, ("labels: not known",)).sentences == ("labels: not known",)
