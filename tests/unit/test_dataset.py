"""From a catalogue to the data set on disk."""

import json
import random
import string
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue import ingest
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.hashing import SeenHashes, find_hashes, first_positions, hash_strings
from xcflow.catalogue.ingest import Ingest
from xcflow.catalogue.readers import open_catalogue
from xcflow.catalogue.split import validation_split
from xcflow.config import Config
from xcflow.errors import ArtifactError, DataError
from xcflow.steps.validate_data import run

Row = dict[str, Any]


def write_catalogue(folder: Path, **roles: list[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for role, rows in roles.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{role}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def small_catalogue(folder: Path, documents: int = 30, labels: int = 8) -> Path:
    rng = random.Random(7)
    label_rows = [{"id": f"l{i}", "text": f"label number {i}"} for i in range(labels)]

    def document(name: str) -> Row:
        words = ("".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(6))
        chosen = rng.sample(range(labels), k=min(2, labels))
        return {"id": name, "text": " ".join(words), "labels": [f"l{i}" for i in chosen]}

    return write_catalogue(
        folder,
        labels=label_rows,
        train=[document(f"d{i}") for i in range(documents)],
        test=[document(f"t{i}") for i in range(5)],
        test_filter=[{"id": "t1", "labels": ["l3", "l0", "l3"]}, {"id": "t1", "labels": ["l1"]}],
    )


def make_dataset(catalogue: Path, output: Path, **data: Any) -> Dataset:
    """What the step makes, unjudged: great-expectations takes its time."""
    config = Config.from_dict({"data": {"catalogue_words": 0, **data}})
    with writing(output, "dataset") as folder:
        work = Ingest(open_catalogue(catalogue), config, folder)
        work.read()
        work.split()
        work.tokenize()
    return Dataset.open(output, verify=True)


def make_validated(catalogue: Path, output: Path, chunk_rows: int) -> Dataset:
    run(Config.from_dict({"data": {"chunk_rows": chunk_rows}}), {"catalogue": catalogue}, output)
    return Dataset.open(output, verify=True)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="module")
def dataset(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_validated(catalogue, tmp_path_factory.mktemp("out") / "dataset", chunk_rows=7)


def rows_of(catalogue: Path, role: str) -> list[Row]:
    return [json.loads(line) for line in (catalogue / f"{role}.jsonl").read_text().splitlines()]


def test_everything_of_the_catalogue_is_in_the_data_set(catalogue: Path, dataset: Dataset):
    labels = rows_of(catalogue, "labels")
    assert dataset.labels.ids.to_list() == [row["id"] for row in labels]
    assert dataset.labels.texts.to_list() == [row["text"] for row in labels]
    for split in ("train", "test"):
        documents = getattr(dataset, split)
        rows = rows_of(catalogue, split)
        assert documents.ids.to_list() == [row["id"] for row in rows]
        assert documents.texts.to_list() == [row["text"] for row in rows]
        for i, row in enumerate(rows):
            found = documents.labels[i]
            assert found.tolist() == sorted(found.tolist())
            assert set(dataset.labels.ids.take(found)) == set(row["labels"])
    assert dataset.train.labels.data.dtype == np.int32


def test_the_filter_joins_rows_of_one_document(dataset: Dataset):
    assert [dataset.test_filter[i].tolist() for i in range(5)] == [[], [0, 1, 3], [], [], []]


def test_tokens_are_the_tokenizers_without_special_ones(dataset: Dataset):
    tokenizer = Tokenizer.from_file(str(dataset.tokenizer_file))
    assert dataset.train.tokens.data.dtype == np.uint16
    for i, text in enumerate(dataset.train.texts.to_list()):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert dataset.train.tokens[i].tolist() == expected


def test_the_manifest_names_what_went_in(catalogue: Path, dataset: Dataset):
    meta, inputs = dataset.manifest.meta, dataset.manifest.inputs
    assert meta["labels"] == 8
    assert meta["fit_documents"] + meta["validation_documents"] == 30
    assert meta["tokenizer"] == "minilm"
    assert inputs == {"catalogue": meta["catalogue_digest"]}


def test_the_same_input_gives_the_same_bytes(catalogue: Path, dataset: Dataset, tmp_path: Path):
    again = make_validated(catalogue, tmp_path / "elsewhere", chunk_rows=7)
    assert again.manifest.digest == dataset.manifest.digest


def test_the_size_of_chunks_does_not_show(catalogue: Path, tmp_path: Path):
    one, other = (make_dataset(catalogue, tmp_path / f"{n}", chunk_rows=n) for n in (3, 1000))
    assert one.manifest.files == other.manifest.files


def test_label_counts_of_all_and_of_some_rows(catalogue: Path, dataset: Dataset):
    rows = rows_of(catalogue, "train")
    expected = [sum(f"l{i}" in row["labels"] for row in rows) for i in range(8)]
    assert dataset.label_counts().tolist() == expected
    some = np.array([3, 1])
    expected = [sum(f"l{i}" in rows[r]["labels"] for r in some) for i in range(8)]
    assert dataset.label_counts(some).tolist() == expected


def test_the_splits_cover_the_usable_documents(dataset: Dataset):
    both = np.concatenate([dataset.fit_rows, dataset.validation_rows])
    assert sorted(both.tolist()) == list(range(30))
    assert dataset.validation_rows.tolist() == sorted(dataset.validation_rows.tolist())
    assert len(dataset.validation_rows) == round(0.05 * 30)


def test_the_order_of_lines_does_not_change_the_split(catalogue: Path, tmp_path: Path):
    roles = {role: rows_of(catalogue, role) for role in ("labels", "train", "test")}
    held_out = []
    for name in ("one", "two"):
        for rows in roles.values():
            random.Random(name).shuffle(rows)
        shuffled = write_catalogue(tmp_path / name, **roles)
        dataset = make_dataset(shuffled, tmp_path / f"{name}.out", validation_fraction=0.3)
        held_out.append(sorted(dataset.train.ids.take(dataset.validation_rows)))
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == 9


@given(
    ids=st.lists(st.text(max_size=5), min_size=2, max_size=40, unique=True),
    fraction=st.floats(0.01, 0.5),
    at_most=st.integers(0, 20),
    data=st.data(),
)
def test_a_split_depends_on_ids_alone(ids, fraction, at_most, data):
    usable = {i: data.draw(st.booleans()) for i in ids}

    def held_out(order: list[str]) -> set[str]:
        mask = np.array([usable[i] for i in order])
        fit, held = validation_split(hash_strings(order), mask, fraction, at_most)
        n = int(mask.sum())
        if n >= 2:
            assert sorted([*fit, *held]) == np.flatnonzero(mask).tolist()
            assert 1 <= len(held) <= max(1, min(round(fraction * n), at_most))
            assert len(fit) >= 1
        else:
            assert fit.tolist() == held.tolist() == np.flatnonzero(mask).tolist()
        return {order[row] for row in held}

    assert held_out(ids) == held_out(data.draw(st.permutations(ids)))


def test_documents_without_label_or_text_are_kept_but_not_used(tmp_path: Path):
    folder = small_catalogue(tmp_path / "c")
    train = rows_of(folder, "train")
    train[3]["labels"], train[4]["text"] = [], " "
    write_catalogue(folder, train=train)
    dataset = make_dataset(folder, tmp_path / "out")
    assert len(dataset.train) == 30
    used = {*dataset.fit_rows.tolist(), *dataset.validation_rows.tolist()}
    assert used == set(range(30)) - {3, 4}


def test_a_text_without_tokens_gets_the_unknown_one(tmp_path: Path):
    folder = small_catalogue(tmp_path / "c")
    train, labels = rows_of(folder, "train"), rows_of(folder, "labels")
    train[0]["text"], labels[2]["text"] = "\u200b", ""
    write_catalogue(folder, train=train, labels=labels)
    dataset = make_dataset(folder, tmp_path / "out")
    unknown = Tokenizer.from_file(str(dataset.tokenizer_file)).token_to_id("[UNK]")
    assert dataset.train.tokens[0].tolist() == [unknown]
    assert dataset.labels.texts[2] == "l2"
    assert dataset.labels.tokens.lengths.min() >= 1


def test_a_huge_text_is_looked_at_only_in_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ingest, "BATCH_CHARS", 100)
    folder = small_catalogue(tmp_path / "c")
    train = rows_of(folder, "train")
    train[0]["text"] = "word " * 100
    write_catalogue(folder, train=train)
    dataset = make_dataset(folder, tmp_path / "out", max_document_tokens=50)
    assert len(dataset.train.tokens[0]) == 20
    assert len(dataset.train.tokens) == 30


def test_long_texts_are_cut(tmp_path: Path):
    folder = small_catalogue(tmp_path / "c")
    train = rows_of(folder, "train")
    train[0]["text"] = "word " * 100
    write_catalogue(folder, train=train)
    dataset = make_dataset(folder, tmp_path / "out", max_document_tokens=5)
    assert dataset.train.tokens.lengths.max() == 5
    assert dataset.train.texts[0] == "word " * 100


@pytest.mark.parametrize(("documents", "labels"), [(1, 1), (2, 1), (10, 8), (10, 1)])
def test_tiny_catalogues(tmp_path: Path, documents: int, labels: int):
    catalogue = write_catalogue(
        tmp_path / "c",
        labels=[{"id": f"l{i}", "text": f"標籤 {i}"} for i in range(labels)],
        train=[{"id": f"d{i}", "text": f"文件 {i}", "labels": ["l0"]} for i in range(documents)],
        test=[{"id": "t", "text": "文件", "labels": ["l0"]}],
    )
    dataset = make_dataset(catalogue, tmp_path / "out")
    assert len(dataset.validation_rows) == 1
    assert len(dataset.fit_rows) == max(1, documents - 1)
    assert dataset.test_filter.lengths.tolist() == [0]
    assert dataset.test.tokens.lengths.min() >= 1


def test_a_refused_catalogue_leaves_the_old_data_set(tmp_path: Path, catalogue: Path):
    output = tmp_path / "out"
    before = make_dataset(catalogue, output).manifest.digest
    broken = write_catalogue(tmp_path / "c", labels=[], train=[], test=[])
    with pytest.raises(DataError, match="holds not a single label"):
        make_validated(broken, output, chunk_rows=10)
    assert read_manifest(output, verify=True).digest == before


def test_opening_something_else_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match="not a complete dataset"):
        Dataset.open(tmp_path)


