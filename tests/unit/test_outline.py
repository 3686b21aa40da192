"""Which catalogue stands somewhere, told without reading its documents."""

from pathlib import Path

import pytest

from xcflow.catalogue.hashing import hash_strings
from xcflow.catalogue.outline import documents_of, labels_of, look_at
from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, Seal
from xcflow.config import DataConfig
from xcflow.errors import DataError

CONFIG = DataConfig(chunk_rows=2)


@pytest.fixture
def folder(write_catalogue, tmp_path) -> Path:
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": i, "text": text} for i, text in (("a", "one"), ("b", ""), ("a", "x"), ("", "y"))],
        [{"id": f"d{i}", "text": "text", "labels": ["a"]} for i in (1, 2)],
        [{"id": "t1", "text": "text", "labels": ["b"]}],
    )


def seal(folder: Path) -> None:
    (folder / NAME).write_bytes(Seal.of(folder, CONFIG).to_bytes())


def test_here_a_catalogue_is_known_by_its_content(folder):
    outline = look_at(str(folder), CONFIG)
    assert (outline.basis, outline.seal) == ("content", None)
    assert outline.digest == outline.content == catalogue_digest(folder)
    (folder / "README").write_text("not a part")
    assert look_at(str(folder), CONFIG).digest == outline.digest
    (folder / "test.jsonl").write_text("{}\n")
    assert look_at(str(folder), CONFIG).digest != outline.digest


def test_a_sealed_catalogue_is_known_by_its_seal(folder):
    digest = catalogue_digest(folder)
    seal(folder)
    outline = look_at(str(folder), CONFIG)
    assert (outline.basis, outline.digest, outline.content) == ("seal", digest, digest)


def test_a_catalogue_of_other_sizes_than_its_seal_is_not_taken_for_whole(folder):
    seal(folder)
    (folder / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"catalogue\.json: train\.jsonl has 3 bytes, not \d+"):
        look_at(str(folder), CONFIG)


def test_a_catalogue_of_other_files_than_its_seal_is_not_taken_for_whole(folder):
    seal(folder)
    (folder / "test_filter.jsonl").write_text('{"id": "t1", "labels": ["b"]}\n')
    with pytest.raises(DataError, match="tells of other files"):
        look_at(str(folder), CONFIG)


def test_a_place_without_a_catalogue_is_told(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        look_at(str(tmp_path / "absent"), CONFIG)
    with pytest.raises(DataError, match="holds no catalogue"):
        look_at(str(tmp_path), CONFIG)


def test_labels_are_those_that_a_data_set_would_have(folder, tmp_path):
    (tmp_path / "tables").mkdir()
    labels = labels_of(look_at(str(folder), CONFIG), CONFIG, tmp_path / "tables")
    assert not isinstance(labels, str)
    assert labels.ids.to_list() == ["a", "b"]
    assert labels.texts.to_list() == ["one", "b"]


def test_documents_are_known_by_id_where_the_content_was_read_and_by_number_of_a_seal(folder):
    hashes = documents_of(look_at(str(folder), CONFIG), CONFIG)
    assert sorted(hashes) == sorted(hash_strings(["d1", "d2", "t1"]))
    seal(folder)
    assert documents_of(look_at(str(folder), CONFIG), CONFIG) == 3