def test_memory_is_bounded_by_the_chunk(tmp_path: Path):
    """Reading twenty times the rows may take a few bytes more for each, not their texts."""
    peaks = []
    for name, documents in (("small", 500), ("large", 10_000)):
        labels = [{"id": "l0", "text": "l"}]
        train = [
            {"id": f"d{i}", "text": f"{i} " + "x" * 500, "labels": ["l0"]} for i in range(documents)
        ]
        catalogue = write_catalogue(tmp_path / name, labels=labels, train=train, test=train[:1])
        del train
        config = Config.from_dict({"data": {"chunk_rows": 500}})
        (tmp_path / f"{name}.out").mkdir()
        tracemalloc.start()
        Ingest(open_catalogue(catalogue), config, tmp_path / f"{name}.out").read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 9_500 * 100


@given(pieces=st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=6))
def test_seen_hashes_are_those_that_came_before(pieces: list[list[int]]):
    seen, expected_seen = SeenHashes(), set()
    for piece in pieces:
        expected = []
        for value in piece:
            expected.append(value in expected_seen)
            expected_seen.add(value)
        assert seen.add(np.array(piece, np.uint64)).tolist() == expected


@given(table=st.lists(st.integers(0, 20), max_size=20), wanted=st.lists(st.integers(0, 20)))
def test_finding_hashes(table: list[int], wanted: list[int]):
    found = find_hashes(np.array(table, np.uint64), np.array(wanted, np.uint64))
    assert found.tolist() == [table.index(v) if v in table else -1 for v in wanted]
    assert first_positions(np.array(table, np.uint64)).tolist() == [table.index(v) for v in table]
